"""QA tables as ordinary lm-eval tasks: a JSONL and a YAML file each, in one of three forms.

`lm_eval --include_path FOLDER --tasks NAME` runs them as `evaluate` does.
"""

import json
import shutil
import warnings
from pathlib import Path
from string import ascii_uppercase as LETTERS

import pandas as pd

from qatoolkit.core.bounds import check_name
from qatoolkit.core.files import atomic, write_json
from qatoolkit.core.prompt_format import PROMPT
from qatoolkit.core.qa_table import as_lists, validate
from qatoolkit.core.taxonomy import LABELS

FORMS = ("letter", "cloze", "generative")
ENOUGH, ONE_POSITION = 20, 0.8  # questions and their share with the right choice at one position, to warn of it
SHORTEST = 16  # lowest limit of tokens for open answers
METRICS = Path(__file__).with_name("task_metrics.py")  # copied beside cloze tasks
KEPT = ("id", "question", "choices", "answer", "answer_index", *LABELS)
METRIC_LIST = [
    {"metric": metric, "aggregation": "mean", "higher_is_better": metric != "bpb"}
    for metric in ("acc", "acc_norm", "acc_bytes", "bpb")
]
LISTED = "{% for choice in choices %}{{ letters[loop.index0] }}. {{ choice }}\n{% endfor %}"


def export_tasks(
    exams: dict[str, pd.DataFrame],
    folder: Path,
    *,
    form: str | None = None,
    examples: dict[str, pd.DataFrame] | None = None,
) -> Path:
    """Write exams (QA tables of one language each, by task name) as lm-eval tasks; returns the folder.

    `form` "letter" lists the choices as A. B. C. and scores the letters; "cloze" scores the texts of the choices by
    log-likelihood (both `acc`; cloze also `acc_norm` per character, `acc_bytes`, and `bpb`, bits per byte of the right
    choice: `task_metrics`); "generative" lets the model write one line (`exact_match`, ignoring case and outer white
    space) of at most as many tokens as the longest right answer has bytes, or `SHORTEST` if that is more. None means
    cloze if every row has choices, else generative. `examples`, tables by exam name, are shown in few-shot prompts in
    their order, as in MMLU; without them lm-eval draws examples from the other questions of the exam.

    Warns of an exam whose right choice is nearly always at one position (`warn_of_position`). Raises ValueError for a
    table that is not a QA table, an invalid file name, an unknown form, mixed languages, letter
    or cloze without choices or with several right ones, more choices than letters, and a folder with other files in
    it."""
    import yaml

    folder, examples = Path(folder), examples or {}
    if form not in (None, *FORMS):
        raise ValueError(f"unknown form {form!r}; allowed: {', '.join(FORMS)}")
    with atomic(folder, over="tasks.json") as temporary:
        temporary.mkdir(parents=True)
        write_json(sorted(exams), temporary / "tasks.json")
        shutil.copy(METRICS, temporary / METRICS.name)
        for name, table in exams.items():
            check_name(name, "exam")
            table = check_exam(name, table)
            chosen = choose_form(table, form)  # examples have the same form
            if chosen != "generative":
                warn_of_position(name, table)
            files = {"test": (f"{name}.jsonl", table)}
            if name in examples:
                files["examples"] = (f"{name}.examples.jsonl", check_exam(f"{name} (examples)", examples[name]))
            rows = pd.concat([rows for _, rows in files.values()])
            language = _check_language_and_form(name, rows, chosen)
            for file, rows in files.values():
                lines = (json.dumps(row, ensure_ascii=False) for row in _rows(rows, chosen))
                (temporary / file).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            longest = max(len(answer.strip().encode()) for answer in table["answer"])
            paths = {split: str((folder / file).resolve()) for split, (file, _) in files.items()}
            text = yaml.safe_dump(
                _task(name, chosen, language, paths, longest, _aliases(table) is not None),
                sort_keys=False,
                allow_unicode=True,
            )
            text += f"process_results: !function {METRICS.stem}.score_choices\n" if chosen == "cloze" else ""
            (temporary / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def check_exam(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """The QA table with Python lists, and with empty columns for choices if it has none; ValueError if it is not
    one."""
    try:
        table = as_lists(validate(table))
    except ValueError as error:
        raise ValueError(f"exam {name!r}: {error}; read_seeds makes a QA table from raw rows") from None
    return table.assign(**{c: None for c in ("choices", "answer_index") if c not in table})


def choose_form(table: pd.DataFrame, form: str | None) -> str:
    """`form`, or the default for this exam: cloze if every row has choices, else generative."""
    return form or ("cloze" if table["choices"].notna().all() else "generative")


def warn_of_position(name: str, table: pd.DataFrame) -> None:
    """UserWarning if one position holds nearly all right answers of an exam with choices: it can then be passed by
    always choosing this position, without knowledge."""
    right = table.loc[table["choices"].map(lambda choices: choices is not None and len(choices) > 1), "answer_index"]
    shares = right.dropna().value_counts(normalize=True)
    if right.notna().sum() >= ENOUGH and shares.iloc[0] >= ONE_POSITION:
        warnings.warn(
            f"exam {name!r}: choice {int(shares.index[0]) + 1} is the right one in {shares.iloc[0]:.0%} of "
            f"{right.notna().sum():,} questions, which always choosing it gets without knowledge; shuffle the choices",
            stacklevel=3,
        )


def has_several_answers(table: pd.DataFrame) -> pd.Series:
    """A mask of rows with choices and more than one right one, [rows] bool."""
    return table["choices"].notna() & table["answer_index"].isna()


def _check_language_and_form(name: str, table: pd.DataFrame, form: str) -> str:
    """The language of an exam; ValueError if it has several, or can't be asked in this form."""
    languages = table["language"].unique()
    if len(languages) != 1:
        raise ValueError(f"exam {name!r} mixes languages {', '.join(languages)}; export one task per language")
    if languages[0] not in PROMPT:
        raise ValueError(
            f"exam {name!r} is in {languages[0]!r}; prompts exist for {', '.join(PROMPT)} (prompt_format.PROMPT)"
        )
    if form != "generative":
        without = table.loc[table["choices"].isna(), "id"]
        if len(without):
            raise ValueError(
                f"exam {name!r}: {len(without)} rows have no choices, the first is {without.iloc[0]}; form {form!r} "
                "needs them, use form='generative' or leave those rows out"
            )
        if (several := has_several_answers(table)).any():
            ids = ", ".join(table.loc[several, "id"].head(5))
            raise ValueError(
                f"exam {name!r}: {several.sum()} rows have no single right choice (answer_index is empty): {ids}; form "
                f"{form!r} needs one, leave those rows out"
            )
        if form == "letter" and table["choices"].map(len).max() > len(LETTERS):
            raise ValueError(f"exam {name!r} has more than {len(LETTERS)} choices in a row; use form='cloze'")
    return languages[0]


def _rows(table: pd.DataFrame, form: str) -> list[dict]:
    """The rows of an exam for its JSON lines. Every row has the same keys with values of one type, since the reader
    infers types from the first megabytes: a missing label is an empty text, and a column of choices with gaps (only in
    the generative form) is left out."""
    kept = table.reindex(columns=list(KEPT)).assign(answer=table["answer"].str.strip())
    kept = kept.assign(**{label: kept[label].astype(object).fillna("") for label in LABELS}).dropna(axis=1)
    if (aliases := _aliases(table)) is not None:
        kept["answers"] = [[answer, *more] for answer, more in zip(kept["answer"], aliases, strict=True)]
    if "answer_index" in kept:
        kept["answer_index"] = kept["answer_index"].astype(int)
    if form == "letter":
        kept["letters"] = [list(LETTERS[: len(choices)]) for choices in kept["choices"]]
    return kept.to_dict("records")


def _aliases(table: pd.DataFrame) -> list[list[str]] | None:
    """The aliases of every row; None if no row has any."""
    found = as_lists(table)["aliases"] if "aliases" in table else pd.Series(dtype=object)
    return [list(more or ()) for more in found] if found.map(bool).any() else None


def _task(name: str, form: str, language: str, paths: dict[str, str], longest: int, aliases: bool) -> dict:
    """The YAML of a task. `longest`: bytes of the longest answer, which bound its tokens in a byte-level tokenizer.
    With `aliases` every row has a list of right `answers`."""
    prompt, delimiter = PROMPT[language]
    prompt = prompt.format(question="{{question}}")
    if form == "letter":
        question, line, ask = prompt.partition("\n")
        prompt = question + line + LISTED + ask
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": paths},
        "test_split": "test",
        "doc_to_text": prompt,
        "target_delimiter": delimiter,
        "metadata": {"version": 1.0, "form": form},
    }
    if "examples" in paths:
        task |= {"fewshot_split": "examples", "fewshot_config": {"sampler": "first_n"}}
    else:  # set explicitly, so that lm-eval never shows a question among its own examples
        task |= {"fewshot_split": "test"}
    if form == "generative":
        return task | {
            "output_type": "generate_until",
            "doc_to_target": "answers" if aliases else "answer",
            "generation_kwargs": {
                "until": ["\n", "<eos>"],
                "max_gen_toks": max(SHORTEST, longest + 1),
                "do_sample": False,
            },
            "filter_list": [
                {"name": "stripped", "filter": [{"function": f} for f in ("remove_whitespace", "take_first")]}
            ],
            "metric_list": [{"metric": "exact_match", "ignore_case": True}],
        }
    return task | {
        "output_type": "multiple_choice",
        "doc_to_choice": "letters" if form == "letter" else "choices",
        "doc_to_target": "answer_index",
        "metric_list": METRIC_LIST[: None if form == "cloze" else 1],
    }
