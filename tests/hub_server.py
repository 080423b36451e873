"""A stand-in for the Hugging Face hub on 127.0.0.1: what its client needs to upload a data set, kept in memory."""

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_standin0123456789"


class Hub(ThreadingHTTPServer):
    """`repositories`: by name whether private, `files` by path as the last commit left them; `asked`: every path asked for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories, self.files, self.objects, self.asked = {}, {}, {}, []
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def hub():
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, code: int, value=None):
        body = json.dumps(value if value is not None else {}).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _serve(self):
        hub, path, body = self.server, self.path.split("?")[0], self._body()
        hub.asked.append(path)
        if path.startswith("/objects/"):  # an upload address needs no token
            hub.objects[path.rsplit("/", 1)[1]] = body
            self._answer(200)
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            hub.repositories.setdefault(name, asked)
            self._answer(200, {"url": f"{hub.url}/datasets/{name}", "name": name})
        elif path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular" if f["path"].endswith((".md", ".json")) else "lfs", "shouldIgnore": False} for f in files]  # fmt: skip
            self._answer(200, {"files": modes})
        elif path.endswith("/info/lfs/objects/batch"):
            found = [{"oid": o["oid"], "size": o["size"], "actions": {"upload": {"href": f"{hub.url}/objects/{o['oid']}"}}} for o in json.loads(body)["objects"]]  # fmt: skip
            self._answer(200, {"transfer": "basic", "objects": found})
        elif "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    hub.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.files[value["path"]] = hub.objects[value["oid"]]
                elif line["key"] == "deletedFile":
                    del hub.files[value["path"]]
            self._answer(
                200,
                {
                    "commitUrl": f"{hub.url}/datasets/{path.split('/')[3]}/{path.split('/')[4]}/commit/{'1' * 40}",
                    "commitOid": "1" * 40,
                    "hookOutput": "",
                },
            )
        elif "/tree/" in path:
            self._answer(
                200, [{"type": "file", "path": p, "size": len(c), "oid": "0" * 40} for p, c in hub.files.items()]
            )
        elif "/revision/" in path or path.startswith("/api/datasets/"):
            name = path.removeprefix("/api/datasets/").split("/revision")[0]
            self._answer(200, {"id": name, "sha": "0" * 40, "siblings": [{"rfilename": p} for p in hub.files]})
        else:
            self._answer(404, {"error": f"no {path}"})

    do_GET = do_POST = do_PUT = do_HEAD = _serve

    def log_message(self, *_):
        pass
