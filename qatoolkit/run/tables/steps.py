"""What verification does to difficulty: how many questions survive each step, by the cell asked for, and what each step
cost."""

from collections.abc import Mapping

import pandas as pd

from qatoolkit.core.qa_table import require
from qatoolkit.core.stats import CELL, wilson
from qatoolkit.run.lineage import priced, rows_of, shares_of
from qatoolkit.run.stages.synthesis import plan_of
from qatoolkit.run.store import Run
from qatoolkit.synthesis.write import RANK

_ASKED = {"asked_discipline": "discipline", "asked_difficulty": "difficulty"}
_PAID = {"annotate": "read", "refine": "refined", "solve": "refined"}  # by the step of a call; other calls write


def survival(
    run: Run, name: str = "boostqa", by: str | list[str] = "difficulty", priced_as: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """How many questions of a data set survive each step, by the cell asked for, whatever their labels: the columns of
    `by` (difficulty, discipline or both; "all" for all together), step, n, share of those written with its Wilson
    interval (low, high), requests and usd.

    Steps: `asked` (the budget of the plan, of all waves), `written` (each question once), `read` (labelled by the
    annotator), `at its level` (labelled at the difficulty asked for or above, by the first attempt or a later one),
    `refined` (of these, the answer was decided), `curated` (of these, fit for training), `accepted` (of these, labelled
    exactly as asked and within the budget); each is part of the one before. `elsewhere` are those that are trained on
    under another label. The last three are missing before `curate`, unless curation judged the waves. A step's cost is
    that of its calls: attempts after the first count for `at its level`; `usd` is NaN if a price is unknown
    (`priced_as` as in `qt.cost_per_question`).

    ValueError if the rows do not record what was asked for; MissingUpstream before the data set is made."""
    by = [by] if isinstance(by, str) else list(by)
    require(f"{name}: made", run.read(name).made, "id", *_ASKED, *CELL)
    reached, budget = _rows_by_step(run, name), _planned_by_cell(run, name)
    counted = [rows[list(_ASKED)].rename(columns=_ASKED).assign(step=step, n=1) for step, rows in reached.items()]
    counted = pd.concat([budget.assign(step="asked"), *counted]).assign(requests=0.0, usd=0.0)
    events = pd.concat([counted, _costs(run, name, priced_as or {}).assign(n=0)])
    groups = [*sorted({*events[by].dropna().itertuples(index=False, name=None)}), ("all",) * len(by)]
    events = pd.concat([events, events.assign(**dict.fromkeys(by, "all"))])
    sums = events.groupby([*by, "step"])[["n", "requests", "usd"]].agg(lambda x: x.sum(skipna=False))
    rows = []
    for key in groups:
        written = int(sums["n"].get((*key, "written"), 0))
        for step in ("asked", *reached):
            found = sums.loc[(*key, step)] if (*key, step) in sums.index else dict.fromkeys(sums, 0)
            n, total = int(found["n"]), 0 if step == "asked" else written
            share = (n / total if total else None, *wilson(n, total))
            rows.append((*key, step, n, *share, found["requests"], found["usd"]))
    return pd.DataFrame(rows, columns=[*by, "step", "n", "share", "low", "high", "requests", "usd"])


def accepted_by_cell(run: Run, name: str = "boostqa") -> pd.DataFrame:
    """Questions of a data set planned and accepted exactly as asked, by cell: discipline, difficulty, budget, accepted,
    and with several `plan.waves` the other columns of its `counts`. After one pass the accepted ones are those that reached
    the last step so far (`survival`); a strategy that moves levels, as LinkQA does, accepts some beyond the plan."""
    stored = run.read(name)
    if "counts" in stored:
        return stored.counts
    reached = _rows_by_step(run, name)
    last = reached.get("accepted", reached["refined"])
    accepted = last[_is_as_asked(last)].groupby(CELL).size().rename("accepted").reset_index()
    cells = _planned_by_cell(run, name).rename(columns={"n": "budget"}).merge(accepted, on=CELL, how="outer")
    return cells.fillna({"budget": 0, "accepted": 0}).astype({"budget": int, "accepted": int})


def _planned_by_cell(run: Run, name: str) -> pd.DataFrame:
    """The number of questions that a data set was planned with (of all its waves), by cell: discipline, difficulty, n."""
    stored = run.read(name)
    if "counts" in stored:
        return stored.counts[[*CELL, "asked"]].rename(columns={"asked": "n"})
    plan = plan_of(run, run.profile.data_set(name)[1])
    return plan.loc[plan["budget"] > 0, [*CELL, "budget"]].rename(columns={"budget": "n"})


def _rows_by_step(run: Run, name: str) -> dict[str, pd.DataFrame]:
    """The rows that reached each step, by step."""
    stored = run.read(name)
    made, rejects = stored.made, stored.rejects
    rejects = rejects.reindex(columns=list(dict.fromkeys([*rejects, *made, "decided"])))
    attempts = pd.concat([made, rejects[rejects["reason"] != "repeated"]], ignore_index=True)
    attempts = attempts[attempts["question"].notna()].drop_duplicates("id")
    written = attempts[attempts["attempt"] == 1] if "attempt" in attempts else attempts
    surplus = rejects[(rejects["reason"] == "over_budget") & ~rejects["id"].isin(made["id"])]  # never refined
    at_level = pd.concat([made, surplus], ignore_index=True)
    at_level = at_level[at_level["difficulty"].map(RANK) >= at_level["asked_difficulty"].map(RANK)]
    decided = set(made["id"])
    if "decided" in stored.questions:
        decided = {*stored.questions["id"], *rejects.loc[rejects["decided"].notna(), "id"]}
    refined = at_level[at_level["id"].isin(decided)]
    reached = {
        "written": written,
        "read": written.dropna(subset="difficulty"),
        "at its level": at_level,
        "refined": refined,
    }
    is_curated = "curate" in run.done() and name in run.read("curate")
    if not is_curated and "counts" not in stored:
        return reached
    final = set(getattr(run.read("curate"), name)["id"]) if is_curated else set(stored.questions["id"])
    within = set(rejects.loc[rejects["reason"] == "over_budget", "id"]) if "counts" in stored else set()
    curated = refined[refined["id"].isin(final | within)]
    accepted = curated[curated["id"].isin(final) & _is_as_asked(curated)]
    elsewhere = made[made["id"].isin(final - set(accepted["id"]))]
    return reached | {"curated": curated, "accepted": accepted, "elsewhere": elsewhere}


def _is_as_asked(table: pd.DataFrame) -> pd.Series:
    return (table["discipline"] == table["asked_discipline"]) & (table["difficulty"] == table["asked_difficulty"])


def _costs(run: Run, name: str, priced_as: Mapping[str, str]) -> pd.DataFrame:
    """The calls of a data set by the cell asked for: discipline, difficulty, the step they count for, requests (shares
    of them), usd."""
    lines = shares_of(rows_of(run, name, *_ASKED, "attempt"))
    with run.ledger() as ledger:
        costs = priced(ledger.costs(lines["key"].unique()), priced_as)
    usd = lines["key"].map(costs.set_index("key")["cost"]) * lines["share"]
    retried = (lines["attempt"] > 1) & ~lines["step"].isin(["refine", "solve"])
    step = lines["step"].map(_PAID).fillna("written").where(~retried, "at its level")
    lines = lines.rename(columns=_ASKED).assign(step=step, requests=lines["share"], usd=usd)
    return lines[[*CELL, "step", "requests", "usd"]]
