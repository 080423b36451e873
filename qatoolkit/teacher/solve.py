"""Fresh answers to questions: several draws of the prompt `solve` for each, which vote on a dispute or give a pass rate."""

import pandas as pd

from qatoolkit.teacher import prompts
from qatoolkit.teacher.calls import stop_if_interrupted
from qatoolkit.teacher.client import Teacher


def requests(table: pd.DataFrame, draws: range) -> list[list[dict]]:
    """The chat messages that `solve` sends, one for each row and draw: the question, its choices where there are any, and
    the number of the draw, without which a cache would repeat its answer."""
    choices = table["choices"] if "choices" in table else [None] * len(table)
    return [
        prompts.messages("solve", row.language, question=row.question, **_shown(some), draw=draw)
        for row, some in zip(table.itertuples(), choices, strict=True)
        for draw in draws
    ]


def _shown(choices) -> dict:
    return {"choices": list(choices)} if hasattr(choices, "__len__") and len(choices) else {}


def solve(table: pd.DataFrame, teacher: Teacher, draws: range) -> pd.DataFrame:
    """What a teacher answers to every question of a QA table in each of some draws, as `Teacher.ask` returns it: rows by
    question, then draw, with the answer in `value`. KeyboardInterrupt where Ctrl-C cut the answers short."""
    said = teacher.ask(requests(table, draws), parse=read_answer, label="solve")
    stop_if_interrupted(said)
    answers = [value and value["answer"] for value in said["value"]]
    return said.assign(value=pd.Series(answers, index=said.index, dtype=object))


def read_answer(content: str) -> dict:
    """Answer and rationale of a reply; ValueError, worded for the model, where there is no answer."""
    value = prompts.read_json(content, "answer")
    texts = {name: prompts.as_text(value.get(name)) for name in ("answer", "rationale")}
    if not texts["answer"]:
        raise ValueError('the JSON object needs a non-empty "answer"')
    return texts
