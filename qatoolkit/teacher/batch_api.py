"""The wire of batch mode: files and batches as OpenAI's Batch API has them (https://platform.openai.com/docs/guides/batch)."""

import asyncio
import io
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, BinaryIO

import aiohttp

from qatoolkit.teacher.limits import TeacherError, backoff, retry_after
from qatoolkit.teacher.transport import HOPELESS, Endpoint, Got, read_got

ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_DAY = 86400.0


class Refused(TeacherError):
    """The server said no: `status` is its HTTP status."""

    def __init__(self, status: int, told: str):
        super().__init__(told)
        self.status = status


def input_files(
    requests: Iterable[tuple[str, dict]], most_requests: int, most_bytes: int
) -> Iterator[tuple[list[str], bytes]]:
    """Requests (key, body) in as few input files as the limits allow: the keys in each, and its content."""
    keys, lines, size = [], [], 0
    for key, body in requests:
        asked = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}
        line = json.dumps(asked).encode() + b"\n"
        if keys and (len(keys) == most_requests or size + len(line) > most_bytes):
            yield keys, b"".join(lines)
            keys, lines, size = [], [], 0
        keys.append(key)
        lines.append(line)
        size += len(line)
    if keys:
        yield keys, b"".join(lines)


def output_lines(lines: Iterable[bytes], endpoint: Endpoint) -> dict[str, Got]:
    """What lines of an output or error file say, by key; a line that cannot be read says nothing. Where no response came,
    `failure` is the server's code if that begins with batch_ (batch_expired), else timeout or error."""
    fared: dict[str, Got] = {}
    for line in lines:
        try:
            said = json.loads(endpoint.redact(line.decode("utf-8", "replace")))
            key, response, error = said["custom_id"], said.get("response"), said.get("error") or {}
            if response:
                got = Got(int(response["status_code"]), {}, json.dumps(response["body"]))
            else:
                code = str(error.get("code") or "")
                known = code if code.startswith("batch_") else "timeout" if "timeout" in code else "error"
                got = Got(None, {}, str(error.get("message") or code or "no response"), known)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            continue
        fared.setdefault(key, got)
    return fared


class Wire:
    """Calls of the Batch API over one session; what fails in passing is tried `attempts` times, and polls for at least
    `patience` seconds. TeacherError when that is in vain, Refused (one of them) when the server says no."""

    def __init__(
        self, session: aiohttp.ClientSession, endpoint: Endpoint, *, attempts: int, backoff: float, patience: float
    ):
        self._session, self._endpoint = session, endpoint
        self._attempts, self._backoff, self._patience = attempts, backoff, patience

    async def upload(self, lines: bytes) -> str:
        """The id of a new input file; JSON lines of {custom_id, method, url, body}."""

        def form() -> dict[str, Any]:  # a form can be sent only once
            form = aiohttp.FormData()
            form.add_field("purpose", "batch")
            form.add_field("file", io.BytesIO(lines), filename="requests.jsonl", content_type="application/jsonl")
            return {"data": form}

        return (await self._call("POST", "/files", form))["id"]

    async def create(self, file: str, since: float) -> str:
        """The id of the batch of an input file. If it is not clear whether the server made one, it is looked for before it
        is asked for again, among those created `since` (epoch seconds)."""
        body = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        again = lambda: self._find(file, since)  # noqa: E731
        return (await self._call("POST", "/batches", lambda: {"json": body}, before_again=again))["id"]

    async def find(self, file: str, since: float) -> str | None:
        """The id of the batch that was made of an input file `since` (epoch seconds), None when there is none."""
        batch = await self._find(file, since)
        return batch and batch["id"]

    async def _find(self, file: str, since: float) -> dict | None:
        after: dict[str, str] = {}
        while True:  # newest first
            query = {"limit": "100", **after}
            page = await self._call("GET", "/batches", lambda query=query: {"params": query})
            for batch in page["data"]:
                if batch.get("input_file_id") == file:
                    return batch
            if not page.get("has_more") or not page["data"]:
                return None
            # clocks may differ, not by that much
            if page["data"][-1].get("created_at", since) < since - _DAY:
                return None
            after = {"after": page["data"][-1]["id"]}

    async def batch(self, id: str) -> dict[str, Any]:
        """A batch as it stands; an outage is sat out for a while."""
        return await self._call("GET", f"/batches/{id}", patience=self._patience)

    async def download(self, file: str, into: BinaryIO) -> None:
        """Write the content of a file to `into`, from its beginning."""
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
        before_again: Callable[[], Awaitable[dict | None]] | None = None,
    ) -> dict[str, Any]:
        started = time.monotonic()
        for failed in itertools.count(1):
            got = await self._once(method, path, content(), into)
            if got.status and 200 <= got.status < 300:
                if into:
                    return {}
                try:
                    return json.loads(got.text)
                except ValueError:
                    got = got._replace(failure="connection", text=f"no JSON but {got.text[:200]!r}")
            said = f"{method} {path} at {self._endpoint.name} gave {read_got(got)[0].error}"
            if not got.transient or got.status == 501:
                if got.status in (401, 402):
                    said += "; " + HOPELESS[got.status].format(key_env=self._endpoint.key_env)
                elif method == "POST" and got.status in (404, 405, 501):
                    said += ": it offers no batches there; ask without them (Teacher, or teacher.batch: false), or check base_url"
                raise Refused(got.status, said)
            if failed >= self._attempts and time.monotonic() - started >= patience:
                raise TeacherError(
                    f"{said}, {failed} times in a row; run again later: what was submitted is picked up, not sent again"
                )
            asked = min(retry_after(got.headers), 60.0)
            await asyncio.sleep(max(asked, backoff(path, min(failed, 20), self._backoff)))
            if before_again and (found := await before_again()):
                return found

    async def _once(self, method: str, path: str, content: dict[str, Any], into: BinaryIO | None) -> Got:
        url, redact = self._endpoint.base_url + path, self._endpoint.redact
        try:
            # A redirect could carry the key to another host, so it is an answer like any other.
            async with self._session.request(
                method, url, headers=self._endpoint.headers(), allow_redirects=False, **content
            ) as response:
                if into and response.status == 200:
                    into.seek(0)
                    into.truncate()
                    async for chunk in response.content.iter_chunked(2**20):
                        into.write(chunk)
                    return Got(200, response.headers, "")
                text = redact((await response.read()).decode("utf-8", "replace"))
                return Got(response.status, response.headers, text)
        except TimeoutError:
            return Got(None, {}, "no answer in time", "timeout")
        except (aiohttp.ClientError, OSError) as error:
            return Got(None, {}, redact(f"{type(error).__name__}: {error}"), "connection")
