"""Rows that are ready in any order, handed out as tables in the order asked, while memory holds no more than a few of them."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pandas as pd

from qatoolkit.asked import Job, Row, table_of
from qatoolkit.loop import background_loop, run


class InOrder:
    """Tables of `chunk` rows, in order; a job is taken only while fewer than `chunk` + 2 `in_flight` rows wait to be put."""

    def __init__(self, chunk: int, in_flight: int):
        self.tables: asyncio.Queue[pd.DataFrame] = asyncio.Queue(1)
        self._chunk = chunk
        self._ahead, self._putting = asyncio.Semaphore(chunk + 2 * in_flight), asyncio.Lock()
        self._rows: dict[int, Row] = {}
        self._first = self._ready = 0  # of the next table; of the first row that is missing

    async def next_of(self, jobs: Iterator[Job]) -> Job | None:
        """The next job when there is room for its row; None after the last."""
        await self._ahead.acquire()
        if (job := next(jobs, None)) is None:
            self._ahead.release()
        return job

    async def put(self, index: int, row: Row) -> None:
        """Keep a row; hands a table over when the next one is complete."""
        self._rows[index] = row
        while self._ready in self._rows:
            self._ready += 1
        if self._ready - self._first >= self._chunk:
            await self._hand_over(self._chunk)

    async def close(self) -> None:
        """Hand over what is left."""
        await self._hand_over(1)

    async def _hand_over(self, least: int) -> None:
        async with self._putting:
            while self._ready - self._first >= least:
                last = min(self._first + self._chunk, self._ready)
                part = [self._rows.pop(i) for i in range(self._first, last)]
                self._first = last
                await self.tables.put(table_of(part))
                for _ in part:
                    self._ahead.release()


def streamed(
    work: Callable, jobs: Iterator[Job], parse, chunk: int, in_flight: int
) -> Iterator[pd.DataFrame]:
    """The tables that the coroutine function `work(jobs, parse, rows)` fills on the library's loop, as they come."""
    rows = InOrder(chunk, in_flight)

    async def filled() -> None:
        await work(jobs, parse, rows)
        await rows.close()

    pump = asyncio.run_coroutine_threadsafe(filled(), background_loop())
    try:
        while (table := run(_next(rows.tables, pump))) is not None:
            yield table
        pump.result()
    finally:
        pump.cancel()


async def _next(tables: asyncio.Queue, pump: Future) -> pd.DataFrame | None:
    """The next table, None when the pump has ended and left none."""
    getting, ending = asyncio.ensure_future(tables.get()), asyncio.wrap_future(pump)
    await asyncio.wait([getting, ending], return_when=asyncio.FIRST_COMPLETED)
    if getting.done():
        return getting.result()
    getting.cancel()
    return None if tables.empty() else tables.get_nowait()
