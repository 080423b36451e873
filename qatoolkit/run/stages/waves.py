"""Exact counts: the budget of every cell is met in accepted questions, in a bounded number of waves."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from qatoolkit.core.stats import CELL

SURE = 3.0  # expected accepted questions from which a wave without any closes its cell; by chance 1 time in 20
PRIOR = 5.0  # weight, in questions, of the yield known before a wave
LEAST = 0.1  # least yield assumed, so that a wave asks for at most ten times what is missing
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
    `judge(questions)` returns (kept, rejects) for the questions of all waves, and a wave asks for what each cell is
    missing, divided by its yield so far. Cells in `closed` are left out; a cell is also closed once a wave adds
    nothing.

    Returns the outputs of the strategy with the number of the `wave` in each row; `questions` are the accepted ones, at
    most the budget of each cell, and the others are rejects, with the reason of `judge` or "over_budget". `counts` has,
    by cell: budget, accepted, asked, waves, yield (kept questions of the cell, surplus included, per question asked
    for) and reason, null if the budget is met. ValueError if every cell is closed."""
    budget = plan.set_index(CELL)["budget"]
    budget = budget[budget > 0]
    reason = pd.Series([closed.get(cell) for cell in budget.index], budget.index, dtype=object)
    if reason.notna().all():
        raise ValueError(f"no cell of the plan can be filled: {'; '.join(sorted(set(reason)))}")
    got, asked, n_waves = 0 * budget, 0 * budget, 0 * budget
    expected, tables = pd.Series(1.0, budget.index), []  # questions to keep per question asked for
    for wave in range(waves):
        missing = (budget - got).clip(lower=0).where(reason.isna(), 0)
        if not missing.any():
            break
        wanted = np.ceil(missing / expected).astype(int)
        log(f"wave {wave + 1}: {wanted.sum():,} questions asked for in {(wanted > 0).sum()} cells")
        tables.append(_drop_repeats(write(_plan_wave(plan, wanted, wave), wave), wave, tables))
        kept, _ = judge(_join(tables, "questions"))
        gained, got = _count(kept, budget) - got, _count(kept, budget)
        hoped, asked, n_waves = wanted * expected, asked + wanted, n_waves + (wanted > 0)
        no_gain = (wanted > 0) & (gained <= 0)
        none_gained = no_gain[wanted > 0].all() and hoped.sum() >= SURE
        newly_closed = no_gain & reason.isna() & (none_gained | (hoped >= SURE))
        useless = f"wave {wave + 1} asked for {{:,}} and added nothing: {REMEDY}"
        reason[newly_closed] = [useless.format(n) for n in wanted[newly_closed]]
        prior = expected if wave else max(gained.clip(lower=0).sum() / wanted.sum(), LEAST)
        posterior = (gained.clip(lower=0) + PRIOR * prior) / (wanted + PRIOR)
        expected = expected.where(wanted == 0, posterior.clip(LEAST, 1.0))
    made, rejects = _join(tables, "made"), _join(tables, "rejects")
    questions, more = _limit_to_budget(_join(tables, "questions"), judge, budget)
    accepted = _count(questions, budget)
    reason = reason.where(reason.notna() | (accepted >= budget), f"{len(tables)} waves are used up: raise plan.waves")
    counts = pd.DataFrame({"budget": budget, "accepted": accepted, "asked": asked, "waves": n_waves})
    counts["yield"] = got / asked.where(asked > 0)
    counts["reason"] = reason.where(accepted < budget, None)
    tables[0] |= {"made": made, "questions": questions, "rejects": pd.concat([rejects, *more], ignore_index=True)}
    return tables[0] | {"counts": counts.reset_index()}


def _plan_wave(plan: pd.DataFrame, wanted: pd.Series, wave: int) -> pd.DataFrame:
    """The plan with the questions that a wave asks for as its budget; after the first wave the other cells have no
    deficit."""
    budget = wanted.reindex(pd.MultiIndex.from_frame(plan[CELL]), fill_value=0).to_numpy()
    plan = plan.assign(budget=budget)
    return plan.assign(deficit=plan["deficit"].where(budget > 0, 0.0)) if wave else plan


def _drop_repeats(outputs: dict, wave: int, earlier: list[dict]) -> dict:
    """The outputs of a wave with its number; questions that an earlier wave wrote become rejects ("repeated")."""
    known = {id for tables in earlier for id in tables["made"]["id"]}
    made, questions = (outputs[name][~outputs[name]["id"].isin(known)] for name in ("made", "questions"))
    repeated = outputs["made"][outputs["made"]["id"].isin(known)]
    repeated = repeated.assign(reason="repeated", detail="an earlier wave wrote it")
    rejects = pd.concat([outputs["rejects"], repeated], ignore_index=True)
    tables = {"made": made, "questions": questions, "rejects": rejects}
    return outputs | {name: table.assign(wave=wave) for name, table in tables.items()}


def _join(waves: list[dict], name: str) -> pd.DataFrame:
    return pd.concat([outputs[name] for outputs in waves], ignore_index=True)


def _count(table: pd.DataFrame, budget: pd.Series) -> pd.Series:
    return table.groupby(CELL).size().reindex(budget.index, fill_value=0)


def _limit_to_budget(table: pd.DataFrame, judge: Judge, budget: pd.Series) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """(accepted questions within the budget, rejects). The rest is judged again until nothing is rejected, since
    removing a question can change the verdict on another."""
    rejects = []
    while True:
        kept, lost = judge(table)
        limit = budget.reindex(pd.MultiIndex.from_frame(kept[CELL]), fill_value=0).to_numpy()
        surplus = (kept.groupby(CELL).cumcount() >= limit).to_numpy()
        over = kept[surplus].assign(reason="over_budget", detail="the budget of its cell is met")
        rejects += [part for part in (lost, over) if len(part)]
        table = table[table["id"].isin(kept["id"][~surplus])].reset_index(drop=True)
        if lost.empty and over.empty:
            return table, rejects
