"""One self-contained HTML page of a run: the findings, every figure, the main tables, the cost, the stages, and when
and from what it was written."""

import base64
import html
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from string import Template

import pandas as pd

from qatoolkit.core import display
from qatoolkit.core.files import read_json, write_text
from qatoolkit.run.check import is_whole, record_files, recorded
from qatoolkit.run.findings import findings, finished
from qatoolkit.run.provenance import provenance
from qatoolkit.run.store import Run
from qatoolkit.run.tables.evaluation import accuracy_by_arm, arms
from qatoolkit.run.tables.synthesis import spend

CONTROLS = ["kind", "language", "n", "recall", "recall_low", "recall_high", "lost", "precision"]
RESULTS = ("evaluate", "scaling", "ablations")  # stages whose findings come first
PAGE = Path(__file__).with_name("report.html")


def write_report(run: Run) -> Path:
    """Write `report.html` into the run folder and return its path; missing or damaged figures are drawn again.

    Raises MissingUpstream, naming the notebook to run, if the run has no summary yet."""
    summary, folder = run.read("summary").summary, run.folder / "figures"
    drawn = [run.folder / name for name in recorded(run.folder) if name.startswith("figures/")]
    if not (folder / "captions.json").exists() or not all(is_whole(run.folder, path) for path in drawn):
        from qatoolkit.run import figures

        figures.save_figures(run)
    sections = list(_sections(run, summary, folder))
    contents = "".join(f'<li><a href="#{_anchor(head)}">{html.escape(head)}</a></li>' for head, _ in sections)
    body = "".join(
        f'<section><h2 id="{_anchor(head)}">{html.escape(head)}</h2>{part}</section>' for head, part in sections
    )
    scrolls = '<div tabindex="0" style="overflow-x:auto">'  # by keyboard too
    body = body.replace(display.SCROLLS, scrolls)
    name = html.escape(run.name)
    page = Template(PAGE.read_text(encoding="utf-8")).substitute(name=name, contents=contents, body=body)
    write_text(page, place := run.folder / "report.html")
    record_files(run.folder, [place])
    return place


def _sections(run: Run, summary: dict, folder: Path) -> Iterator[tuple[str, str]]:
    """Heading and HTML of every part of the page."""
    yield "Run and report", display.facts(about(run, summary)).html
    done = finished(run)
    for head, stages in (
        ("What was found", [stage for stage in done if stage in RESULTS]),
        ("Along the way", [stage for stage in done if stage not in RESULTS]),
    ):
        if stages:
            yield head, f'<div class="findings">{findings(run, *stages).html}</div>'
    if run.manifest("evaluate"):
        yield "Accuracy", display.table(arms(run)).html + display.table(accuracy_by_arm(run)).html
    yield "Differences", _note("Paired over the same questions; intervals are 95%.") + _table(summary["comparisons"])
    yield ("Compared with blind readers", _table(summary.get("over_blind")) + _table(summary.get("gains_by_blind")))
    if run.manifest("curate") and "controls" in (curated := run.read("curate")):
        note = (
            "Disguised exam questions planted in the main data set: how many decontamination found, and how many clean "
        )
        yield ("Decontamination", _note(note + "rows it removed.") + display.table(curated.controls[CONTROLS]).html)
    yield "Refinement", display.facts(summary["refinement"]).html
    captions = read_json(folder / "captions.json")
    yield "Figures", "".join(_figure(folder / f"{name}.png", caption) for name, caption in captions.items())
    costs = spend(run)
    yield "Cost", _note("By model and stage, over all sessions, in US dollars.") + display.table(costs).html
    stages = [(name, run.manifest(name)) for name in run.done()]
    rows = [(name, m["seconds"], m["version"], m["key"][:12]) for name, m in stages]
    yield "Stages", display.table(pd.DataFrame(rows, columns=["stage", "seconds", "contract", "key"])).html


def about(run: Run, summary: dict) -> dict:
    """Profile, cost and time of a run; when, where, from which commits and with which versions its stages were made."""
    costs, done = spend(run), [run.manifest(name) for name in run.done()]
    unpriced = int(costs["unpriced"].sum())
    return {
        "profile": f"{summary['profile']}, seed {summary['seed']}",
        "spend": f"${costs['cost'].sum():.2f}"
        + (f", and {unpriced:,} attempts at an unknown price" if unpriced else ""),
        "wall clock of the stages": f"{sum(m['seconds'] for m in done) / 60:,.1f} min",
        **_where_made(done),
        "report written": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, from {provenance()['commit']}",
    }


def _where_made(manifests: list[dict]) -> dict:
    """When, on which machine, from which commits and with which versions the stages were made, if they record it."""
    made = [m["made"] for m in manifests if "made" in m]
    if not made:
        return {}
    days = sorted(m["finished"] for m in made)
    return {"stages made": days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"} | {
        name: "; ".join(dict.fromkeys(m[name] for m in made)) for name in ("commit", "machine", "versions")
    }


def _table(records) -> str:
    return display.table(pd.DataFrame(records or [])).html


def _note(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _anchor(head: str) -> str:
    return head.lower().replace(" ", "-")


def _figure(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'
