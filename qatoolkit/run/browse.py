"""Browsing questions: one page with search, filters, history and marks, served by a notebook or saved as a file.

The page loads nothing from outside and sends only marks, to the session that serves it; saved as a file, it offers the
marks as a download. Notebooks keep its first questions as plain HTML, so that a reopened one is still readable."""

import base64
import gzip
import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd

from qatoolkit.core.display import escape, is_live, qa
from qatoolkit.core.files import atomic, locked
from qatoolkit.core.qa_table import require
from qatoolkit.core.text import is_missing
from qatoolkit.curate.marks import COLUMNS, check_mark, read_marks, write_marks
from qatoolkit.run.profiles import SEEDS
from qatoolkit.run.store import Run

PAGE = Path(__file__).with_name("browse.html")
FIRST = [
    "id", "set", "outcome", "flagged", "discipline", "difficulty", "grade", "language", "strategy", "decided", "question", "choices",
    "answer", "first_answer", "second_answer", "rationale", "knowledge_points", "parents", "reason", "detail",
]  # fmt: skip
LEFT_OUT = ("calls", "payload", "answer_index", "same_answers", "file", "row", "origin")
MOST = 1 << 24  # bytes of marks accepted in one request


def browse(what: Run | pd.DataFrame, *, marks: str | Path | None = None, serve: bool | None = None) -> "Browser":
    """Browse the questions of a run (seeds, every data set, and the rejects), or of a table.

    In an interactive notebook the page is served on this machine for as long as the kernel runs, and marks (good, bad,
    edit, note) are saved at once to the file `marks`, by default `marks.jsonl` in the run's folder, for a table in the
    working directory; name it in `curate.marks` for curation. `.save("page.html")` of the result writes the page as a
    file. `serve` overrides whether it is served. ValueError for a table without id, question and answer, or a damaged
    file of marks."""
    is_run = isinstance(what, Run)
    table = questions(what) if is_run else what
    require("browse", table, "id", "question", "answer")
    place = (Path(marks) if marks else (what.folder if is_run else Path.cwd()) / "marks.jsonl").resolve()
    browser = Browser(table, place, f"run {what.name}" if is_run else "table")
    if is_live() if serve is None else serve:
        if before := _served.pop(place, None):
            before.close()
        browser.serve()
        _served[place] = browser
    return browser


_served: dict[Path, "Browser"] = {}  # one page for each file of marks


def questions(run: Run) -> pd.DataFrame:
    """Every question of a run, kept or rejected, with `set`, `outcome` (kept, or the reason for rejection), `detail` of
    that reason, `flagged` (what curation noted about a kept one) and, for synthetic ones, the history columns;
    annotated seeds first. MissingUpstream before the seeds are annotated."""
    curated = run.read("curate") if run.manifest("curate") else None
    tables = [(SEEDS, run.read("annotate").seeds, run.read("annotate").rejects)]
    tables += [(n, run.read(n).questions, run.read(n).rejects) for n in run.profile.data if run.manifest(n)]
    parts = []
    for name, kept, rejects in tables:
        lost = getattr(curated, f"{name}_rejects") if curated and f"{name}_rejects" in curated else None
        reason, detail = (
            {} if lost is None else dict(zip(lost["id"], lost[c], strict=True)) for c in ("reason", "detail")
        )
        if name == SEEDS and "id" in rejects:  # without the exam questions that could not be labelled
            rejects = rejects[rejects["id"].isin(run.read("seeds").seeds["id"])]
        noted = {} if lost is None else getattr(curated, name).set_index("id")["flagged"]
        kept = kept.assign(set=name, outcome=[reason.get(id, "kept") for id in kept["id"]])
        kept["flagged"] = kept["id"].map(noted)
        parts.append(kept.assign(detail=kept["id"].map(detail)))
        if {"id", "question"} <= set(rejects):
            parts.append(rejects.dropna(subset=["id", "question"]).assign(set=name, outcome=rejects["reason"]))
    return pd.concat(parts, ignore_index=True).drop_duplicates(["set", "id"], ignore_index=True)


class Browser:
    """A page over a table of questions, shown as the value of a cell. Marks are saved in the file `place`."""

    def __init__(self, table: pd.DataFrame, place: Path, name: str):
        self.place, self._table, self._columns = place, table, _columns(table.assign(id=table["id"].astype(str)))
        self._title = f"{len(table):,} questions of {name}"
        self._server, self._token = None, secrets.token_urlsafe(16)

    @property
    def marks(self) -> pd.DataFrame:
        """The marks given so far: id, mark, note, and the question and answer of an edit."""
        return read_marks(self.place) if self.place.exists() else pd.DataFrame(columns=COLUMNS)

    def _repr_html_(self) -> str:
        shown = qa(self._table, n=3, hide=LEFT_OUT).html if len(self._table) else ""
        link = f'<a href="{self.url}" target="_blank" rel="noopener">Open the page</a> (while this kernel runs). '
        hint = (
            f"Marks are saved in {self.place}."
            if self._server
            else 'To browse and mark them, write a page with .save("page.html").'
        )
        return f"<p><b>{escape(self._title)}</b>. {link if self._server else ''}{escape(hint)}</p>{shown}"

    def __repr__(self) -> str:
        return f"{self._title}{f': {self.url}' if self._server else ''}"

    def page(self, served: bool = False) -> bytes:
        """The page; if `served`, it sends marks back instead of offering them as a download."""
        marks = self.marks.astype(object).where(self.marks.notna(), None).to_dict("records")
        content = {"title": self._title, "served": served, "marks": marks, "columns": self._columns}
        packed = base64.b64encode(gzip.compress(json.dumps(content, ensure_ascii=False).encode(), 6))
        return PAGE.read_bytes().replace(b"@DATA@", packed)

    def save(self, path: str | Path) -> Path:
        """Write the page as one file that works offline; OSError if it can't be written."""
        with atomic(Path(path)) as temporary:
            temporary.write_bytes(self.page())
        return Path(path)

    def serve(self) -> str:
        """Serve the page on this machine until the session ends, to anyone who has its address, and return the address.
        OSError if no port is free."""
        if self._server is None:
            self._server = _Server(("127.0.0.1", 0), _Handler)
            self._server.browser = self
            threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self.url

    @property
    def url(self) -> str | None:
        """The address of the page, None if it is not served."""
        return f"http://127.0.0.1:{self._server.server_port}/{self._token}/" if self._server else None

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def take(self, lines: list[str]) -> int:
        """Add marks (lines of JSON) to the file, replacing earlier ones of the same questions, and return how many it
        has then. ValueError for a line that is not a mark, OSError if the file can't be written."""
        new = pd.DataFrame([check_mark(line, "browse") for line in lines], columns=COLUMNS)
        with locked(self.place.with_name(f".{self.place.name}.lock")):
            old = self.marks
            both = pd.concat([old.astype(object), new.astype(object)]).drop_duplicates(
                "id", keep="last", ignore_index=True
            )
            both = both[both[["mark", "note"]].notna().any(axis=1)]
            write_marks(both, self.place)
        return len(both)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    browser: Browser


class _Handler(BaseHTTPRequestHandler):
    """Answers only requests that have the token and were sent to this host and port."""

    def _allowed(self, path: str) -> bool:
        browser, port = self.server.browser, self.server.server_port
        host = self.headers.get("Host") in (f"127.0.0.1:{port}", f"localhost:{port}")
        return host and secrets.compare_digest(self.path.encode(), f"/{browser._token}/{path}".encode())

    def do_GET(self):
        if not self._allowed(""):
            self._answer(404)
            return
        try:
            self._answer(200, self.server.browser.page(served=True), "text/html")
        except ValueError as error:  # a damaged file of marks
            self._answer(500, str(error).encode())

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not self._allowed("marks") or not length.isdecimal() or int(length) > MOST:
            self._answer(404)
            return
        try:
            lines = [line for line in self.rfile.read(int(length)).decode().split("\n") if line.strip()]
            self._answer(200, str(self.server.browser.take(lines)).encode())
        except (ValueError, OSError) as error:
            self._answer(400, str(error).encode())

    def _answer(self, code: int, body: bytes = b"", kind: str = "text/plain"):
        self.send_response(code)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def _columns(table: pd.DataFrame) -> dict[str, list]:
    """The columns of a table as JSON values, the known columns first, empty ones left out."""
    names = [c for c in FIRST if c in table] + [c for c in table if c not in (*FIRST, *LEFT_OUT)]
    found = {str(name): [_value(value) for value in table[name]] for name in names}
    return {name: values for name, values in found.items() if any(value is not None for value in values)}


def _value(value):
    """A cell as a string, a number, a Boolean, a list of them, or None."""
    if isinstance(value, list | tuple | np.ndarray):
        return [_value(one) for one in value]
    if is_missing(value):
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and np.isfinite(value):
        return round(value, 6)
    return value if isinstance(value, str | bool | int) else str(value)
