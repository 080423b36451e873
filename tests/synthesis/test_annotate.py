"""Annotation of real questions: a teacher that knows only its textbook labels none of them, and none is lost or
changed."""

import pandas as pd
import pytest
from conftest import REAL

from qatoolkit.core.qa_table import validate
from qatoolkit.core.taxonomy import LABELS
from qatoolkit.seeds.read import read_seeds
from qatoolkit.synthesis.annotate import annotate
from qatoolkit.teacher.client import Endpoint, Teacher
from qatoolkit.teacher.ledger import Ledger
from qatoolkit.textbook import exams
from qatoolkit.textbook.server import local_teacher, parts
from qatoolkit.textbook.settings import TextbookSettings

pytestmark = pytest.mark.skipif(
    not (REAL / "aqua.jsonl").exists(), reason=f"no real data in {REAL}; set QATOOLKIT_REAL_DATA"
)
SETTINGS = TextbookSettings(entities=3, entities_zh=2, relations=3)
PER_LANGUAGE = {  # 500 in each, from every source: exam choices, word problems, abstracts, theorems
    "en": {"aqua": 80, "gsm8k_test": 80, "mmlu_redux": 120, "pubmedqa": 60, "theoremqa": 80, "tal_scq5k_en_train": 80},
    "zh": {"gaokao_bench": 170, "cmath": 150, "tal_scq5k_zh_train": 180},
}  # fmt: skip


@pytest.fixture(scope="module")
def real():
    """1,000 real questions, English and Chinese in turns."""
    tables = {}
    for language, counts in PER_LANGUAGE.items():
        picked = []
        for name, n in counts.items():
            table, _ = read_seeds(REAL / f"{name}.jsonl")
            picked.append(table[table["language"] == language].iloc[:: max(1, len(table) // (2 * n))][:n])
        tables[language] = pd.concat(picked, ignore_index=True).drop_duplicates("id")
    pairs = zip(*(table.to_dict("records") for table in tables.values()), strict=True)
    return pd.DataFrame([row for pair in pairs for row in pair])


@pytest.fixture(scope="module")
def textbook():
    books = parts(SETTINGS)
    tables = [exams.seed_questions(books[language], language, 1) for language in ("en", "zh")]
    return pd.concat(tables, ignore_index=True)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("annotate")
    with local_teacher(SETTINGS) as url, Ledger(folder / "ledger.sqlite") as ledger:
        yield Teacher("textbook", endpoint=Endpoint(base_url=url, name="offline"), ledger=ledger)


def same(a: pd.DataFrame, b: pd.DataFrame, columns) -> bool:
    """Whether columns agree byte for byte, nulls with nulls, lists with lists."""

    def plain(value):
        if isinstance(value, str):
            return value.encode("utf-8", "surrogatepass")
        return [plain(v) for v in value] if hasattr(value, "__len__") else None if pd.isna(value) else value

    return all([*map(plain, a[name])] == [*map(plain, b[name])] for name in columns)


def test_the_sample_is_a_thousand_real_questions_in_two_languages(real):
    assert len(real) == real["id"].nunique() == 1000
    assert real["language"].value_counts().to_dict() == {"en": 500, "zh": 500}
    assert real["source"].nunique() >= 8
    assert real[list(LABELS)].isna().all(axis=None)


def test_what_the_teacher_does_not_know_it_refuses_and_no_label_is_invented(real, teacher):
    labelled, rejects = annotate(real, teacher)
    assert labelled.empty
    assert set(LABELS) <= set(labelled)
    assert len(rejects) == len(real) == 1000
    assert set(rejects["reason"]) == {"refusal"}
    assert rejects["detail"].str.contains("OPENAI_BASE_URL").all()
    assert rejects[list(LABELS)].isna().all(axis=None)
    assert same(rejects, real, real.columns)  # the same rows in the same order, every text as it came


def test_exactly_the_textbook_questions_between_real_ones_are_labelled(real, textbook, teacher):
    bare = textbook.assign(discipline=None, difficulty=None, grade=None)
    rows, books = real.to_dict("records"), bare.to_dict("records")
    step = len(rows) // len(books)
    mixed = []
    for place, row in enumerate(rows):
        mixed.append(row)
        if place % step == 0 and books:
            mixed.append(books.pop(0))
    assert not books
    mixed = pd.DataFrame(mixed)
    labelled, rejects = annotate(mixed, teacher)
    assert validate(labelled) is labelled
    assert list(labelled["id"]) == list(textbook["id"])
    for name in LABELS:
        assert list(labelled[name]) == list(textbook[name])
    assert same(rejects, real, real.columns)
    assert set(rejects["reason"]) == {"refusal"}
    assert rejects[list(LABELS)].isna().all(axis=None)
    assert len(labelled) + len(rejects) == len(mixed)
    texts = [name for name in bare if name not in LABELS]
    assert same(labelled, bare, texts)


def test_labels_that_a_source_states_stay_and_cost_nothing():
    import qatoolkit as qt
    from qatoolkit.run.stages.data import label_missing
    from qatoolkit.synthesis.settings import AnnotateSettings

    asked = ["What is the chemical formula of water?", "What is the chemical formula of ammonia?"]
    rows = [{"question": q, "answer": "?", "discipline": "law"} for q in asked]
    rows[0] |= {"difficulty": "H5", "grade": "graduate"}
    table = qt.qa_table([*rows, {"question": asked[0] + " ", "answer": "H2O"}], language="en", source="mine")
    with qt.offline_teacher("textbook") as teacher:
        kept, rejects = label_missing(table, teacher, AnnotateSettings())
        assert rejects.empty
        assert kept["id"].tolist() == table["id"].tolist()
        assert kept["discipline"].tolist() == ["law", "law", "chemistry"]
        assert kept["difficulty"].tolist()[0] == "H5"
        assert kept["difficulty"].notna().all()
        assert [len(calls) for calls in kept["calls"]] == [0, 1, 1]
        everything, _ = label_missing(table, teacher, AnnotateSettings(labels="all"))
    assert everything["discipline"].tolist() == ["chemistry"] * 3
