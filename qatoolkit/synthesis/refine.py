"""Refinement: a second teacher answers every question again; fresh samples decide disputes (arXiv 2508.01326)."""

import numpy as np
import pandas as pd

from qatoolkit.answers.same_answer import consensus, same_answer
from qatoolkit.synthesis.annotate import split_answers
from qatoolkit.synthesis.settings import VerifySettings
from qatoolkit.teacher import prompts
from qatoolkit.teacher.client import Teacher
from qatoolkit.teacher.solve import read_answer, solve


def refine(table: pd.DataFrame, refiner: Teacher, settings: VerifySettings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Let a second teacher answer every question again; unless the two answers are certainly the same, the majority of
    fresh samples decides: `settings.samples` at a time, up to `settings.most_samples`, until an answer has a majority.

    Returns the rows with the decided answer and the rejects without a majority. Columns added: `verified`,
    `first_answer`, `second_answer`, `same_answers` (True, False, or null where `same_answer` can't tell) and `decided`
    (agreed, first, refined, other, or undecided where the winner can't be compared with the two). Our reading of
    BoostQA's refinement."""
    messages = [
        prompts.messages("refine", r.language, question=r.question, answer=r.answer) for r in table.itertuples()
    ]
    replies = refiner.ask(messages, parse=read_answer, ids=list(table["id"]), label="refine")
    answered, rejects = split_answers(
        table, replies, lambda v: {"second_answer": v["answer"], "new_rationale": v["rationale"]}, "refine"
    )
    verdicts = [same_answer(r.answer, r.second_answer) for r in answered.itertuples()]
    votes = _vote(answered.loc[[v is not True for v in verdicts]], refiner, settings)
    rows, unresolved = [], []
    for row, same in zip(answered.to_dict("records"), verdicts, strict=True):
        first, second = row["answer"], row["second_answer"]
        rationale = row.pop("new_rationale")
        winner, share, calls = (first, 1.0, []) if same else votes[row["id"]]
        row["calls"] = [*row["calls"], *calls]
        if winner is None or share <= 0.5:
            reason = {"reason": "unresolved", "detail": f"first {first!r}, refined {second!r}, no majority"}
            unresolved.append(row | reason)
            continue
        decided = "agreed" if same else _whose_answer(winner, first, second)
        winner = {"refined": second, "first": first}.get(decided, winner)
        if decided == "refined":
            row["rationale"] = rationale or None
        elif decided in ("other", "undecided"):
            row["rationale"] = None
        added = {"first_answer": first, "decided": decided, "verified": True, "same_answers": same}
        rows.append(row | {"answer": winner} | added)
    rejects = pd.concat([rejects, pd.DataFrame(unresolved)], ignore_index=True)
    columns = ("calls", "second_answer", "first_answer", "decided", "verified", "same_answers")
    kept = pd.DataFrame(rows, columns=None if rows else list(dict.fromkeys([*table, *columns])))
    return kept.astype({"same_answers": "boolean"}), rejects


def _whose_answer(winner: str, first: str, second: str) -> str:
    """Which of the two answers won the vote: first, refined, other, or undecided."""
    verdicts = {"first": same_answer(winner, first), "refined": same_answer(winner, second)}
    match = next((name for name, verdict in verdicts.items() if verdict), None)
    return match or ("undecided" if None in verdicts.values() else "other")


def _vote(
    disputed: pd.DataFrame, solver: Teacher, settings: VerifySettings
) -> dict[str, tuple[str | None, float, list[str]]]:
    """By id: the most frequent answer of the fresh samples, its share of all samples (unreadable ones count), and the
    calls. More samples are drawn while no answer has a majority."""
    most = settings.most_samples or settings.samples
    answers, calls = {id: [] for id in disputed["id"]}, {id: [] for id in disputed["id"]}
    votes, drawn = {}, 0
    while len(disputed) and drawn < most:
        draws = range(drawn, min(drawn + settings.samples, most))
        replies = solve(disputed, solver, draws)
        ids = np.repeat(disputed["id"].to_numpy(), len(draws))
        for id, answer, keys in zip(ids, replies["value"], replies["keys"], strict=True):
            answers[id].append(answer)
            calls[id] += [f"solve/{key}" for key in keys]
        votes |= {id: (*consensus(answers[id]), calls[id]) for id in disputed["id"]}
        disputed, drawn = disputed[[votes[id][1] <= 0.5 for id in disputed["id"]]], draws.stop
    return votes


def refine_or_keep(
    made: pd.DataFrame, rejects: pd.DataFrame, refiner: Teacher, settings: VerifySettings
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(questions, rejects) after refinement, or unchanged if `settings.refine` is off."""
    if not settings.refine:
        return made, rejects
    table, unresolved = refine(made, refiner, settings)
    return table, pd.concat([rejects, unresolved], ignore_index=True)
