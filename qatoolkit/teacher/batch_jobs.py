"""Batch jobs: files and batches of OpenAI's Batch API (https://platform.openai.com/docs/guides/batch), and the open
requests in them.

Open requests have their own table in the ledger file. A row is one request in one input file. It is written before the
file's batch is created, and deleted in the commit that records the result. So a client that was killed at any moment
finds its open requests again, and no answer is recorded twice.
"""

import asyncio
import io
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

import aiohttp

from qatoolkit.teacher.calls import Request
from qatoolkit.teacher.completions import Reply, Response, read_response
from qatoolkit.teacher.ledger import ATTEMPT_COLUMNS, PUT_RESPONSE, Attempt, Ledger, response_row
from qatoolkit.teacher.ledger_file import checksum
from qatoolkit.teacher.limits import TeacherError
from qatoolkit.teacher.transport import REMEDIES, Endpoint, send_request
from qatoolkit.teacher.waits import backoff, retry_after

ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_DAY = 86400.0  # seconds by which clocks may differ

_TABLE = """CREATE TABLE IF NOT EXISTS batches (
    endpoint TEXT NOT NULL, file TEXT NOT NULL, key TEXT NOT NULL, batch TEXT, model TEXT NOT NULL, run TEXT NOT NULL,
    stage TEXT NOT NULL, submitted REAL NOT NULL, most REAL, request TEXT NOT NULL, PRIMARY KEY (endpoint, file, key)
)"""
_INDEX = "CREATE INDEX IF NOT EXISTS batches_by_key ON batches (key)"
_ADD = f"INSERT INTO batches VALUES ({', '.join('?' * 10)})"
_PUT_ATTEMPT = f"""INSERT INTO attempts ({ATTEMPT_COLUMNS}) SELECT {", ".join("?" * (len(Attempt._fields) + 1))}
    WHERE EXISTS (SELECT 1 FROM batches WHERE endpoint = ? AND file = ? AND key = ?)"""


class Result(NamedTuple):
    """The result of one request, with its cost in USD (None: unknown); `attempts` is 0 if another process recorded
    it."""

    response: Response
    reply: Reply
    cost: float | None
    attempts: int = 1


class OpenRequests:
    """The open requests of one endpoint (by its name) in a ledger; input files are identified by the server's ids."""

    def __init__(self, ledger: Ledger, endpoint: str):
        self._ledger, self._endpoint = ledger, endpoint
        ledger.write((_TABLE, [()]), (_INDEX, [()]))

    def add(self, file: str, labels: tuple[str, str, str], requests: Iterable[tuple[Request, float | None]]) -> None:
        """Record an uploaded file before its batch is created: the model, run and stage, and each request with the most
        it can cost in USD (None: unknown)."""
        shared = (None, *labels, time.time())
        rows = [(self._endpoint, file, one.key, *shared, most, one.text) for one, most in requests]
        self._ledger.write((_ADD, rows), ("DELETE FROM leases WHERE key = ?", [(row[2],) for row in rows]))

    def set_batch(self, file: str, batch: str) -> None:
        """Record the batch that the server created from a file."""
        update = "UPDATE batches SET batch = ? WHERE endpoint = ? AND file = ?"
        self._ledger.write((update, [(batch, self._endpoint, file)]))

    def batch_of(self, file: str) -> tuple[str | None, float] | None:
        """(batch id or None, epoch seconds of submission) of a file; None if none of its requests are open."""
        return next(iter(self._select("batch, submitted", "file = ? LIMIT 1", file)), None)

    def files_of(self, keys: Iterable[str]) -> dict[str, str]:
        """Key -> file, for each of `keys` that is open."""
        return dict(self._select("key, file", "key IN (SELECT value FROM json_each(?))", json.dumps(list(keys))))

    def keys_in(self, file: str) -> list[str]:
        """The keys of a file's open requests."""
        return [key for (key,) in self._select("key", "file = ?", file)]

    def settle(
        self, file: str, responses: dict[str, Response], cost: Callable[[Reply], float | None]
    ) -> dict[str, Result]:
        """Record the responses to requests of a file in one commit, and close these requests. Responses that another
        process has already recorded are skipped. Returns the result of each request."""
        in_file = "file = ? AND key IN (SELECT value FROM json_each(?))"
        rows = self._select("key, model, run, stage, submitted, request", in_file, file, json.dumps(list(responses)))
        open_rows, now = {key: row for key, *row in rows}, time.time()
        results, answers, attempts, settled = {}, [], [], []
        for key, response in responses.items():
            reply, answer = read_response(response)
            if key not in open_rows:
                results[key] = Result(response, reply, 0.0, 0)
                continue
            *labels, submitted, request = open_rows[key]
            results[key] = result = Result(response, reply, cost(reply))
            outcome = response.status, reply.outcome, *reply.tokens, result.cost
            identity = (self._endpoint, file, key)
            attempt = Attempt(key, *labels, submitted, now - submitted, *outcome)
            attempts.append((*attempt, checksum(*attempt), *identity))
            settled.append(identity)
            if answer:
                answers.append(response_row(key, request, answer))
        close = "DELETE FROM batches WHERE endpoint = ? AND file = ? AND key = ?"
        self._ledger.write((PUT_RESPONSE, answers), (_PUT_ATTEMPT, attempts), (close, settled))
        return results

    def forget(self, name: str) -> None:
        """Delete the requests of a file or batch, as if they had never been submitted."""
        drop = "DELETE FROM batches WHERE endpoint = ? AND (file = ? OR batch = ?)"
        self._ledger.write((drop, [(self._endpoint, name, name)]))

    def most(self, labels: tuple[str, str, str]) -> float:
        """The most that all open requests of a model, run and stage can cost, in USD; unknown costs count as 0."""
        sql = "SELECT total(most) FROM batches WHERE model = ? AND run = ? AND stage = ?"
        return self._ledger.read(sql, labels)[0][0]

    def _select(self, columns: str, where: str, *values: str) -> list[tuple]:
        sql = f"SELECT {columns} FROM batches WHERE endpoint = ? AND {where}"
        return self._ledger.read(sql, (self._endpoint, *values))


def make_files(requests: Iterable[Request], most_requests: int, most_bytes: int) -> Iterator[tuple[list[str], bytes]]:
    """Yields (keys, content) of as few input files as the limits allow."""
    keys, lines, size = [], [], 0
    for request in requests:
        line = {"custom_id": request.key, "method": "POST", "url": "/v1/chat/completions", "body": request.body}
        line = json.dumps(line).encode() + b"\n"
        if keys and (len(keys) == most_requests or size + len(line) > most_bytes):
            yield keys, b"".join(lines)
            keys, lines, size = [], [], 0
        keys.append(request.key)
        lines.append(line)
        size += len(line)
    if keys:
        yield keys, b"".join(lines)


def read_lines(lines: Iterable[bytes], endpoint: Endpoint) -> dict[str, Response]:
    """Key -> response, from lines of an output or error file; unreadable lines are skipped. Without a response,
    `failure` is the server's code if it begins with batch_ (batch_expired), else timeout or error."""
    responses: dict[str, Response] = {}
    for line in lines:
        try:
            content = json.loads(endpoint.redact(line.decode("utf-8", "replace")))
            key, found, error = content["custom_id"], content.get("response"), content.get("error") or {}
            if found:
                response = Response(int(found["status_code"]), {}, json.dumps(found["body"]))
            else:
                code = str(error.get("code") or "")
                failure = code if code.startswith("batch_") else "timeout" if "timeout" in code else "error"
                response = Response(None, {}, str(error.get("message") or code or "no response"), failure)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            continue
        responses.setdefault(key, response)
    return responses


class BatchRefused(TeacherError):
    """The server rejected a call; `status` is the HTTP status."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class BatchAPI:
    """Calls of the Batch API over one session. A call that fails for a transient reason is tried `attempts` times,
    reads for at least `patience` seconds. Then it raises TeacherError; if the server rejects the call, the subclass
    Refused."""

    def __init__(
        self, session: aiohttp.ClientSession, endpoint: Endpoint, *, attempts: int, backoff: float, patience: float
    ):
        self._session, self._endpoint = session, endpoint
        self._attempts, self._backoff, self._patience = attempts, backoff, patience

    async def upload(self, lines: bytes) -> str:
        """Upload an input file, JSON lines of {custom_id, method, url, body}; returns its id."""

        def make_form() -> dict[str, Any]:  # a form can only be sent once
            form = aiohttp.FormData({"purpose": "batch"})
            form.add_field("file", io.BytesIO(lines), filename="requests.jsonl", content_type="application/jsonl")
            return {"data": form}

        return (await self._call("POST", "/files", make_form))["id"]

    async def create(self, file: str, since: float) -> str:
        """Create the batch of an input file; returns its id. If it is unclear after a failure whether the server
        created one, batches created `since` (epoch seconds) are searched for it before the call is repeated."""
        body = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        return (await self._call("POST", "/batches", lambda: {"json": body}, search=lambda: self.find(file, since)))[
            "id"
        ]

    async def find(self, file: str, since: float) -> dict[str, Any] | None:
        """The batch created from an input file `since` (epoch seconds), None if there is none."""
        after: dict[str, str] = {}
        while True:  # newest first
            query = {"limit": "100", **after}
            page = await self._call("GET", "/batches", lambda query=query: {"params": query})
            for batch in page["data"]:
                if batch.get("input_file_id") == file:
                    return batch
            if not page.get("has_more") or not page["data"]:
                return None
            if page["data"][-1].get("created_at", since) < since - _DAY:
                return None
            after = {"after": page["data"][-1]["id"]}

    async def read_batch(self, id: str) -> dict[str, Any]:
        """The current state of a batch."""
        return await self._call("GET", f"/batches/{id}", patience=self._patience)

    async def download(self, file: str, into: BinaryIO) -> None:
        """Write the content of a file to `into`, and rewind it."""
        await self._call("GET", f"/files/{file}/content", into=into, patience=self._patience)
        into.seek(0)

    async def _call(
        self,
        method: str,
        path: str,
        content: Callable[[], dict[str, Any]] = dict,
        *,
        into: BinaryIO | None = None,
        patience: float = 0.0,
        search: Callable[[], Awaitable[dict | None]] | None = None,
    ) -> dict[str, Any]:
        started = time.monotonic()
        for failures in itertools.count(1):
            response = await send_request(self._session, self._endpoint, method, path, into=into, **content())
            if response.status and 200 <= response.status < 300:
                if into:
                    return {}
                try:
                    return json.loads(response.text)
                except ValueError:
                    response = response._replace(failure="connection", text=f"no JSON but {response.text[:200]!r}")
            error = f"{method} {path} at {self._endpoint.name} gave {read_response(response)[0].error}"
            if not response.transient or response.status == 501:
                if response.status in (401, 402):
                    error += "; " + REMEDIES[response.status].format(key_env=self._endpoint.key_env)
                elif method == "POST" and response.status in (404, 405, 501):
                    error += ": it has no Batch API; use Teacher (teacher.batch: false) or check base_url"
                raise BatchRefused(response.status, error)
            if failures >= self._attempts and time.monotonic() - started >= patience:
                raise TeacherError(
                    f"{error}, {failures} times in a row; run again later: submitted requests are picked up again"
                )
            requested = min(retry_after(response.headers), 60.0)
            await asyncio.sleep(max(requested, backoff(path, min(failures, 20), self._backoff)))
            if search and (found := await search()):
                return found
