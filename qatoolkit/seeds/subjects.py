"""The discipline of each task of MMLU, CMMLU, C-Eval, MMLU-Pro and AGIEval, by lm-eval's task names.

`maps/<benchmark>.csv` has task, subject and discipline for the tasks of lm-eval 0.4.13. As in the annotate prompt, a
task belongs to the discipline whose knowledge its questions need most. Our reading where no discipline in
`taxonomy.DISCIPLINES` has the subject's name:

- psychology, ageing, sexuality, nutrition, sports science, veterinary medicine and everyday health and safety
  (elementary_commonsense): medicine, as are anatomy (STEM in lm-eval), virology and medical genetics;
- politics, security, the civil service and traffic rules: law; but foreign policy, which is asked as events: history;
- sociology, education, religion, Marxist theory, ethics and logic (with LogiQA and LSAT reasoning): philosophy;
- business, accounting, management, public relations and MMLU-Pro's "other": economics;
- econometrics and actuarial science: statistics; agronomy and plant protection: biology;
  food science, hydrology and planning: engineering;
- peoples, customs and facts of the world (ethnology, food culture, tour guides, global_facts): geography;
- school Chinese, journalism and reading in the native language (SAT, LSAT): literature; Chinese language and English
  for Chinese pupils: linguistics; MMLU's miscellaneous, mostly general culture: arts.
"""

import csv
from functools import cache
from pathlib import Path

import pandas as pd

from qatoolkit.seeds.choices import simplify

BENCHMARKS = ("mmlu", "cmmlu", "ceval", "mmlu_pro", "agieval")


@cache
def rows(benchmark: str) -> tuple[dict[str, str], ...]:
    """One row per task: task, subject, discipline. ValueError for a benchmark without a map."""
    if benchmark not in BENCHMARKS:
        raise ValueError(
            f"no subject map for {benchmark!r}; pass one of {', '.join(BENCHMARKS)} (qatoolkit/seeds/maps)"
        )
    path = Path(__file__).parent / "maps" / f"{benchmark}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


@cache
def discipline_of(task: str) -> str | None:
    """The discipline id of a task of any of the benchmarks; None for other tasks and for whole benchmarks."""
    found = (row["discipline"] for name in BENCHMARKS for row in rows(name) if row["task"] == task)
    return next(found, None)


@cache
def _by_subject(benchmark: str) -> dict[str, str]:
    prefix = "ceval-valid_" if benchmark == "ceval" else f"{benchmark}_"
    return {
        simplify(name): row["discipline"]
        for row in rows(benchmark)
        for name in (row["task"], row["task"].removeprefix(prefix), row["subject"])
    }


def with_disciplines(table: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """The table with the benchmark's discipline filled in for rows that have none and whose `subject` is in its map.

    A subject may be written as the task (mmlu_college_physics), without the benchmark's name (college_physics) or as in
    the map (College physics); case, spaces and punctuation are ignored. Other rows do not change. If another source
    uses the same words in another sense, pass the rows of one source at a time. ValueError for a benchmark without a
    map and for a table without the column `subject`, which `read_seeds` fills.

    >>> import qatoolkit as qt
    >>> table, rejects = qt.read_seeds([{"question": "2 + 2 = ?", "answer": "4", "subject": "College mathematics"}])
    >>> qt.seeds.with_disciplines(table, "mmlu")["discipline"].tolist()
    ['mathematics']
    """
    known = _by_subject(benchmark)
    if "subject" not in table:
        raise ValueError(f"no column 'subject' to look up in the map of {benchmark}; pass a table of read_seeds")
    found = [None if pd.isna(subject) else known.get(simplify(subject)) for subject in table["subject"]]
    given = table["discipline"] if "discipline" in table else [None] * len(table)
    disciplines = [new if pd.isna(old) else old for old, new in zip(given, found, strict=True)]
    return table.assign(discipline=pd.Series(disciplines, index=table.index, dtype=object))
