"""Fresh answers to questions: several draws of the prompt `solve` per question, to settle a dispute by vote or measure
a pass rate."""

import pandas as pd

from qatoolkit.teacher import prompts
from qatoolkit.teacher.calls import stop_if_interrupted
from qatoolkit.teacher.client import Teacher


def requests(table: pd.DataFrame, draws: range) -> list[list[dict]]:
    """The chat messages that `solve` sends, one list per row and draw: the question, any choices, and the number of the
    draw, without which a cache would repeat its answer."""
    choices = table["choices"] if "choices" in table else [None] * len(table)
    return [
        prompts.messages("solve", row.language, question=row.question, **_as_field(row_choices), draw=draw)
        for row, row_choices in zip(table.itertuples(), choices, strict=True)
        for draw in draws
    ]


def _as_field(choices) -> dict:
    return {"choices": list(choices)} if hasattr(choices, "__len__") and len(choices) else {}


def solve(table: pd.DataFrame, teacher: Teacher, draws: range) -> pd.DataFrame:
    """A teacher's answers to every question of a QA table, one per draw, as `Teacher.ask` returns them: rows ordered by
    question, then draw, with the answer in `value`. KeyboardInterrupt if Ctrl-C stopped it early."""
    replies = teacher.ask(requests(table, draws), parse=read_answer, label="solve")
    stop_if_interrupted(replies)
    answers = [value and value["answer"] for value in replies["value"]]
    return replies.assign(value=pd.Series(answers, index=replies.index, dtype=object))


def read_answer(content: str) -> dict:
    """Answer and rationale of a reply; ValueError, worded for the model, if there is no answer."""
    value = prompts.read_json(content, "answer")
    texts = {name: prompts.as_text(value.get(name)) for name in ("answer", "rationale")}
    if not texts["answer"]:
        raise ValueError('the JSON object needs a non-empty "answer"')
    return texts
