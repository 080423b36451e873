"""Exams of one's own: mixtures, lm-eval tasks as tables, open answers, splits, general text; on tiny real models."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from qatoolkit.core import stats
from qatoolkit.core.prompt_format import as_document
from qatoolkit.core.qa_table import qa_table
from qatoolkit.evaluation.bits import bits_difference, bits_per_byte, mean_bits_per_byte
from qatoolkit.evaluation.cloze import load_model, score
from qatoolkit.evaluation.evaluate import TasksUnavailable, evaluate
from qatoolkit.evaluation.exams import Exam, evaluate_exams, split_exam
from qatoolkit.evaluation.probe import probe
from qatoolkit.evaluation.suites import resolve_suite
from qatoolkit.evaluation.task_tables import task_tables
from qatoolkit.synthesis.budget import plan_budget
from qatoolkit.synthesis.settings import PlanSettings
from qatoolkit.training import ladder
from qatoolkit.training.tokens import train_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

LONG = "the old grey harbour town behind the seven northern lighthouses of the western coast"
FACTS = {
    "What is the capital of France?": "Paris",
    "What is the capital of Peru?": "Lima",
    "How many legs has a spider?": "8",
    "Where does the ferry end?": LONG,
}
LABELS = {"language": "en", "source": "facts", "discipline": "geography", "difficulty": "H1"}


def facts(**more):
    return qa_table([{"question": q, "answer": a} | more for q, a in FACTS.items()], **LABELS)


def choices(extra=()):
    rows = [
        {"question": q, "answer": a, "choices": [a, *(w for w in ("Rome", "9") if w != a), *extra], "answer_index": 0}
        for q, a in FACTS.items()
    ]
    return qa_table(rows, **LABELS)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model that has learnt the facts by heart."""
    folder = tmp_path_factory.mktemp("model")
    documents = [as_document(q, a, "en") for q, a in FACTS.items()]
    tokenizer = train_tokenizer(documents, 300)
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(ladder.llama_config(ladder.size_of("xxs"), len(tokenizer), 256))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    tokenizer.padding_side = "right"
    batch = tokenizer([d + tokenizer.eos_token for d in documents], padding=True, return_tensors="pt")
    batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    for _ in range(80):
        network(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def closing(model, tmp_path_factory):
    """The same weights under a tokenizer that puts its end token after every text."""
    folder = tmp_path_factory.mktemp("closing")
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(model)
    end = (tokenizer.eos_token, tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"$A {end[0]}", special_tokens=[end])
    tokenizer.save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder)("a")["input_ids"][-1] == end[1]
    return folder


def written(folder, name, rows, **task):
    """A task YAML of somebody else, on a data file beside it."""
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test",
        "metadata": {"version": 1.0},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config | task))


@pytest.fixture
def others(tmp_path):
    """A folder of four tasks: choices, open answers, choices in the context as in Winogrande, general text."""
    folder = tmp_path / "others"
    folder.mkdir()
    picked = [{"q": f"{i} + 1?", "opts": [str(i + 1), "many"], "gold": i % 2} for i in range(5)]
    written(
        folder, "mmlu_college_physics", [*picked, {"q": "二加一等于几？", "opts": ["三", "四"], "gold": 0}],
        output_type="multiple_choice", doc_to_text="{{q}}", doc_to_choice="opts", doc_to_target="gold",
        metric_list=[{"metric": "acc"}, {"metric": "acc_norm"}],
    )  # fmt: skip
    written(
        folder, "spoken", [{"q": "Say 1.", "a": ["one", "1"]}, {"q": "Say nothing.", "a": [""]}],
        output_type="generate_until", doc_to_text="{{q}}", doc_to_target="{{a}}",
        generation_kwargs={"until": ["\n"], "max_gen_toks": 4}, metric_list=[{"metric": "exact_match"}],
    )  # fmt: skip
    written(
        folder, "blanks", [{"c": ["Tom met Sarah", "Tom met Sam"], "i": 1, "end": "who was late."}],
        output_type="multiple_choice", doc_to_text="{{i}}", doc_to_choice="c", doc_to_target="end",
        metric_list=[{"metric": "acc"}],
    )  # fmt: skip
    written(
        folder, "prose", [{"text": as_document(q, a, "en") * 9} for q, a in FACTS.items()],
        output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{text}}",
        metric_list=[{"metric": "bits_per_byte"}],
    )  # fmt: skip
    return folder


def test_tasks_are_qa_tables_with_the_ids_of_their_samples(model, others, tmp_path):
    suite = resolve_suite(others, tmp_path)
    tables = task_tables(suite)
    samples = evaluate(model, suite)
    assert samples.groupby("task")["id"].agg(list).to_dict() == {name: t["id"].tolist() for name, t in tables.items()}
    physics = tables["mmlu_college_physics"]
    assert physics["question"].tolist()[0] == "0 + 1?"
    assert physics["choices"].tolist()[1] == ["2", "many"]
    assert physics["answer"].tolist() == ["1", "many", "3", "many", "5", "三"]
    assert physics["language"].tolist() == ["en"] * 5 + ["zh"]
    assert set(physics["source"]) == {"mmlu_college_physics"}
    assert set(physics["discipline"]) == {"physics"}
    assert tables["spoken"]["answer"].tolist() == ["one", "(none)"]
    [blank] = tables["blanks"].to_dict("records")
    assert (blank["question"], blank["choices"], blank["answer_index"]) == (
        "Tom met _ who was late.", ["Sarah", "Sam"], 1,
    )  # fmt: skip
    assert tables["prose"]["question"].iloc[0] == as_document(*next(iter(FACTS.items())), "en") * 9
    assert {name: len(table) for name, table in task_tables(suite, limit=2).items()} == {
        "blanks": 1, "mmlu_college_physics": 2, "prose": 2, "spoken": 2,
    }  # fmt: skip


def test_an_exported_exam_is_the_table_it_was_written_from(tmp_path):
    [(_, table)] = task_tables(resolve_suite({"mine": choices()}, tmp_path, form="letter")).items()
    for column in ("id", "question", "answer", "choices", "answer_index", "discipline", "difficulty", "language"):
        assert table[column].tolist() == choices()[column].tolist()


def test_tasks_without_data_are_named_with_what_to_do(others, tmp_path):
    written(others, "gone", [], dataset_path=str(tmp_path / "none"), dataset_kwargs={})
    with pytest.raises(TasksUnavailable, match=r"1 tasks of suite 'others'.*\(gone: .*HF_HUB_OFFLINE"):
        task_tables(resolve_suite(others, tmp_path))


def test_a_mixture_of_exams_is_evaluated_under_the_user_s_names(model, others, tmp_path):
    exams = [
        Exam(name="mine", table=choices(), form="letter"),
        Exam(name="spoken", table=facts()),
        Exam(name="some", suite=str(others), limit=2),
        Exam(
            name="physics", suite=resolve_suite(others, tmp_path, names=["mmlu_college_physics"]), fewshot=1,
            metric="acc_norm", keep=frozenset({"mmlu_college_physics/3", "mmlu_college_physics/5"}),
        ),
    ]  # fmt: skip
    samples = evaluate_exams(model, exams, workplace=tmp_path / "w", folder=tmp_path / "e")
    columns = list(samples.columns)
    assert columns.index("exam") + 1 == columns.index("task")
    assert samples["exam"].value_counts().to_dict() == {"mine": 4, "spoken": 4, "some": 7, "physics": 2}
    physics = samples[samples["exam"] == "physics"]
    assert (set(physics["metric"]), set(physics["fewshot"])) == ({"acc_norm"}, {1})
    assert set(physics["id"]) == exams[3].keep
    tasks = {(t["exam"], t["task"]): t for t in samples.attrs["evaluation"]["tasks"]}
    assert len(tasks) == 7
    assert tasks["physics", "mmlu_college_physics"]["n"] == 2
    assert tasks["physics", "mmlu_college_physics"]["score"] == physics["score"].mean()
    assert tasks["mine", "mine"]["form"] == "letter"
    assert samples.loc[samples["task"] == "prose", "correct"].isna().all()  # graded
    assert samples.loc[samples["exam"] == "spoken", "correct"].all()
    assert samples.groupby("task")["chance"].first()[["blanks", "mine", "spoken"]].tolist() == [1 / 2, 1 / 3, 0]
    again = evaluate_exams(model, exams, workplace=tmp_path / "w", folder=tmp_path / "e", log=pytest.fail)
    pd.testing.assert_frame_equal(again, samples)
    assert evaluate(model, tmp_path / "w", ["mine"])["score"].tolist() == samples["score"].head(4).tolist()


def test_exams_that_cannot_be_are_refused(model, others, tmp_path):
    physics = resolve_suite(others, tmp_path, names=["mmlu_college_physics"])
    for exams, message in (
        ([Exam(name="a", table=facts()), Exam(name="a", table=facts())], "two exams are called 'a'"),
        ([], "no exam to evaluate on"),
        ([Exam(name="a", suite=physics, metric="f1")], "exam 'a' has no metric 'f1'; its tasks have acc, acc_norm"),
        ([Exam(name="a", suite=physics, keep=frozenset({"b"}))], "exam 'a': none of the 1 ids to keep"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_exams(model, exams, workplace=tmp_path / "w", folder=tmp_path / "e")
    for wrong, message in (
        ({"name": "../a", "table": facts()}, "becomes a folder"),
        ({"name": "a"}, "either a QA table or a suite"),
        ({"name": "a", "table": facts(), "limit": 0}, "limit is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            Exam(**wrong)
    with pytest.raises(ValueError, match="becomes a file name"):
        resolve_suite({"../a": facts()}, tmp_path)


def test_an_exam_without_data_does_not_stop_the_others(model, others, tmp_path):
    written(others, "gone", [], dataset_path=str(tmp_path / "none"), dataset_kwargs={})
    exams = [Exam(name="some", suite=others), Exam(name="mine", table=facts())]
    with pytest.raises(TasksUnavailable, match=r"some: 1 of .*\(gone: ") as caught:
        evaluate_exams(model, exams, workplace=tmp_path / "w")
    assert set(caught.value.samples["exam"]) == {"some", "mine"}


def test_open_answers_count_without_outer_space_and_in_full_length(model):
    samples = evaluate(model, {"open": facts()})
    assert samples["given"].tolist() == list(FACTS.values())
    assert samples["correct"].all()
    assert samples.attrs["evaluation"]["tasks"][0]["unfinished"] == 0


def test_replies_that_reach_their_limit_are_counted_and_told(model, tmp_path):
    said = []
    rambling = facts().assign(question="The ferry. Where does the ferry end? Where does", answer=["x", "y", "z", "w"])
    samples = evaluate(model, {"open": rambling}, folder=tmp_path, log=said.append)
    [task] = samples.attrs["evaluation"]["tasks"]
    assert task["unfinished"] == 4
    assert "4 replies reached their limit of tokens" in said[-1]


def test_an_answer_longer_than_the_context_leaves_room_for_the_prompt(model):
    book = qa_table([{"question": "Recite it all.", "answer": "word " * 300}], **LABELS)
    samples = evaluate(model, {"open": pd.concat([facts(), book], ignore_index=True)})
    assert samples["correct"].tolist() == [True] * 4 + [False]


@pytest.mark.parametrize("scorer", ["hf", "fast"])
def test_a_tokenizer_that_closes_its_texts_gives_the_same_scores(model, closing, scorer):
    for form in ("cloze", "letter", "generative"):
        wanted, found = (evaluate(m, {"mine": choices()}, form=form, scorer=scorer) for m in (model, closing))
        assert found["given"].tolist() == wanted["given"].tolist()
        np.testing.assert_allclose(found["margin"], wanted["margin"], atol=1e-4)
    both = pd.concat([choices(), facts()], ignore_index=True)
    wanted, found = (probe(m, both, open_answers=True) for m in (model, closing))
    pd.testing.assert_frame_equal(found, wanted, atol=1e-4)
    assert mean_bits_per_byte(bits_per_byte(closing, list(FACTS))) == pytest.approx(
        mean_bits_per_byte(bits_per_byte(model, list(FACTS)))
    )


@pytest.mark.parametrize("scorer", ["hf", "fast"])
def test_a_choice_longer_than_the_context_costs_its_own_question_only(model, tmp_path, scorer):
    said, table = [], choices()
    long = choices(extra=["word " * 300]).iloc[[1]]
    table = pd.concat([table.iloc[[0]], long, table.iloc[2:]], ignore_index=True)
    samples = evaluate(model, {"mine": table}, scorer=scorer, folder=tmp_path, log=said.append)
    [task] = samples.attrs["evaluation"]["tasks"]
    assert task["not_asked"] == [long["id"].iloc[0]]
    assert samples["id"].tolist() == table["id"].drop(1).tolist()
    assert samples["correct"].all()
    assert said[-1].endswith(f"longer than the model's context: {long['id'].iloc[0]}")
    with pytest.warns(UserWarning, match=f"1 of 4 questions are not asked.*{long['id'].iloc[0]}"):
        assert probe(model, table)["id"].tolist() == samples["id"].tolist()
    with pytest.raises(ValueError, match="'mine': every question has a choice that is longer"):
        evaluate(model, {"mine": long}, scorer=scorer)


def test_a_probe_answers_open_questions_on_request(model):
    wrong = qa_table([{"question": "How many legs has a spider?", "answer": "7"}], **LABELS)
    table = pd.concat([choices(), facts().iloc[:3], wrong], ignore_index=True)
    samples = probe(model, table, open_answers=True)
    assert samples["id"].tolist() == table["id"].tolist()
    assert samples["correct"].tolist() == [True] * 7 + [False]
    assert samples["given"].tolist() == [*FACTS.values(), "Paris", "Lima", "8", "8"]
    assert samples["margin"].isna().tolist() == [False] * 4 + [True] * 4
    assert samples["predicted"].isna().tolist() == [False] * 4 + [True] * 4
    assert samples["chance"].tolist() == [1 / 3] * 4 + [0] * 4
    assert not samples["undecided"].any()
    assert stats.cells(samples)["chance"].item() == pytest.approx(1 / 6)
    assert probe(model, table)["id"].tolist() == table["id"].head(4).tolist()
    assert probe(model, facts(), open_answers=True)["correct"].all()


def test_a_question_with_several_right_choices_is_left_out_of_a_probe_and_told(model):
    several = choices().iloc[:1].assign(id="several", answer="AB", answer_index=pd.NA)
    table = pd.concat([choices(), several], ignore_index=True).astype({"answer_index": "Int64"})
    with pytest.warns(UserWarning, match="1 questions have several right choices"):
        samples = probe(model, table, open_answers=True)
    assert samples["id"].tolist() == choices()["id"].tolist()
    with pytest.raises(ValueError, match="no single right choice"):
        score(*load_model(model), table)


def test_bits_per_byte_are_lm_eval_s_own(model, others):
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    texts = [as_document(q, a, "en") * 9 for q, a in FACTS.items()]
    rows = bits_per_byte(model, texts)
    assert rows["bytes"].tolist() == [len(text.encode()) for text in texts]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    manager = TaskManager(include_path=str(others), include_defaults=False)
    theirs = lm_eval.simple_evaluate(
        HFLM(pretrained=str(model), dtype="float32", batch_size=1, device=device), tasks=["prose"], task_manager=manager
    )
    wanted = theirs["results"]["prose"]["bits_per_byte,none"]
    assert mean_bits_per_byte(rows) == pytest.approx(wanted, abs=1e-6)
    with pytest.raises(ValueError, match="no document"):
        bits_per_byte(model, [])


def test_a_difference_of_bits_has_its_interval_over_documents():
    rng = np.random.default_rng(0)
    size = rng.integers(100, 900, 200)
    a = pd.DataFrame({"id": range(200), "bytes": size, "bits": size * rng.normal(2, 0.5, 200)})
    b = a.assign(bits=a["bits"] - size * rng.normal(0.1, 0.1, 200))
    found = bits_difference(a, b)
    assert found["difference"] == pytest.approx(mean_bits_per_byte(a) - mean_bits_per_byte(b))
    assert 0 < found["low"] < found["difference"] < found["high"]
    assert found == bits_difference(a.sample(frac=1, random_state=0).sort_values("id"), b)
    assert bits_difference(a, a) == {"difference": 0.0, "low": 0.0, "high": 0.0, "n": 200}
    with pytest.raises(ValueError, match="share only 199"):
        bits_difference(a, b.assign(bytes=b["bytes"].where(b["id"] > 0, 1)))


GRID = pd.DataFrame(
    {
        "discipline": ["physics", "history", "law"], "difficulty": ["H1", "H2", "H3"], "n": [40, 40, 40],
        "accuracy": [0.3, 0.3, 0.8], "chance": [0.25, 0.0, 0.5],
    }
)  # fmt: skip


def test_a_target_above_chance_is_measured_from_guessing():
    assert stats.threshold(GRID, 0.5, True).tolist() == [0.625, 0.5, 0.75]
    assert stats.threshold(GRID, 0.5).tolist() == [0.5] * 3
    assert stats.weak(GRID, 0.75, 5)["discipline"].tolist() == ["physics", "history"]
    assert stats.weak(GRID, 0.75, 5, above_chance=True)["discipline"].tolist() == ["physics", "history", "law"]
    plan = plan_budget(GRID, PlanSettings(target=0.5, above_chance=True, questions=100))
    assert plan["deficit"].tolist() == pytest.approx([0.325, 0.2, 0])
    assert plan_budget(GRID, PlanSettings(target=0.5, questions=100))["budget"].tolist() == [50, 50, 0]
    with pytest.raises(ValueError, match="needs the chance of each cell"):
        plan_budget(GRID.drop(columns="chance"), PlanSettings(above_chance=True))
    with pytest.raises(ValueError, match=r"target accuracy 0\.01 above chance"):
        plan_budget(GRID, PlanSettings(target=0.01, above_chance=True))


def test_an_exam_splits_into_two_parts_that_share_no_question():
    fields = [("physics", "H1"), ("physics", "H4"), ("law", "H2"), (None, None)]
    rows = [
        {"question": f"Question number {i}?", "answer": str(i), "discipline": d, "difficulty": h}
        for i in range(50)
        for d, h in [fields[i % 4]]
    ]
    rows += [{**rows[i], "question": f"  question   NUMBER {i}?", "answer": "other"} for i in range(10)]
    table = qa_table(rows, language="en", source="mine")
    probing, sealed = split_exam(table, 0.4, 0)
    normal = [set(part["question"].str.casefold().str.split().str.join(" ")) for part in (probing, sealed)]
    assert not normal[0] & normal[1]
    assert (len(normal[0]), len(normal[1])) == (20, 30)
    assert sorted([*probing["id"], *sealed["id"]]) == sorted(table["id"])
    first = table.head(50)
    for (d, h), whole in first.groupby(["discipline", "difficulty"], dropna=False):
        mine = probing[probing["id"].isin(whole["id"])]
        assert abs(len(mine) - 0.4 * len(whole)) < 1, (d, h)
    mixed, _ = split_exam(table.sample(frac=1, random_state=1), 0.4, 0)
    assert set(mixed["id"]) == set(probing["id"])
    assert set(split_exam(table, 0.4, 1)[0]["id"]) != set(probing["id"])
    assert len(split_exam(table.drop(columns=["discipline", "difficulty"]), 0.29, 0)[0]) > 0
    for share, rows, message in ((1.0, table, "share is 1.0"), (0.5, table.head(1), "1 different questions")):
        with pytest.raises(ValueError, match=message):
            split_exam(rows, share, 0)
