"""A preview: a few questions written end to end by the run's teachers, before the rest is paid for."""

import math
from dataclasses import dataclass
from html import escape
from tempfile import TemporaryDirectory

import pandas as pd

from qatoolkit.core import display
from qatoolkit.core.stats import CELL
from qatoolkit.run.answer_counts import AnswerCounts
from qatoolkit.run.cost import YIELD, yields
from qatoolkit.run.lineage import Lineage, join_calls, shares_of, trace
from qatoolkit.run.stages.data import judge_of
from qatoolkit.run.stages.synthesis import context_of, plan_of
from qatoolkit.run.stages.teachers import teachers
from qatoolkit.run.store import Run
from qatoolkit.synthesis.refine import refine_or_keep
from qatoolkit.synthesis.write import write_and_label

_SUMS = ["requests", "prompt_tokens", "completion_tokens", "usd", "hours"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Preview(display.Sections):
    """What a preview wrote.

    `questions`: every question written, with what was asked for, its labels, `outcome` (accepted, or why not) and its
    part of the cost in USD; `lineages`: the history of each, in the same order. `spent`: requests, tokens, USD and
    hours of the calls by step and model; `whole`: the same for the `planned` questions, at the rate of the `asked`
    ones."""

    questions: pd.DataFrame
    lineages: tuple[Lineage, ...]
    spent: pd.DataFrame
    whole: pd.DataFrame
    asked: int
    planned: int

    def _sections(self):
        shown = ["asked_discipline", "asked_difficulty", "difficulty", "question", "answer", "outcome", "usd"]
        yield f"{len(self.questions)} questions written", display.table(self.questions[shown], {"usd": ".6f"})
        head = f"All {self.planned:,} questions asked for, at the rate of the {self.asked} here"
        yield head, display.table(self.whole, {"usd": ".2f"})

    def _repr_html_(self) -> str:
        html = super()._repr_html_()
        for one in self.lineages:
            head = f'<summary style="{display.MUTED}">{escape(str(one.row["question"]))}</summary>'
            html += f"<details>{head}{one._repr_html_()}</details>"
        return html


def preview(run: Run, n: int = 5, name: str | None = None) -> Preview:
    """Write at least `n` questions of a data set (by default the main one) end to end: one request per cell, the
    weakest cells of the plan first, exactly as the full synthesis will send them, so that nothing is paid for twice;
    then labels, refinement and curation. No stage is made. Shows the questions with their lineage and cost, and what
    the full data set takes at that rate.

    ValueError for an unknown data set or a strategy without `asks`; MissingUpstream before the plan; Incomplete if a
    teacher can't be reached."""
    name = name or run.profile.main_set
    chosen, profile = run.profile.data_set(name)
    if chosen.asks is None:
        raise ValueError(
            f"the strategy {chosen.name!r} can't be previewed: it has no `asks`, the table of its requests"
        )
    settings, plan, run.answer_counts = chosen.settings_in(profile), plan_of(run, profile), AnswerCounts()
    with teachers(run, name) as roles, TemporaryDirectory(prefix="qatoolkit-") as folder:
        asked = _select_weakest(chosen.asks(context_of(run, profile, chosen, roles, folder, plan)), plan, n)
        made, rejects = write_and_label(asked, roles.synthesiser, roles.annotator, getattr(settings, "attempts", 2))
        if getattr(settings, "refine", False):
            questions, rejects = refine_or_keep(made, rejects, roles.refiner, settings)
        else:
            questions = made
    run.answer_counts.require(0.0)
    kept, lost, _ = judge_of(run, profile.curate)(questions)
    outcome = dict.fromkeys(kept["id"], "accepted") | dict(zip(lost["id"], lost["reason"], strict=True))
    tables = {"_made": made, "": questions, "_rejects": rejects}
    ids = list(dict.fromkeys([*made["id"], *rejects.get("id", pd.Series(dtype=object)).dropna()]))
    lineages = tuple(
        trace(run, id, tables, [{"step": "curated", "result": outcome[id]}] if id in outcome else []) for id in ids
    )
    rows = [
        one.row | {"outcome": outcome.get(one.row["id"], one.row.get("reason")), "usd": one.cost} for one in lineages
    ]
    spent = _sum_costs(run, join_calls(tables.values()))
    count = int(_count_questions(asked).sum())
    planned = int(plan["budget"].sum())
    if profile.plan.waves > 1:
        planned = math.ceil(planned / yields(run.root).get(chosen.name, YIELD))
    whole = spent.assign(**{c: spent[c] * planned / count for c in _SUMS}).round({"requests": 0})
    return Preview(
        questions=pd.DataFrame(rows), lineages=lineages, spent=spent, whole=whole, asked=count, planned=planned
    )


def _count_questions(asked: pd.DataFrame) -> pd.Series:
    """The number of questions that each request asks for."""
    return asked["payload"].map(lambda payload: payload.get("count") or len(payload.get("wanted", [0])))


def _select_weakest(asked: pd.DataFrame, plan: pd.DataFrame, n: int) -> pd.DataFrame:
    """Requests for at least `n` questions: one from each cell in turn, the weakest cells first."""
    cells = ["asked_discipline", "asked_difficulty"]
    deficit = plan.set_index(CELL)["deficit"].reindex(pd.MultiIndex.from_frame(asked[cells])).to_numpy()
    order = asked.assign(deficit=deficit, turn=asked.groupby(cells).cumcount())
    order = order.sort_values(["turn", "deficit"], ascending=[True, False], kind="stable").index
    enough = int((_count_questions(asked.loc[order]).cumsum() < n).sum()) + 1
    return asked.loc[order[:enough]]


def _sum_costs(run: Run, rows: pd.DataFrame) -> pd.DataFrame:
    """What the calls of some rows took by step and model, calls answered from the ledger included."""
    step = shares_of(rows).drop_duplicates("key").set_index("key")["step"]
    with run.ledger() as ledger:
        costs, attempts = ledger.costs(step.index), ledger.attempts()
    seconds = attempts[attempts["key"].isin(step.index)].groupby("key")["seconds"].sum()
    hours = costs["key"].map(seconds) / run.profile.teacher.in_flight / 3600
    costs = costs.assign(step=costs["key"].map(step), hours=hours, requests=1).rename(columns={"cost": "usd"})
    return costs.groupby(["step", "model"], sort=False)[_SUMS].agg(lambda x: x.sum(skipna=False)).reset_index()
