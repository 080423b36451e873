"""Writes questions: sends requests to a teacher, labels the questions, and requests those that missed their level
again."""

import json

import pandas as pd

from qatoolkit.core.qa_table import qa_id, qa_table
from qatoolkit.core.stats import share
from qatoolkit.core.taxonomy import DIFFICULTIES, HIGH
from qatoolkit.synthesis.annotate import annotate, split_answers
from qatoolkit.teacher import prompts
from qatoolkit.teacher.client import Teacher


def write_and_label(
    requests: pd.DataFrame, teacher: Teacher, annotator: Teacher, attempts: int = 2
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Send a table of requests to the teacher, label the questions, and request those that missed their level again,
    with the reason, up to `attempts` times in all.

    A `payload` may be JSON text, as read from a Parquet file. Returns the questions (with `asked_difficulty` and
    `attempt`) and the rejects: failed requests, unlabelled questions, first attempts replaced by a later one that
    reached the level ("degraded"), and later attempts that missed too ("degraded_again") or repeated a known question
    ("repeated"). Every written question is in one of the two. If no attempt reaches the level, the first is kept."""
    if len(requests):
        requests = requests.assign(payload=[json.loads(p) if isinstance(p, str) else p for p in requests["payload"]])
    made, rejects = write(requests, teacher)
    made, unlabelled = annotate(made.assign(attempt=1), annotator)
    retry = made[needs_retry(made)]
    for attempt in range(2, attempts + 1):
        if retry.empty:
            break
        again, lost = write(_retry_requests(retry, attempt), teacher)
        known = again["id"].isin(made["id"])
        repeated = again[known].assign(
            reason="repeated", detail=f"attempt {attempt} wrote a known question", attempt=attempt
        )
        again, unlabelled_again = annotate(again[~known].assign(attempt=attempt), annotator)
        still_off = needs_retry(again)
        better = again[~still_off]
        worse = again[still_off].assign(reason="degraded_again", detail=f"attempt {attempt} missed the level too")
        replaced = made["id"].isin(better["replaces"])
        dropped = made[replaced].assign(reason="degraded", detail=f"attempt {attempt} reached the level")
        made = pd.concat([made[~replaced], better], ignore_index=True)
        rejects = pd.concat([rejects, lost, repeated, unlabelled_again, dropped, worse], ignore_index=True)
        retry = retry[~retry["id"].isin([*better["replaces"], *lost["replaces"]])]
        latest = {row["replaces"]: row for row in worse.to_dict("records")}
        rows = [latest.get(row["id"], row) for row in retry.to_dict("records")]
        retry = retry.assign(**{column: [row[column] for row in rows] for column in ("question", "difficulty")})
    rejects = pd.concat([rejects, unlabelled], ignore_index=True)
    rejects["payload"] = [json.dumps(p, ensure_ascii=False, default=str) for p in rejects["payload"]]
    made = made.drop(columns=["payload", "replaces", "exact"]).drop_duplicates("id", ignore_index=True)
    return made, rejects.drop(columns=["replaces", "exact"], errors="ignore")


DEGRADED = 0.25  # assumed share of high-difficulty questions that are requested again, for cost estimates
RANK = {level: i for i, level in enumerate(DIFFICULTIES)}


def degraded(table: pd.DataFrame) -> pd.Series:
    """A mask of rows requested at H4 or H5 and labelled below that level."""
    return table["asked_difficulty"].isin(HIGH) & (table["difficulty"].map(RANK) < table["asked_difficulty"].map(RANK))


def attempts(made: pd.DataFrame, rejects: pd.DataFrame, levels) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The questions requested at `levels`: those kept, and the first attempts (kept, or later replaced)."""
    kept = made[made["asked_difficulty"].isin(levels)]
    replaced = rejects[(rejects["reason"] == "degraded") & rejects["asked_difficulty"].isin(levels)]
    return kept, pd.concat([kept[kept["attempt"] == 1], replaced])


def degradation(made: pd.DataFrame) -> dict:
    """Number of kept questions that were requested at H4 or H5, and the share of them labelled below their level."""
    hard = made[made["asked_difficulty"].isin(HIGH)]
    return {"n": len(hard), "degraded": share(degraded(hard))}


def needs_retry(table: pd.DataFrame) -> pd.Series:
    """A mask of rows to request again: degraded ones and, if the level is `exact`, any other mismatch; never
    multi-grade ones, whose prompt requests a grade."""
    mismatch = table["exact"].eq(True) & (table["difficulty"] != table["asked_difficulty"])
    return (degraded(table) | mismatch) & table["strategy"].ne("multi_grade")


def _retry_requests(retry: pd.DataFrame, attempt: int) -> pd.DataFrame:
    """One more request per question that missed its level, with the reason; numbered from the third attempt on, because
    the ledger answers identical requests once."""
    rows = []
    for row in retry.to_dict("records"):
        easy = RANK[row["difficulty"]] < RANK[row["asked_difficulty"]]
        reason = {
            "question": row["question"],
            "reason": f"labelled {row['difficulty']}, asked {row['asked_difficulty']}",
        }
        payload = {name: value for name, value in row["payload"].items() if name != "round"}
        payload |= {"count": 1, "too_easy" if easy else "too_hard": reason}
        payload |= {"round": attempt} if attempt > 2 else {}
        keep = ("strategy", "language", "parents", "asked_discipline", "asked_difficulty", "exact")
        path = {"path": row["knowledge_points"]} if row["strategy"] == "link" else {}
        rows.append({k: row[k] for k in keep} | path | {"payload": payload, "replaces": row["id"]})
    return pd.DataFrame(rows)


def write(requests: pd.DataFrame, teacher: Teacher) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Send requests to the teacher; returns a QA table of the questions and a table of rejects (requests that failed or
    got no question). A question written by several requests appears once, with all their calls."""
    messages = [prompts.messages(row.strategy, row.language, **row.payload) for row in requests.itertuples()]
    replies = teacher.ask(messages, parse=read_questions, ids=list(requests.index), label="write")
    answered, failed = split_answers(requests, replies, lambda value: {"written": value}, "write")
    is_empty = [not row["written"] for row in answered.to_dict("records")]
    empty = answered.loc[is_empty].drop(columns="written", errors="ignore")  # no such column without answers
    empty = empty.assign(reason="nothing_written", detail="the teacher answered with no question")
    failed = pd.concat([failed, empty], ignore_index=True)
    written = {}
    copied = ["language", "strategy", "parents"]
    columns = ["calls", "asked_discipline", "asked_difficulty", "payload", "exact", "replaces"]
    for row in answered.to_dict("records"):
        shared = {name: row.get(name) for name in copied + columns}
        shared |= {"knowledge_points": row.get("path"), "prompt_version": prompts.version(row["strategy"])}
        for item in row["written"]:
            id = qa_id(item["question"], item["answer"])
            first = written.setdefault(id, item | shared | {"id": id, "calls": []})
            first["calls"] += [call for call in row["calls"] if call not in first["calls"]]
    table = qa_table(written.values(), source="synthetic", teacher=teacher.model)
    table[columns] = pd.DataFrame(list(written.values()), columns=columns, dtype=object)
    return table, failed.drop(columns=["parents", "path"], errors="ignore")


def read_questions(content: str) -> list[dict]:
    """Parse the questions in a teacher's reply; ValueError, worded for the model, if they can't be read."""
    items = prompts.read_json(content, "questions", bare_list=True).get("questions")
    if not isinstance(items, list):
        raise ValueError('the JSON object needs a list "questions"')
    kept = []
    for item in items:
        texts = texts_of(item, "question", "answer", "rationale") if isinstance(item, dict) else {}
        if not (texts.get("question") and texts.get("answer")):
            raise ValueError('every entry of "questions" needs a non-empty "question" and "answer"')
        kept.append({name: text for name, text in texts.items() if text})
    return kept


def texts_of(value: dict, *names: str) -> dict[str, str]:
    """The values of a JSON object under `names`, as texts."""
    return {name: prompts.as_text(value.get(name)) for name in names}
