"""The offline teacher's Batch API: files, and batches that are answered line by line in the background.

Requests and responses follow OpenAI's reference (https://platform.openai.com/docs/api-reference/batch); files and
batches are kept in memory and are lost when the server ends.
"""

import asyncio
import hashlib
import json
import random
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable

from aiohttp import web

URL = "/v1/chat/completions"


def error_document(status: int, message: str) -> tuple[int, dict]:
    """An HTTP status and an error body with the reason."""
    return status, {"error": {"message": message, "type": "offline_teacher"}}


def error_response(status: int, message: str) -> web.Response:
    """An HTTP response with `error_document`."""
    return web.json_response(error_document(status, message)[1], status=status)


class Batches:
    """Files and batches by id. `answer` returns status and document for a request body, or raises TimeoutError; the
    share `expired` of a batch's requests is not answered in time."""

    def __init__(self, answer: Callable[[dict], Awaitable[tuple[int, dict]]], expired: float = 0.0):
        self.answer, self.expired, self.seen = answer, expired, Counter()
        self.files: dict[str, tuple[dict, bytes]] = {}
        self.batches: dict[str, dict] = {}
        self.working: set[asyncio.Task] = set()

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/v1/files", self.upload)
        app.router.add_get("/v1/files/{id}", self.file)
        app.router.add_get("/v1/files/{id}/content", self.content)
        app.router.add_post("/v1/batches", self.create)
        app.router.add_get("/v1/batches", self.list)
        app.router.add_get("/v1/batches/{id}", self.batch)
        app.router.add_post("/v1/batches/{id}/cancel", self.cancel)
        app.on_shutdown.append(self.stop)

    async def stop(self, app: web.Application) -> None:
        for task in self.working:
            task.cancel()

    # --- files -------------------------------------------------------------------------------------------------------

    async def upload(self, request: web.Request) -> web.Response:
        if request.content_type != "multipart/form-data":
            return error_response(400, "a file is uploaded as multipart/form-data with the fields purpose and file")
        purpose, name, content = "", "", None
        async for part in await request.multipart():
            if part.name == "purpose":
                purpose = await part.text()
            elif part.name == "file":
                name, content = part.filename or "file", bytes(await part.read())
        if content is None or purpose != "batch":
            return error_response(400, f"the purpose is {purpose!r}: give 'batch', and the field file")
        return web.json_response(self._keep(content, purpose, name))

    def _keep(self, content: bytes, purpose: str, name: str) -> dict:
        record = {
            "id": f"file-{uuid.uuid4().hex}",
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": name,
            "purpose": purpose,
            "status": "processed",
        }
        self.files[record["id"]] = record, content
        return record

    async def file(self, request: web.Request) -> web.Response:
        found = self.files.get(request.match_info["id"])
        return web.json_response(found[0]) if found else _unknown(request)

    async def content(self, request: web.Request) -> web.Response:
        found = self.files.get(request.match_info["id"])
        return web.Response(body=found[1]) if found else _unknown(request)

    # --- batches -----------------------------------------------------------------------------------------------------

    async def create(self, request: web.Request) -> web.Response:
        try:
            request_body = await request.json()
            file, endpoint, window = (request_body[name] for name in ("input_file_id", "endpoint", "completion_window"))
        except (ValueError, KeyError, TypeError) as error:
            return error_response(400, f"a batch needs input_file_id, endpoint and completion_window: {error!r}")
        if endpoint != URL or window != "24h":
            return error_response(400, f"a batch is for {URL} within 24h, not for {endpoint!r} within {window!r}")
        if file not in self.files:
            return error_response(400, f"there is no file {file!r}")
        now = int(time.time())
        batch = {
            "id": f"batch_{uuid.uuid4().hex}",
            "object": "batch",
            "endpoint": endpoint,
            "completion_window": window,
            "input_file_id": file,
            "status": "validating",
            "errors": None,
            "output_file_id": None,
            "error_file_id": None,
            "created_at": now,
            "expires_at": now + 86400,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "metadata": request_body.get("metadata"),
        }
        self.batches[batch["id"]] = batch
        task = asyncio.create_task(self._work(batch))
        self.working.add(task)
        task.add_done_callback(self.working.discard)
        return web.json_response(batch)

    async def batch(self, request: web.Request) -> web.Response:
        found = self.batches.get(request.match_info["id"])
        return web.json_response(found) if found else _unknown(request)

    async def list(self, request: web.Request) -> web.Response:
        """Up to `limit` batches, newest first, from the one after `after`."""
        newest, limit = [*reversed(self.batches)], int(request.query.get("limit", 20))
        after = request.query.get("after")
        start = newest.index(after) + 1 if after in newest else 0
        shown = [self.batches[id] for id in newest[start : start + limit]]
        ends = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {}
        return web.json_response({"object": "list", "data": shown, "has_more": start + limit < len(newest), **ends})

    async def cancel(self, request: web.Request) -> web.Response:
        found = self.batches.get(request.match_info["id"])
        if not found:
            return _unknown(request)
        if found["status"] not in ("validating", "in_progress", "cancelling"):
            return error_response(409, f"the batch is {found['status']} and cannot be cancelled")
        found["status"] = "cancelling"
        return web.json_response(found)

    async def _work(self, batch: dict) -> None:
        """Answer a batch line by line; after a cancellation the remaining lines are left out."""
        requests, errors = _read_requests(self.files[batch["input_file_id"]][1])
        if errors:
            batch |= {"status": "failed", "failed_at": int(time.time()), "errors": {"object": "list", "data": errors}}
            return
        counts, files, end = batch["request_counts"], {"output": [], "error": []}, "completed"
        counts["total"] = len(requests)
        if batch["status"] == "validating":
            batch |= {"status": "in_progress", "in_progress_at": int(time.time())}
        for custom_id, body in requests:
            await asyncio.sleep(0)
            if batch["status"] == "cancelling":
                end = "cancelled"
                break
            line, ok = await self._line(custom_id, body)
            if (line["error"] or {}).get("code") == "batch_expired":
                end = "expired"
            counts["completed" if ok else "failed"] += 1
            files["output" if ok else "error"].append(json.dumps(line, ensure_ascii=False) + "\n")
        for kind, lines in files.items():
            if lines:
                kept = self._keep("".join(lines).encode(), "batch_output", f"{batch['id']}_{kind}.jsonl")
                batch[f"{kind}_file_id"] = kept["id"]
        batch |= {"status": end, f"{end}_at": int(time.time())}

    async def _line(self, custom_id: str, body: dict) -> tuple[dict, bool]:
        """The result line of one request, and whether it belongs in the output file (else the error file)."""
        id, response, error = f"batch_req_{uuid.uuid4().hex}", None, None
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        self.seen[digest] += 1
        if random.Random(f"expired/{digest}/{self.seen[digest]}").random() < self.expired:
            error = {"code": "batch_expired", "message": "the batch's time was over before this request's turn"}
        else:
            try:
                status, document = await self.answer(body)
                response = {"status_code": status, "request_id": f"req_{uuid.uuid4().hex}", "body": document}
            except TimeoutError:
                error = {"code": "request_timeout", "message": "the model did not answer in time"}
        ok = response is not None and response["status_code"] == 200
        return {"id": id, "custom_id": custom_id, "response": response, "error": error}, ok


def _read_requests(content: bytes) -> tuple[list[tuple[str, dict]], list[dict]]:
    """The requests of an input file, and the errors of its lines."""
    requests, errors = {}, []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            entry = json.loads(line)
            custom_id, body = entry["custom_id"], entry["body"]
            if entry["method"] != "POST" or entry["url"] != URL or not isinstance(body, dict):
                raise ValueError(f"a line is a POST to {URL} with a body")
            if custom_id in requests:
                raise ValueError(f"the custom_id {custom_id!r} is on two lines")
            requests[custom_id] = body
        except (ValueError, KeyError, TypeError) as error:
            errors.append({"code": "invalid_line", "line": number, "message": str(error), "param": None})
    if not requests and not errors:
        errors.append({"code": "empty_file", "line": None, "message": "the file is empty", "param": None})
    return [*requests.items()], errors


def _unknown(request: web.Request) -> web.Response:
    return error_response(404, f"there is nothing called {request.match_info['id']!r}")
