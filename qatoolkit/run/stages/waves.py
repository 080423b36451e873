"""Exact counts: the budget of every cell met in accepted questions, in bounded waves."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from qatoolkit.core.stats import CELL

SURE = (
    3.0  # accepted questions to be expected of a wave before none of them closes a cell; by chance one time in twenty
)
PRIOR = 5.0  # questions that the yield known before a wave counts for
LEAST = 0.1  # yield at least assumed, so that a wave asks for at most ten times what is missing
REMEDY = "give it more seeds or another teacher, or plan fewer questions there"

Judge = Callable[[pd.DataFrame], tuple[pd.DataFrame, pd.DataFrame]]


def fill(
    plan: pd.DataFrame,
    write: Callable[[pd.DataFrame, int], dict],
    judge: Judge,
    *,
    waves: int,
    closed: Mapping[tuple[str, str], str],
    log=print,
) -> dict:
    """Meet the budget of a plan's cells in accepted questions: `write(plan, wave)` writes a wave as a strategy does,
    `judge(questions)` gives (kept, rejects) of the questions of all waves, and a wave asks for what a cell lacks, over
    its yield so far. Cells in `closed` are not asked for; a cell is closed too once a wave adds nothing to it.

    Returns what the strategy does, with the number of the `wave` in each row; `questions` are the accepted ones, at
    most the budget of their cell, and the others are rejects, as `judge` says or "over_budget". `counts` has, by cell:
    budget, accepted, asked, waves, yield (kept questions of the cell, surplus too, per question asked for) and
    reason, null where the budget is met. ValueError where every cell is closed."""
    budget = plan.set_index(CELL)["budget"]
    budget = budget[budget > 0]
    reason = pd.Series([closed.get(cell) for cell in budget.index], budget.index, dtype=object)
    if reason.notna().all():
        raise ValueError(f"no cell of the plan can be filled: {'; '.join(sorted(set(reason)))}")
    got, asked, turns = 0 * budget, 0 * budget, 0 * budget
    expected, tables = pd.Series(1.0, budget.index), []  # questions to keep per question asked for
    for wave in range(waves):
        missing = (budget - got).clip(lower=0).where(reason.isna(), 0)
        if not missing.any():
            break
        wanted = np.ceil(missing / expected).astype(int)
        log(f"wave {wave + 1}: {wanted.sum():,} questions asked for in {(wanted > 0).sum()} cells")
        tables.append(_fresh(write(_of_wave(plan, wanted, wave), wave), wave, tables))
        kept, _ = judge(_joined(tables, "questions"))
        gained, got = _count(kept, budget) - got, _count(kept, budget)
        hoped, asked, turns = wanted * expected, asked + wanted, turns + (wanted > 0)
        nothing = (wanted > 0) & (gained <= 0)
        together = nothing[wanted > 0].all() and hoped.sum() >= SURE
        shut = nothing & reason.isna() & (together | (hoped >= SURE))
        reason[shut] = [f"wave {wave + 1} asked for {n:,} and added nothing: {REMEDY}" for n in wanted[shut]]
        before = expected if wave else max(gained.clip(lower=0).sum() / wanted.sum(), LEAST)
        found = (gained.clip(lower=0) + PRIOR * before) / (wanted + PRIOR)
        expected = expected.where(wanted == 0, found.clip(LEAST, 1.0))
    made, rejects = _joined(tables, "made"), _joined(tables, "rejects")
    questions, more = _within(_joined(tables, "questions"), judge, budget)
    accepted = _count(questions, budget)
    reason = reason.where(reason.notna() | (accepted >= budget), f"{len(tables)} waves are used up: raise plan.waves")
    counts = pd.DataFrame(
        {"budget": budget, "accepted": accepted, "asked": asked, "waves": turns, "yield": got / asked.where(asked > 0)}
    )
    counts["reason"] = reason.where(accepted < budget, None)
    tables[0] |= {"made": made, "questions": questions, "rejects": pd.concat([rejects, *more], ignore_index=True)}
    return tables[0] | {"counts": counts.reset_index()}


def _of_wave(plan: pd.DataFrame, wanted: pd.Series, wave: int) -> pd.DataFrame:
    """The plan with what a wave asks for as its budget; after the first, only cells that it asks for lack anything."""
    budget = wanted.reindex(pd.MultiIndex.from_frame(plan[CELL]), fill_value=0).to_numpy()
    plan = plan.assign(budget=budget)
    return plan.assign(deficit=plan["deficit"].where(budget > 0, 0.0)) if wave else plan


def _fresh(outputs: dict, wave: int, earlier: list[dict]) -> dict:
    """What a wave wrote, with its number; a question that an earlier wave wrote is a reject ("repeated")."""
    known = {id for tables in earlier for id in tables["made"]["id"]}
    made, questions = (outputs[name][~outputs[name]["id"].isin(known)] for name in ("made", "questions"))
    repeated = outputs["made"][outputs["made"]["id"].isin(known)]
    repeated = repeated.assign(reason="repeated", detail="an earlier wave wrote it")
    rejects = pd.concat([outputs["rejects"], repeated], ignore_index=True)
    fresh = {"made": made, "questions": questions, "rejects": rejects}
    return outputs | {name: table.assign(wave=wave) for name, table in fresh.items()}


def _joined(tables: list[dict], name: str) -> pd.DataFrame:
    return pd.concat([one[name] for one in tables], ignore_index=True)


def _count(table: pd.DataFrame, budget: pd.Series) -> pd.Series:
    return table.groupby(CELL).size().reindex(budget.index, fill_value=0)


def _within(table: pd.DataFrame, judge: Judge, budget: pd.Series) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """(accepted questions within the budget, rejects). What is left is judged again until nothing of it is rejected: a
    question that goes could have hidden another fault."""
    rejects = []
    while True:
        kept, lost = judge(table)
        room = budget.reindex(pd.MultiIndex.from_frame(kept[CELL]), fill_value=0).to_numpy()
        spare = (kept.groupby(CELL).cumcount() >= room).to_numpy()
        over = kept[spare].assign(reason="over_budget", detail="the budget of its cell is met")
        rejects += [part for part in (lost, over) if len(part)]
        table = table[table["id"].isin(kept["id"][~spare])].reset_index(drop=True)
        if lost.empty and over.empty:
            return table, rejects
