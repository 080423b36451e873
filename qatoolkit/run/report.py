"""One self-contained HTML page of a run: what was asked, what came out, every figure and the main tables."""

import base64
import html
from pathlib import Path

import pandas as pd

from qatoolkit.core import display
from qatoolkit.core.files import atomic, read_json
from qatoolkit.run.check import is_whole, record_files, recorded
from qatoolkit.run.store import MissingUpstream, Run
from qatoolkit.run.tables.evaluation import accuracy_by_arm

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "img{max-width:100%}figure{margin:2rem 0}figcaption{color:#555}h2{margin-top:2.5rem}"
)


def write(run: Run) -> Path:
    """Write `report.html` into the run folder and return its path; figures that are gone or damaged are drawn
    again.

    Raises MissingUpstream, naming the notebook to run, when the run has no summary yet."""
    if run.manifest("summary") is None:
        raise MissingUpstream(
            f"run {run.name!r} has no summary yet: run notebooks/11_figures.ipynb, or `{run.command}`"
        )
    summary, folder = run.read("summary").summary, run.folder / "figures"
    drawn = [run.folder / name for name in recorded(run.folder) if name.startswith("figures/")]
    if not (folder / "captions.json").exists() or not all(is_whole(run.folder, path) for path in drawn):
        from qatoolkit.run import figures

        figures.save_figures(run)
    captions = read_json(folder / "captions.json")
    seconds = {name: run.manifest(name)["seconds"] for name in run.done()}
    parts = [
        f"<h1>{html.escape(run.name)}: which data made the model better at what it was bad at?</h1>",
        f"<p>Profile {html.escape(summary['profile'])}, seed {summary['seed']}. Accuracies in percent; 95% intervals.</p>",
        "<h2>Accuracy</h2>",
        display.table(accuracy_by_arm(run))._repr_html_(),
        "<h2>Differences</h2>",
        display.table(pd.DataFrame(summary["comparisons"]))._repr_html_(),
        "<h2>Beside who does not read the question</h2>",
        display.table(pd.DataFrame(summary.get("over_blind", [])))._repr_html_(),
        display.table(pd.DataFrame(summary.get("gains_by_blind", [])))._repr_html_(),
        "<h2>Refinement</h2>",
        display.facts(summary["refinement"])._repr_html_(),
        "<h2>Figures</h2>",
        *(_figure(folder / f"{name}.png", caption) for name, caption in captions.items()),
        "<h2>Seconds by stage</h2>",
        display.facts(seconds)._repr_html_(),
    ]
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(run.name)}</title>'
        f"<style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )
    with atomic(run.folder / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    record_files(run.folder, [run.folder / "report.html"])
    return run.folder / "report.html"


def _figure(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'
