"""The questions of lm-eval tasks as QA tables, for decontamination and display."""

import os
from string import ascii_uppercase as LETTERS

import pandas as pd

from qatoolkit.core.qa_table import qa_table
from qatoolkit.core.taxonomy import LABELS
from qatoolkit.evaluation.evaluate import TasksUnavailable, describe_failure, load_task, plan_tasks, silence_libraries
from qatoolkit.evaluation.samples import is_exported, sample_id
from qatoolkit.evaluation.suites import Suite
from qatoolkit.seeds.choices import Fault
from qatoolkit.seeds.columns import detect_language
from qatoolkit.seeds.subjects import discipline_of

NOTHING = "(none)"  # replaces an empty question or answer, which a QA table can't have


def task_tables(suite: Suite, *, limit: int | None = None) -> dict[str, pd.DataFrame]:
    """The questions of every single task of a suite (`resolve_suite`) as a QA table, by task name; `limit` takes the
    first of each task. No model is needed.

    `question` is the prompt without examples, `id` that of the sample in `evaluate`, `source` the task, and the
    discipline that of its subject if known (`seeds.subjects`). Multiple-choice tasks have choices and answer_index; if
    several are right, `answer` has their letters and answer_index is null, as in `read_seeds`. If the choices are
    contexts before a common ending (Winogrande), the question is their common beginning, a blank and the ending, and
    the choices fill the blank. Other tasks have their target as answer, the first of several; a perplexity task has its
    text as question and answer. Exported exams keep their columns. Missing text is "(none)". The language is guessed by
    script, English for those that a QA table can't have.

    Raises TasksUnavailable, naming the tasks, if data can't be loaded, and the other errors of `evaluate`."""
    silence_libraries()
    tables, failed, manager = {}, [], suite.manager()
    for planned in plan_tasks(suite, manager, {}, fewshot=None, limit=limit):
        try:
            task = load_task(manager, planned)
        except Exception as error:  # from lm-eval, datasets, the hub, or the task's own code
            failed.append(describe_failure(planned, error))
            continue
        rows = [_row(task, number, doc) for number, doc in task.doc_iterator(limit=limit)]
        tables[planned.name] = qa_table(rows, source=planned.name)
    if failed:
        raise TasksUnavailable(
            f"{len(failed)} tasks of suite {suite.name!r} could not be loaded, so their questions are unknown "
            f"({'; '.join(failed)}). Data sets come from the Hugging Face Hub: run once where it can be reached "
            "(HF_HUB_OFFLINE unset; HF_TOKEN for gated ones), copy its cache ($HF_HOME) here, or leave the tasks out"
        )
    return tables


def _row(task, number: int, doc: dict) -> dict:
    if is_exported(task):
        row = {k: doc.get(k) for k in ("question", "answer", "choices", "answer_index")}
        row |= {k: doc.get(k) or None for k in LABELS} | {"aliases": (doc.get("answers") or [])[1:] or None}
    else:
        row = _read_doc(task, doc) | {"discipline": discipline_of(task.task_name)}
        row |= {k: row[k] if row[k].strip() else NOTHING for k in ("question", "answer")}
    try:
        language = detect_language(" ".join((row["question"], *(row["choices"] or ()))))
    except Fault:
        language = "en"
    return row | {"id": sample_id(task, number, doc), "language": language}


def _read_doc(task, doc: dict) -> dict:
    """Question, answer, choices and answer_index of a document."""
    target = task.doc_to_target(doc)
    if task.config.doc_to_choice is None:
        targets = target if isinstance(target, list) else [target]
        answer = str(next((t for t in targets if str(t).strip()), ""))
        rolling = task.OUTPUT_TYPE == "loglikelihood_rolling"
        question = answer if rolling else str(task.doc_to_text(doc))
        return {"question": question, "answer": answer, "choices": None, "answer_index": None}
    question, choices, right = task.doc_to_text(doc), [str(c) for c in task.doc_to_choice(doc)], target
    if task.multiple_input:
        right, start = question, os.path.commonprefix(choices)  # noqa: RUF071 (of texts)
        start = start[: start.rfind(" ") + 1]
        question, choices = f"{start}_ {target}", [choice[len(start) :] for choice in choices]
    right = [choices.index(r) if r in choices else r for r in (right if isinstance(right, list) else [right])]
    right = sorted({r for r in right if isinstance(r, int) and 0 <= r < len(choices)})  # none if it is not published
    one = right[0] if len(right) == 1 else None
    answer = choices[one] if one is not None else "".join(LETTERS[r : r + 1] for r in right)
    return {"question": str(question), "answer": answer, "choices": choices, "answer_index": one}
