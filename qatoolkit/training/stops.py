"""What can happen to a training on a cluster: a requested stop, the same job started twice, a full disk.

On SIGTERM or SIGUSR1 the current step is completed, the state is saved and the process ends with the code AGAIN. A
scheduler may then run the same command again, which resumes bit for bit.
"""

import errno
import os
import re
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path

from qatoolkit.core.files import hold_lock

AGAIN = 75  # EX_TEMPFAIL of sysexits.h: run the same command again
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
LOCK = ".lock"  # in the job's folder, during training
UNLOCKABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Stopped(SystemExit):
    """A training was asked to stop and has saved its state; uncaught, it ends the process with the code AGAIN."""

    def __init__(self, message: str):
        super().__init__(AGAIN)
        self.message = message

    def __str__(self) -> str:
        return self.message


class InUse(RuntimeError):
    """Another process is training in the job's folder; the message names it."""


@contextmanager
def stop_requests(pass_on: Callable[[], None] = lambda: None):
    """Catch SIGTERM and SIGUSR1; yields a function that says whether one was received. `pass_on` is called at each.
    Signals can only be caught in the main thread; in another one they keep their handlers."""
    received = []

    def handle(number, frame) -> None:
        received.append(number)
        pass_on()

    caught = SIGNALS if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, handle) for number in caught}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def lock_folder(job, leader: bool):
    """Lock the job's folder until the block or the process ends, for whatever reason; raises InUse, naming the process
    that has the lock. Only the leading process locks. A folder that can't be locked (read-only, or a file system
    without locks) stays unlocked."""
    out, file = Path(job.out), None
    path = out / LOCK
    if leader:
        out.mkdir(parents=True, exist_ok=True)
        try:
            file = hold_lock(path, wait=False)
        except BlockingIOError:
            holder = "another process"
            with suppress(FileNotFoundError):  # it has just ended
                holder = path.read_text().strip() or holder
            raise InUse(
                f"job {job.name!r}: {holder} is already training in {job.out}; wait until it has ended, or give "
                "another `out`"
            ) from None
        except OSError as error:
            if error.errno not in UNLOCKABLE:
                raise
    if file:
        with suppress(OSError):  # a full disk
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
    try:
        yield
    finally:
        if file:
            path.unlink(missing_ok=True)
            file.close()
        if leader:
            with suppress(OSError):  # a job that failed before it wrote anything leaves no folder
                out.rmdir()


def is_full(error: BaseException) -> bool:
    """Whether a write failed for a full disk, quota or file-size limit; also recognises errors of Rust libraries."""
    number = getattr(error, "errno", None)
    from_rust = re.search(r"os error (\d+)", str(error))
    return number in FULL or bool(from_rust and int(from_rust[1]) in FULL)
