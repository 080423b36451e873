"""Probing: the accuracy of a model by discipline and difficulty, with intervals, to find where it is weak.

BoostQA probes models with annotated QA and finds them weak in STEM and at high difficulty; crossing the two in one
grid, and the margin, are our reading.
"""

import warnings

import pandas as pd

from qatoolkit.answers.same_answer import same_answer
from qatoolkit.core.prompt_format import as_prompt_and_answer
from qatoolkit.core.qa_table import as_lists, require
from qatoolkit.core.stats import CELL
from qatoolkit.evaluation.cloze import load_model, score
from qatoolkit.evaluation.evaluate import evaluate, no_progress_bars, silence_libraries
from qatoolkit.evaluation.tasks import has_several_answers

UNLABELLED = "unlabelled"
SPARE = 8  # tokens that an open answer may have beyond the longest right one
BATCH = 32  # open questions at a time


def probe(model, table: pd.DataFrame, *, open_answers: bool = False) -> pd.DataFrame:
    """Score an annotated table with a model (directory or name): one row per question with id, language, its labels,
    `correct`, `given` (the answer), `predicted` (its index among the choices), `margin` (nats), `probability` (of the
    right choice among the choices), `chance` (one over the number of choices, 0 for open questions) and `undecided`.

    Rows with several right choices are left out, with a warning. Rows without choices are left out or, with
    `open_answers`, answered greedily in one line and judged by `same_answer`: undecided answers count as wrong and are
    marked `undecided`. ValueError for an empty table, one without a question that can be asked, and missing labels."""
    if table.empty:
        raise ValueError(
            "nothing to probe with: the table has no annotated seeds; for the reasons see run.read('annotate').rejects"
        )
    require("the table to probe with", table, "id", "question", "answer", "language", "choices", "answer_index", *CELL)
    if (several := has_several_answers(table)).any():
        warnings.warn(f"{several.sum():,} questions have several right choices and are not asked", stacklevel=2)
        table = table[~several]
    choice = table["choices"].notna()
    questions = (table if open_answers else table[choice]).reset_index(drop=True)
    if questions.empty:
        raise ValueError("nothing to probe with: no row of the table has choices")
    if questions[CELL].isna().any(axis=None):
        raise ValueError("the probe needs discipline and difficulty in every row: annotate the table first")
    network, tokenizer = load_model(model)
    parts = []
    if choice.any():
        samples = score(network, tokenizer, questions[questions["choices"].notna()].reset_index(drop=True))
        choices = samples["id"].map(questions.set_index("id")["choices"])
        given = [texts[i] for texts, i in zip(choices, samples["predicted"], strict=True)]
        parts.append(samples.assign(given=given, chance=1 / choices.map(len), undecided=False))
    if (open_questions := questions[questions["choices"].isna()]).shape[0]:
        parts.append(_answer_openly(network, tokenizer, open_questions))
    samples = pd.concat(parts, ignore_index=True)
    return questions[["id", "language", *CELL]].merge(samples, on="id", validate="one_to_one")


def _answer_openly(network, tokenizer, table: pd.DataFrame) -> pd.DataFrame:
    """Samples of questions without choices: greedy answers, judged."""
    given = write_answers(network, tokenizer, table)
    same = judge_answers(given, table)
    return pd.DataFrame(
        {
            "id": table["id"].to_numpy(),
            "predicted": pd.array([None] * len(table), dtype="Int64"),
            "correct": [verdict is True for verdict in same],
            "margin": float("nan"),
            "given": given,
            "chance": 0.0,
            "undecided": [verdict is None and bool(text) for verdict, text in zip(same, given, strict=True)],
        }
    )


def judge_answers(given: list[str | None], table: pd.DataFrame) -> list[bool | None]:
    """Whether each answer equals that of its row or one of its aliases, by `same_answer`: None where it can't tell."""
    more = as_lists(table)["aliases"] if "aliases" in table else [()] * len(table)
    rows = zip(given, table["answer"], more, strict=True)
    return [same_answer(text, answer, aliases=aliases or ()) for text, answer, aliases in rows]


def write_answers(network, tokenizer, table: pd.DataFrame, *, seed: int | None = None) -> list[str]:
    """A model's answers to the questions, in one line and at most `SPARE` tokens longer than the longest right answer:
    greedy, or with a `seed` sampled at temperature 1."""
    import torch
    from lm_eval.api.instance import Instance

    from qatoolkit.evaluation.lm_eval_models import CountingHFLM

    silence_libraries()
    lm = CountingHFLM(pretrained=network, tokenizer=tokenizer, batch_size=BATCH)
    parts = [as_prompt_and_answer(row.question, row.answer, row.language) for row in table.itertuples()]
    longest = max(len(lm.tok_encode(answer, add_special_tokens=False)) for _, answer in parts)
    limits = {"until": ["\n"], "max_gen_toks": longest + SPARE, "do_sample": seed is not None}
    limits |= {} if seed is None else {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    requests = [
        Instance(request_type="generate_until", doc={}, arguments=(prompt, limits), idx=0) for prompt, _ in parts
    ]
    with no_progress_bars(), torch.random.fork_rng():
        torch.manual_seed(seed or 0)
        return [reply.strip() for reply in lm.generate_until(requests, disable_tqdm=True)]


def probe_tasks(model, suite, names: list[str] | None = None, **options) -> pd.DataFrame:
    """Probe a model (directory or name) with lm-eval tasks: samples as `evaluate` returns them, for `cells`.

    Discipline and difficulty are taken from the question. If it has none, the discipline is that of the benchmark's
    subject (`seeds.subjects`), else "unlabelled". Takes the suites and options of `evaluate` and raises its errors; the
    default scorer is the fast one. Tasks with a graded metric are left out."""
    samples = evaluate(model, suite, names, **{"scorer": "fast"} | options)
    samples = samples[samples["correct"].notna()].reset_index(drop=True)
    if samples.empty:
        raise ValueError(f"nothing to probe with: no task of suite {suite!r} is scored as right or wrong")
    return fill_labels(samples).assign(correct=samples["correct"].astype(bool))


def fill_labels(table: pd.DataFrame) -> pd.DataFrame:
    """A table with "unlabelled" for an unknown discipline or difficulty."""
    return table.assign(**table[CELL].astype(object).fillna(UNLABELLED))


def only_labelled(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table, such as a grid of cells, whose discipline and difficulty are known."""
    return table[~table[CELL].eq(UNLABELLED).any(axis=1)]
