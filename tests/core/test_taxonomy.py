"""Disciplines, rubrics and subject maps hold together, and the maps cover lm-eval's tasks exactly."""

import csv
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import ROOT

from qatoolkit.core.taxonomy import DIFFICULTIES, DISCIPLINES, GRADE_RUBRIC, GRADES, RUBRIC
from qatoolkit.seeds import subjects
from qatoolkit.teacher import prompts

GROUPS = {  # benchmark: lm-eval's folder, and its group there
    "mmlu": ("mmlu/default", "mmlu"),
    "cmmlu": ("cmmlu", "cmmlu"),
    "ceval": ("ceval", "ceval-valid"),
    "mmlu_pro": ("mmlu_pro", "mmlu_pro"),
    "agieval": ("agieval", "agieval"),
}


class _Loader(yaml.SafeLoader):
    """Reads lm-eval's task files without running the functions they name."""


_Loader.add_multi_constructor("!function", lambda loader, suffix, node: None)


def lm_eval_tasks(folder, group):
    """The leaf tasks of a group in the installed lm-eval: groups opened, and tags replaced by the tasks that bear them."""
    found = find_spec("lm_eval")
    if found is None:
        pytest.skip("lm-eval is not installed")
    files = (Path(found.origin).parent / "tasks" / folder).glob("*.yaml")
    read = [yaml.load(path.read_text(encoding="utf-8"), _Loader) for path in files]
    members, leaves = {}, set()
    for content in read:
        if "group" in content:
            members.setdefault(content["group"], []).extend(content["task"])
        elif "task" in content:
            leaves.add(content["task"])
            tags = content.get("tag", [])
            for tag in [tags] if isinstance(tags, str) else tags:
                members.setdefault(tag, []).append(content["task"])

    def opened(name):
        return {name} if name in leaves else {task for part in members[name] for task in opened(part)}

    return opened(group)


@pytest.mark.parametrize("benchmark", subjects.BENCHMARKS)
def test_a_subject_map_covers_the_tasks_of_the_installed_lm_eval_exactly(benchmark):
    tasks = lm_eval_tasks(*GROUPS[benchmark])
    mapped = {row["task"] for row in subjects.rows(benchmark)}
    assert not tasks - mapped, "tasks of lm-eval without a discipline"
    assert not mapped - tasks, "tasks that lm-eval does not have"


def test_the_number_of_tasks_is_the_number_that_the_benchmarks_report():
    counts = {name: len(subjects.rows(name)) for name in subjects.BENCHMARKS}
    assert counts == {"mmlu": 57, "cmmlu": 67, "ceval": 52, "mmlu_pro": 14, "agieval": 21}


def test_every_task_is_mapped_once_to_a_known_discipline_and_has_a_readable_subject():
    every = [row for name in subjects.BENCHMARKS for row in subjects.rows(name)]
    assert len({row["task"] for row in every}) == len(every)
    assert {row["discipline"] for row in every} <= set(DISCIPLINES)
    for row in every:
        assert set(row) == {"task", "subject", "discipline"}
        assert row["subject"] == row["subject"].strip()
        assert row["subject"][0].isupper()
        assert "_" not in row["subject"]


def test_the_same_subject_has_the_same_discipline_in_every_benchmark():
    seen = {}
    for name in subjects.BENCHMARKS:
        for row in subjects.rows(name):
            assert seen.setdefault(row["subject"], row["discipline"]) == row["discipline"], row


def test_a_task_is_found_without_naming_its_benchmark():
    assert subjects.discipline_of("mmlu_abstract_algebra") == "mathematics"
    assert subjects.discipline_of("ceval-valid_accountant") == "economics"
    assert subjects.discipline_of("mmlu") is None
    assert subjects.discipline_of("no_such_task") is None


def test_an_unknown_benchmark_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'gsm8k'; pass one of mmlu, cmmlu, ceval, mmlu_pro, agieval"):
        subjects.rows("gsm8k")


def test_every_map_is_shipped_with_the_package():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    package = ROOT / "qatoolkit"
    shipped = {path for pattern in patterns["qatoolkit"] for path in package.glob(pattern)}
    maps = set((package / "seeds" / "maps").iterdir())
    assert {path.stem for path in maps} == set(subjects.BENCHMARKS)
    assert maps <= shipped


@pytest.mark.parametrize("path", sorted((ROOT / "qatoolkit" / "seeds" / "maps").glob("*.csv")), ids=lambda p: p.stem)
def test_a_subject_map_is_sorted_and_has_no_blank_cell(path):
    with path.open(encoding="utf-8", newline="") as file:
        cells = list(csv.reader(file))
    assert cells[0] == ["task", "subject", "discipline"]
    assert cells[1:] == sorted(cells[1:])
    assert all(len(row) == 3 and all(row) for row in cells)


def test_both_rubrics_have_a_text_for_each_level_in_both_languages():
    assert tuple(RUBRIC) == DIFFICULTIES
    assert tuple(GRADE_RUBRIC) == tuple(GRADES)
    for rubric in (RUBRIC, GRADE_RUBRIC):
        for language in ("en", "zh"):
            texts = [text[language].strip() for text in rubric.values()]
            assert all(texts)
            assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_annotate_prompt_states_every_discipline_level_and_grade(language):
    text = prompts.template("annotate", language)
    assert text.startswith(f"Task: annotate, version {prompts.VERSIONS['annotate']}.")
    assert all(discipline in text for discipline in DISCIPLINES)
    for rubric in (RUBRIC, GRADE_RUBRIC):
        for level, words in rubric.items():
            assert f"- {level}" in text
            assert words[language] in text


@pytest.mark.parametrize("name", prompts.VERSIONS)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_prompt_names_its_own_task_and_version(name, language):
    assert prompts.template(name, language).startswith(f"Task: {name}, version {prompts.VERSIONS[name]}.")


def test_a_source_s_subject_gives_the_discipline_of_its_map_and_no_row_loses_one():
    table = pd.DataFrame(
        {
            "subject": ["college_physics", "College Physics", "mmlu_college_physics", "physics club", None, "virology"],
            "discipline": [None, None, None, None, None, "biology"],
        },
        index=[3, 1, 4, 1, 5, 9],
    )
    found = subjects.with_disciplines(table, "mmlu")
    assert found["discipline"].tolist() == ["physics", "physics", "physics", None, None, "biology"]
    assert found.index.tolist() == table.index.tolist()
    assert table["discipline"].isna().sum() == 5


@pytest.mark.parametrize("benchmark", subjects.BENCHMARKS)
def test_every_way_to_write_a_subject_of_a_benchmark_finds_its_own_discipline(benchmark):
    own = subjects.rows(benchmark)
    for written in ("task", "subject"):
        found = subjects.with_disciplines(pd.DataFrame({"subject": [row[written] for row in own]}), benchmark)
        assert found["discipline"].tolist() == [row["discipline"] for row in own]


def test_a_table_without_subjects_is_told_where_they_come_from():
    with pytest.raises(ValueError, match=r"no column 'subject'.*read_seeds"):
        subjects.with_disciplines(pd.DataFrame({"question": ["?"]}), "mmlu")
