"""What a cluster does to a training: it asks for a stop, starts a job twice, and runs out of disk.

SIGTERM and SIGUSR1 are answered at the end of the step that is being taken: its state is saved and the process ends
with the code AGAIN. A scheduler may then run the same command again, and it goes on to the same bits.
"""

import errno
import fcntl
import os
import re
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path

AGAIN = 75  # EX_TEMPFAIL of sysexits.h: run the same command again
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
LOCK = ".lock"  # in the job's folder, while it is trained
UNLOCKABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Stopped(SystemExit):
    """A training was asked to stop and has saved its state; uncaught it ends the process with the code AGAIN."""

    def __init__(self, message: str):
        super().__init__(AGAIN)
        self.message = message

    def __str__(self) -> str:
        return self.message


class InUse(RuntimeError):
    """Another process trains in the job's folder; the message names it."""


@contextmanager
def stop_requests(pass_on: Callable[[], None] = lambda: None):
    """Yields a function that says whether SIGTERM or SIGUSR1 has come, which end nothing meanwhile; `pass_on` is called
    at each. In another thread than the main one signals can't be caught, and are left as they are."""
    came = []

    def note(number, frame) -> None:
        came.append(number)
        pass_on()

    caught = SIGNALS if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, note) for number in caught}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def only_one(job, leader: bool):
    """Keep other jobs out of the folder of this one until the block or the process ends, however it ends; InUse names the
    process that is there already. Only the leading process locks. A folder that can't be locked (read-only, or a disk
    without locks) is left unlocked."""
    out, file = Path(job.out), None
    path = out / LOCK
    if leader:
        out.mkdir(parents=True, exist_ok=True)
        try:
            file = _open_lock(path, job)
        except OSError as error:
            if error.errno not in UNLOCKABLE:
                raise
    try:
        yield
    finally:
        if file:
            path.unlink(missing_ok=True)
            file.close()
        if leader:
            with suppress(OSError):  # a job that was refused before it wrote anything leaves no folder
                out.rmdir()


def _open_lock(path: Path, job):
    """The lock file, open and locked."""
    while True:
        file = open(path, "a+")  # noqa: SIM115 (open for as long as it is locked)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            with file:
                holder = file.read().strip() or "another process"
            raise InUse(
                f"job {job.name!r}: {holder} trains in {job.out} already; wait until it has ended, or give another "
                "`out`"
            ) from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                break
        file.close()  # its holder has just removed it
    with suppress(OSError):  # a full disk
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
    return file


def is_full(error: BaseException) -> bool:
    """Whether an error of a write, by Python or one of its Rust libraries, is about a full disk, quota or limit."""
    number = getattr(error, "errno", None)
    told = re.search(r"os error (\d+)", str(error))
    return number in FULL or bool(told and int(told[1]) in FULL)
