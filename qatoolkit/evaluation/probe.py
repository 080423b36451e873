"""Probing: where is a model weak? Accuracy by discipline and difficulty, with intervals.

BoostQA probes models with annotated QA and finds them weak in STEM and at high difficulty; crossing the two in one grid
and the margin are our reading.
"""

import pandas as pd

from qatoolkit.answers.same_answer import same_answer
from qatoolkit.core.prompt_format import as_prompt_and_answer
from qatoolkit.core.stats import CELL
from qatoolkit.evaluation.cloze import load_model, score
from qatoolkit.evaluation.evaluate import evaluate

UNLABELLED = "unlabelled"


def probe(model, table: pd.DataFrame, *, open_answers: bool = False) -> pd.DataFrame:
    """Score an annotated table with a model (directory or name): one row per question with its labels, `correct`,
    `margin` (nats) and `chance`, the accuracy of guessing.

    Questions with choices are scored by the likelihood of each answer. Those without are left out, or with
    `open_answers` answered by the model, in one line, and judged by `same_answer` (what can't be told is wrong); their
    `given` has the answer. ValueError for an empty table, a table that leaves nothing to ask, and missing labels."""
    if table.empty:
        raise ValueError(
            "nothing to probe with: the table has no annotated seeds; for the reasons see run.read('annotate').rejects"
        )
    has_choices = table["choices"].notna()
    asked = table if open_answers else table[has_choices]
    if asked.empty:
        raise ValueError("nothing to probe with: no row of the table has choices")
    if asked[CELL].isna().any(axis=None):
        raise ValueError("the probe needs discipline and difficulty in every row: annotate the table first")
    parts, closed = [], table[has_choices].reset_index(drop=True)
    if len(closed):
        samples = score(*load_model(model), closed)
        parts.append(samples.assign(chance=1 / closed["choices"].map(len)))
    if open_answers and not has_choices.all():
        parts.append(answer(model, table[~has_choices].reset_index(drop=True)))
    samples = pd.concat(parts, ignore_index=True)
    return asked[["id", "language", *CELL]].merge(samples, on="id", validate="one_to_one")


def answer(model, table: pd.DataFrame, *, batch: int = 16) -> pd.DataFrame:
    """Let a model answer questions in one line each, greedily: id, given, correct, chance (0). An answer may have twice
    the characters of the longest right one."""
    from lm_eval.api.instance import Instance

    from qatoolkit.evaluation.evaluate import load_lm, no_progress_bars

    most = 16 + table["answer"].map(len).max()  # tokens: at least a character each, so twice as many in most texts
    how = {"until": ["\n"], "max_gen_toks": int(most), "do_sample": False}
    prompts = [as_prompt_and_answer(r.question, "", r.language)[0] for r in table.itertuples()]
    requests = [
        Instance(request_type="generate_until", doc={}, arguments=(prompt, how), idx=i)
        for i, prompt in enumerate(prompts)
    ]
    with no_progress_bars():
        given = load_lm(model, "hf", batch, "float32").generate_until(requests, disable_tqdm=True)
    given = [text.strip() for text in given]
    right = [bool(same_answer(a, b)) for a, b in zip(given, table["answer"], strict=True)]
    return pd.DataFrame({"id": table["id"], "given": given, "correct": right, "chance": 0.0})


def probe_tasks(model, suite, names: list[str] | None = None, **options) -> pd.DataFrame:
    """Probe a model (directory or name) with lm-eval tasks: samples as `evaluate` returns them, for `cells`.

    Discipline and difficulty are the question's own if it has them. Otherwise the discipline is that of the benchmark's
    subject (`seeds.subjects`), or "unlabelled". Takes `evaluate`'s suites and options and raises its errors; the
    default scorer is the fast one. Tasks with a graded metric are left out."""
    samples = evaluate(model, suite, names, **{"scorer": "fast"} | options)
    samples = samples[samples["correct"].notna()].reset_index(drop=True)
    if samples.empty:
        raise ValueError(f"nothing to probe with: no task of suite {suite!r} is scored as right or wrong")
    labels = samples[CELL].astype(object).fillna(UNLABELLED)
    return samples.assign(**labels, correct=samples["correct"].astype(bool))
