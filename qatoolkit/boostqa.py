"""BoostQA: multi-grade and high-difficulty synthesis from seeds, the check against degradation, and refinement.

Stated in arXiv 2508.01326: a reasoning teacher writes STEM-focused multi-grade and high-difficulty questions, a second
teacher refines the answers. Our reading: H4 and H5 cells of the plan go to high-difficulty synthesis, the others to
multi-grade synthesis with one question per grade; what comes out is annotated again, a question that fell short is asked
for once more with the reason, and then kept under its true label.
"""

import itertools
import json
import math
import random
from collections import Counter

import pandas as pd

from qatoolkit import prompts
from qatoolkit.annotate import annotate, split_answers, stop_if_interrupted
from qatoolkit.config import BoostQASettings
from qatoolkit.schema import qa_id, qa_table
from qatoolkit.taxonomy import DIFFICULTIES, GRADES, HIGH
from qatoolkit.teacher import Teacher
from qatoolkit.verify import consensus, same_answer

EACH = 2  # questions per high-difficulty request


def requests(
    seeds: pd.DataFrame, plan: pd.DataFrame, settings: BoostQASettings, seed: int = 0
) -> pd.DataFrame:
    """What to ask for: one row per teacher request with strategy, seed id, language, asked difficulty and payload.

    Seeds of a cell's discipline take turns in random order; a discipline without seeds is left out and its budget stays
    unspent. With a strategy switched off its cells are asked for the plain way: more questions like
    the seed, at the seed's own grade."""
    rng = random.Random(f"boostqa/{seed}")
    rows, plain = [], Counter()
    pools = {d: group.to_dict("records") for d, group in seeds.groupby("discipline", sort=True)}
    for cell in plan[plan["budget"] > 0].to_dict("records"):
        pool = pools.get(cell["discipline"])
        if not pool:
            continue
        turns = itertools.cycle(rng.sample(pool, len(pool)))
        high = cell["difficulty"] in HIGH
        active = settings.high_difficulty if high else settings.multi_grade
        strategy = "high_difficulty" if high and active else "multi_grade"
        each = EACH if strategy == "high_difficulty" else len(GRADES)
        for turn in range(math.ceil(cell["budget"] / each)):
            source = next(turns)
            count = min(each, cell["budget"] - turn * each)
            payload = {"seed": prompts.shown(source), "round": turn // len(pool)}
            if strategy == "high_difficulty":
                payload |= {"difficulty": cell["difficulty"], "count": count}
            elif active:
                payload["wanted"] = [
                    {"grade": g, "difficulty": cell["difficulty"]} for g in list(GRADES)[:count]
                ]
            else:
                payload["wanted"] = [{"grade": source["grade"]}] * count
                payload["round"] = plain[
                    source["id"], count
                ]  # cells ask alike, and a request sent twice is answered once
                plain[source["id"], count] += 1
            rows.append(
                {
                    "strategy": strategy,
                    "parents": [source["id"]],
                    "language": source["language"],
                    "asked_discipline": cell["discipline"],
                    "asked_difficulty": cell["difficulty"],
                    "payload": payload,
                }
            )
    return pd.DataFrame(rows)


def synthesise(
    seeds: pd.DataFrame,
    plan: pd.DataFrame,
    teacher: Teacher,
    annotator: Teacher,
    settings: BoostQASettings,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write questions for a plan, label them, and ask once more where H4 or H5 came out easier; returns what `carry_out` does."""
    return carry_out(requests(seeds, plan, settings, seed), teacher, annotator)


def carry_out(asked: pd.DataFrame, teacher: Teacher, annotator: Teacher) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Put a table of requests to the teacher, label what it wrote, and ask once more, with the reason, for what missed.

    Returns the questions (with `asked_difficulty` and `attempt`) and the rejects: failed requests, unlabelled questions,
    first attempts that a better second one replaced ("degraded"), and second attempts that missed too ("degraded_again")
    or repeated a known question ("repeated"). Every question that was written is in one of the two."""
    made, rejects = write(asked, teacher)
    made, unlabelled = annotate(made, annotator)
    made["attempt"] = 1
    fallen = missed(made)
    if fallen.any():
        again, lost = write(_informed(made[fallen]), teacher)
        known = again["id"].isin(made["id"])
        repeated = again[known].assign(reason="repeated", detail="the second attempt wrote a known question")
        again, unlabelled_again = annotate(again[~known], annotator)
        again["attempt"] = 2
        short = missed(again)
        better = again[~short]
        worse = again[short].assign(reason="degraded_again", detail="the second attempt missed the level too")
        replaced = made["id"].isin(better["replaces"])
        dropped = made[replaced].assign(reason="degraded", detail="a second attempt reached the level")
        made = pd.concat([made[~replaced], better], ignore_index=True)
        rejects = pd.concat([rejects, lost, repeated, unlabelled_again, dropped, worse], ignore_index=True)
    rejects = pd.concat([rejects, unlabelled], ignore_index=True)
    rejects["payload"] = [json.dumps(p, ensure_ascii=False, default=str) for p in rejects["payload"]]
    made = made.drop(columns=["payload", "replaces", "exact"]).drop_duplicates("id", ignore_index=True)
    return made, rejects.drop(columns=["replaces", "exact"], errors="ignore")


RANK = {level: i for i, level in enumerate(DIFFICULTIES)}


def degraded(table: pd.DataFrame) -> pd.Series:
    """Which rows were asked for at H4 or H5 and are labelled below what was asked."""
    return table["asked_difficulty"].isin(HIGH) & (
        table["difficulty"].map(RANK) < table["asked_difficulty"].map(RANK)
    )


def missed(table: pd.DataFrame) -> pd.Series:
    """Which rows to ask for once more: the degraded ones, and where the level must be met exactly, all others off it; not those
    of multi-grade synthesis, whose prompt asks for a grade."""
    off = table["exact"].eq(True) & (table["difficulty"] != table["asked_difficulty"])
    return (degraded(table) | off) & table["strategy"].ne("multi_grade")


def _informed(fallen: pd.DataFrame) -> pd.DataFrame:
    """One further request for each question that missed its level, with the reason."""
    rows = []
    for row in fallen.to_dict("records"):
        easy = RANK[row["difficulty"]] < RANK[row["asked_difficulty"]]
        told = {
            "question": row["question"],
            "reason": f"labelled {row['difficulty']}, asked {row['asked_difficulty']}",
        }
        payload = {name: value for name, value in row["payload"].items() if name != "round"}
        payload |= {"count": 1, "too_easy" if easy else "too_hard": told}
        keep = ("strategy", "language", "parents", "asked_discipline", "asked_difficulty", "exact")
        path = {"path": row["knowledge_points"]} if row["strategy"] == "link" else {}
        rows.append({k: row[k] for k in keep} | path | {"payload": payload, "replaces": row["id"]})
    return pd.DataFrame(rows)


def write(asked: pd.DataFrame, teacher: Teacher) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Put requests to the teacher; returns a QA table of what it wrote and a rejects table of requests that failed or
    got no question.

    A question that several requests wrote stands once, with the calls of all."""
    messages = [prompts.messages(row.strategy, row.language, **row.payload) for row in asked.itertuples()]
    said = teacher.ask(messages, parse=read_questions, ids=list(asked.index), label="write")
    answered, failed = split_answers(asked, said, lambda value: {"written": value}, "write")
    nothing = [not row["written"] for row in answered.to_dict("records")]
    silent = answered.loc[nothing].drop(columns="written", errors="ignore")  # absent when nobody answered
    silent = silent.assign(reason="nothing_written", detail="the teacher answered with no question")
    failed = pd.concat([failed, silent], ignore_index=True)
    rows, extra = {}, {}
    for row in answered.to_dict("records"):
        for item in row["written"]:
            id = qa_id(item["question"], item["answer"])
            if id in rows:
                extra[id][0].extend(c for c in row["calls"] if c not in extra[id][0])
                continue
            rows[id] = item | {
                "id": id,
                "language": row["language"],
                "strategy": row["strategy"],
                "parents": row["parents"],
                "knowledge_points": row.get("path"),
                "prompt_version": prompts.version(row["strategy"]),
            }
            extra[id] = (
                list(row["calls"]),
                row.get("asked_discipline"),
                row.get("asked_difficulty"),
                row["payload"],
                row.get("exact"),
                row.get("replaces"),
            )
    table = qa_table(rows.values(), source="synthetic", teacher=teacher.model)
    columns = ["calls", "asked_discipline", "asked_difficulty", "payload", "exact", "replaces"]
    table[columns] = pd.DataFrame(list(extra.values()), columns=columns, dtype=object)
    return table, failed.drop(columns=["parents", "path"], errors="ignore")


def read_questions(content: str) -> list[dict]:
    """The questions a teacher wrote; ValueError, worded for the model, when none can be read."""
    items = prompts.read_json(content, "questions", bare_list=True).get("questions")
    if not isinstance(items, list):
        raise ValueError('the JSON object needs a list "questions"')
    kept = []
    for item in items:
        texts = _texts(item, "question", "answer", "rationale") if isinstance(item, dict) else {}
        if not (texts.get("question") and texts.get("answer")):
            raise ValueError('every entry of "questions" needs a non-empty "question" and "answer"')
        kept.append({name: text for name, text in texts.items() if text})
    return kept


def _texts(value: dict, *names: str) -> dict[str, str]:
    return {name: prompts.as_text(value.get(name)) for name in names}


def refine(
    table: pd.DataFrame, refiner: Teacher, settings: BoostQASettings
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A second teacher answers every question again; where the two differ, fresh samples decide by majority.

    Returns the rows with the decided answer (`verified`, `first_answer`, `second_answer`, `decided`: agreed, first, refined
    or other) and the rejects without a majority. Our reading of BoostQA's refinement."""
    messages = [
        prompts.messages("refine", r.language, question=r.question, answer=r.answer)
        for r in table.itertuples()
    ]
    said = refiner.ask(messages, parse=_read_answer, ids=list(table["id"]), label="refine")
    answered, rejects = split_answers(
        table, said, lambda v: {"second_answer": v["answer"], "new_rationale": v["rationale"]}, "refine"
    )
    agree = [bool(same_answer(r.answer, r.second_answer)) for r in answered.itertuples()]
    votes = _votes(answered.loc[[not a for a in agree]], refiner, settings.samples)
    rows, unresolved = [], []
    for row, same in zip(answered.to_dict("records"), agree, strict=True):
        first, second = row["answer"], row["second_answer"]
        rationale = row.pop("new_rationale")
        winner, share, calls = (first, 1.0, []) if same else votes[row["id"]]
        row["calls"] = [*row["calls"], *calls]
        if winner is None or share <= 0.5:
            reason = {"reason": "unresolved", "detail": f"first {first!r}, refined {second!r}, no majority"}
            unresolved.append(row | reason)
            continue
        decided = "agreed" if same else "other"
        for name, candidate in (("refined", second), ("first", first)):
            if not same and same_answer(winner, candidate):
                decided, winner = name, candidate
        if decided == "refined":
            row["rationale"] = rationale or None
        elif decided == "other":
            row["rationale"] = None
        rows.append(row | {"answer": winner, "first_answer": first, "decided": decided, "verified": True})
    rejects = pd.concat([rejects, pd.DataFrame(unresolved)], ignore_index=True)
    added = ("calls", "second_answer", "first_answer", "decided", "verified")
    return pd.DataFrame(rows, columns=None if rows else list(dict.fromkeys([*table, *added]))), rejects


def _votes(
    disputed: pd.DataFrame, solver: Teacher, samples: int
) -> dict[str, tuple[str | None, float, list[str]]]:
    """By id: the answer of most fresh samples, its share of them, and the calls."""
    messages = [
        prompts.messages("solve", row.language, question=row.question, draw=draw)
        for row in disputed.itertuples()
        for draw in range(samples)
    ]
    said = solver.ask(messages, parse=_read_answer, label="solve")
    stop_if_interrupted(said)
    answers = [
        v["answer"] if o == "ok" else None for v, o in zip(said["value"], said["outcome"], strict=True)
    ]
    votes = {}
    for i, id in enumerate(disputed["id"]):
        part = slice(i * samples, (i + 1) * samples)
        given = [a for a in answers[part] if a is not None]
        calls = [f"solve/{key}" for keys in said["keys"][part] for key in keys]
        votes[id] = (*consensus(given), calls)
    return votes


def _read_answer(content: str) -> dict:
    texts = _texts(prompts.read_json(content, "answer"), "answer", "rationale")
    if not texts["answer"]:
        raise ValueError('the JSON object needs a non-empty "answer"')
    return texts
