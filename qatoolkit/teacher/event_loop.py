"""The library's own event loop, on its own thread.

Jupyter and papermill already run a loop in the main thread, and patching it to allow nesting is fragile. A second
thread works the same everywhere and leaves Ctrl-C to the caller.
"""

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

TICK = 0.2  # seconds between updates of the progress display
TERMINATED = 143  # exit code after SIGTERM
GRACE = 25.0  # seconds from SIGTERM until requests in flight are abandoned: schedulers kill after 30


def run(work: Coroutine, *, tick: Callable[[], None] | None = None, stop: Callable[[], str] | None = None) -> Any:
    """Run a coroutine on the library's event-loop thread and return its result, in any environment.

    `tick` is called in the caller's thread every `TICK` seconds. On Ctrl-C or SIGTERM, `stop` is called on the event
    loop so that the work can finish (after SIGTERM within `GRACE` seconds); the message it returns is printed, and a
    second Ctrl-C cancels the work. Without `stop`, the work is cancelled at once. Then KeyboardInterrupt or SystemExit
    is raised. RuntimeError if called from the event-loop thread itself.
    """
    loop = _background_loop()
    if threading.current_thread() is _thread:
        work.close()
        raise RuntimeError("a teacher cannot ask from within a parse function: ask after it has returned")
    ended = threading.Event()

    async def watched() -> Any:
        try:
            return await work
        finally:
            ended.set()

    with _terminable():
        future = asyncio.run_coroutine_threadsafe(watched(), loop)
        try:
            while True:
                try:
                    return future.result(TICK if tick else None)
                except TimeoutError:
                    if future.done():
                        raise
                    tick()
        except BaseException as error:
            try:
                if stop and isinstance(error, KeyboardInterrupt | SystemExit) and not future.done():
                    _drain(loop, stop, ended, GRACE if isinstance(error, SystemExit) else None)
            finally:  # even if another Ctrl-C arrives anywhere above
                if future.cancel():
                    ended.wait(10)
            raise
        finally:
            if tick and future.done() and not future.cancelled() and not future.exception():
                tick()


def _drain(loop, stop: Callable[[], str], ended: threading.Event, grace: float | None) -> None:
    """Call `stop` and wait until the work has ended, `grace` seconds have passed, or the next Ctrl-C."""

    async def call_stop() -> str:
        return stop()

    deadline = time.monotonic() + (grace or float("inf"))
    try:
        print(asyncio.run_coroutine_threadsafe(call_stop(), loop).result(10), file=sys.stderr, flush=True)
        while not ended.wait(TICK) and time.monotonic() < deadline:
            pass
    except KeyboardInterrupt:
        pass


@contextmanager
def _terminable() -> Iterator[None]:
    """Makes SIGTERM raise SystemExit, unless it already has a handler."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def end(*_) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # ignore further signals: the rest takes bounded time
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


_thread: threading.Thread | None = None
_thread_loop: asyncio.AbstractEventLoop | None = None
_starting = threading.Lock()


def _background_loop() -> asyncio.AbstractEventLoop:
    """The library's event loop, on a daemon thread that starts with the first call (again in a forked child)."""
    global _thread, _thread_loop
    with _starting:
        if _thread is None or not _thread.is_alive():
            _thread_loop = asyncio.new_event_loop()
            _thread = threading.Thread(target=_thread_loop.run_forever, name="qatoolkit-teacher", daemon=True)
            _thread.start()
        return _thread_loop


async def gather_all(
    work: Iterable[Coroutine], end: Callable[[set[asyncio.Task]], Coroutine] | None = None, tasks: set | None = None
) -> None:
    """Run coroutines to their end as tasks, which are added to `tasks` if given. After the first error the others are
    stopped by `end(tasks)`, if given, and then cancelled. A cancellation cancels all."""
    tasks = set() if tasks is None else tasks
    tasks.update(asyncio.create_task(one) for one in work)
    try:
        if tasks:
            done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            if end and pending:
                await end(pending)
            for task in done:
                if not task.cancelled():
                    task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
