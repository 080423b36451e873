"""The library's own event loop, on a thread of its own.

Jupyter and papermill already run a loop in the main thread, and patching that one to nest breaks. A second thread works
the same everywhere and leaves Ctrl-C to the caller.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

TICK = 0.2  # seconds between two updates of the progress display


def run(work: Coroutine, *, tick: Callable[[], None] | None = None) -> Any:
    """Run a coroutine on the library's event-loop thread and return its result, in any environment.

    `tick` is called in the caller's thread every `TICK` seconds meanwhile. Ctrl-C cancels the work, waits for its
    clean-up, and is raised. RuntimeError if called from that thread itself.
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

    future = asyncio.run_coroutine_threadsafe(watched(), loop)
    try:
        while True:
            try:
                return future.result(TICK if tick else None)
            except TimeoutError:
                if future.done():
                    raise
                tick()
    except BaseException:
        if future.cancel():
            ended.wait(10)
        raise
    finally:
        if tick and future.done() and not future.cancelled() and not future.exception():
            tick()


_thread: threading.Thread | None = None
_thread_loop: asyncio.AbstractEventLoop | None = None
_starting = threading.Lock()


def _background_loop() -> asyncio.AbstractEventLoop:
    """The library's event loop, on a daemon thread started at the first call (again in a forked child)."""
    global _thread, _thread_loop
    with _starting:
        if _thread is None or not _thread.is_alive():
            _thread_loop = asyncio.new_event_loop()
            _thread = threading.Thread(target=_thread_loop.run_forever, name="qatoolkit-teacher", daemon=True)
            _thread.start()
        return _thread_loop


async def gather_all(work: Iterable[Coroutine]) -> None:
    """Run coroutines to their end; the first error, or a cancellation, cancels the others and waits for them."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        if tasks:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
