"""Suites, forms, resuming and records of evaluation, with real lm-eval on a tiny model and local files."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, PreTrainedTokenizerFast

from qatoolkit.core.stats import accuracy, cells, mcnemar
from qatoolkit.evaluation.cloze import load_model
from qatoolkit.evaluation.evaluate import TasksUnavailable, evaluate
from qatoolkit.evaluation.probe import probe, probe_tasks
from qatoolkit.evaluation.samples import COLUMNS, RandomSeeds, digest_model
from qatoolkit.evaluation.suites import list_tasks, paper12, resolve_suite
from qatoolkit.evaluation.tasks import export_tasks
from qatoolkit.run.tables import evaluation as views
from qatoolkit.seeds.read import read_seeds
from qatoolkit.textbook import exams, knowledge
from qatoolkit.training import ladder
from qatoolkit.training.tokens import train_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    texts = list(exam("textbook_en", 60)["question"]) + list(exam("textbook_zh", 60)["question"])
    tokenizer = train_tokenizer(texts, 512)
    torch.manual_seed(0)
    config = ladder.llama_config(ladder.size_of("xxs"), len(tokenizer), 1024)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def exam(name="textbook_en", n=12):
    return exams.exam(knowledge.load().part(5, 3, 1), name, 2, 1).head(n)


def prompts(folder, name, fewshot=0):
    """What lm-eval would ask."""
    task = resolve_suite(folder, folder).manager().load([name])["tasks"][name]
    task.set_config("num_fewshot", fewshot)
    task.set_fewshot_seed(0)
    task.build_all_requests(rank=0, world_size=1)
    return [instance.args for instance in task.instances]


def test_letters_list_the_choices_and_are_what_is_scored(tmp_path):
    table = exam()
    export_tasks({"mine": table, "zh": exam("textbook_zh")}, tmp_path / "t", form="letter")
    asked = prompts(tmp_path / "t", "mine")
    row = table.iloc[0]
    lines = "\n".join(f"{letter}. {c}" for letter, c in zip("ABCD", row["choices"], strict=True))
    assert asked[0] == (f"Question: {row['question']}\n{lines}\nAnswer:", " A")
    assert [more for _, more in asked[:4]] == [" A", " B", " C", " D"]
    assert prompts(tmp_path / "t", "zh")[0][0].endswith("\n答案：")


def test_examples_come_from_their_own_table_in_its_order(tmp_path):
    table, examples = exam(n=12).iloc[3:], exam(n=12).iloc[:3]
    export_tasks({"mine": table}, tmp_path / "t", form="letter", examples={"mine": examples})
    asked = prompts(tmp_path / "t", "mine", fewshot=2)[0][0]
    assert [asked.index(q) for q in examples["question"][:2]] == sorted(
        asked.index(q) for q in examples["question"][:2]
    )
    assert examples["question"].iloc[2] not in asked
    assert f"Answer: {'ABCD'[int(examples['answer_index'].iloc[0])]}\n" in asked


def test_a_question_is_never_among_its_own_examples(tmp_path):
    table = exam()
    export_tasks({"mine": table}, tmp_path / "t")
    for context, _ in prompts(tmp_path / "t", "mine", fewshot=11):
        assert all(context.count(f"Question: {question}\n") == 1 for question in table["question"])


def test_every_form_is_evaluated_and_says_which_it_is(model):
    table = exam()
    for form, metric in (("cloze", "acc"), ("letter", "acc"), ("generative", "exact_match")):
        samples = evaluate(model, {"mine": table}, form=form)
        assert list(samples.columns) == list(COLUMNS)
        assert samples["metric"].unique().tolist() == [metric]
        assert samples["id"].tolist() == table["id"].tolist()
        for label in ("discipline", "difficulty", "grade"):
            assert samples[label].tolist() == table[label].tolist()
        assert samples.attrs["evaluation"]["tasks"][0]["form"] == form
        said = set(samples["given"])
        assert form != "letter" or said <= set("ABCD")
        assert form != "cloze" or all(g in c for g, c in zip(samples["given"], table["choices"], strict=True))
        assert samples["margin"].isna().all() == (form == "generative")
        if form != "generative":
            assert ((samples["margin"] > 0) == samples["correct"]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "essay"}, "essay.*letter, cloze, generative"),
        ({"form": "letter", "choices": None}, "have no choices.*generative"),
        ({"form": "letter", "choices": [str(i) for i in range(27)]}, "more than 26 choices"),
        ({"language": "fr"}, "'fr'.*en, zh"),
    ],
)
def test_a_table_that_cannot_be_asked_is_refused(tmp_path, change, message):
    table = exam()
    for column in set(change) - {"form"}:
        table[column] = pd.Series([change[column]] * len(table), index=table.index, dtype=object)
    with pytest.raises(ValueError, match=message):
        export_tasks({"mine": table}, tmp_path / "t", form=change.get("form"))


RAW = [
    {"question": "What is 1 + 1?", "choices": ["2", "3", "4"], "answer": "A"},
    {"question": "What is 1 + 2?", "choices": ["2", "3", "4"], "answer": "B"},
    {"question": "What is 1 + 2?", "choices": ["2", "3", "4"], "answer": "B"},
    {"question": "What is 1 + 3?", "choices": ["2", "3", "4"], "answer": ""},
    {"question": "Which are even?", "choices": ["2", "3", "4"], "answer": "AC"},
    {"question": "What is 2 + 2?", "choices": ["2", "3", "4"], "answer": "C"},
]
OPEN = {"question": "What is 40 + 2?", "answer": "42"}
CHINESE = {"question": "一加一等于几？", "choices": ["二", "三"], "answer": "A"}


def written(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def only(samples):
    [task] = samples.attrs["evaluation"]["tasks"]
    return task


def manifests(folder):
    return [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/manifest.json")]


def test_rows_of_a_file_that_are_not_asked_are_counted_and_told(model, tmp_path):
    for form in ("cloze", "letter", None):
        said = []
        samples = evaluate(
            model, written(tmp_path / "mine.jsonl", RAW), form=form, folder=tmp_path / "e", log=said.append
        )
        assert len(samples) == 3
        assert only(samples)["left_out"] == {"duplicate": 1, "empty_answer": 1, "several_answers": 1}
        assert "mine: 3 rows left out (1 duplicate, 1 empty_answer, 1 several_answers)" in said
    # A finished task that is only read again counts what is left out of the file as it is now.
    again = evaluate(model, written(tmp_path / "mine.jsonl", [*RAW, RAW[0]]), folder=tmp_path / "e")
    assert only(again)["left_out"]["duplicate"] == 2
    assert views.evaluated_tasks(again)["left_out"].tolist() == [4]
    assert {sum(task["left_out"].values()) for task in manifests(tmp_path / "e")} == {3}


@pytest.mark.parametrize("form", ["cloze", "letter", None])
def test_an_exam_of_several_right_choices_only_is_refused_with_its_rows(tmp_path, form):
    table, _ = read_seeds([RAW[4]])
    with pytest.raises(ValueError, match=f"1 rows have no single right choice .*: {table['id'].iloc[0]}"):
        resolve_suite(table, tmp_path, form=form)


def test_an_exam_in_two_languages_is_a_task_of_each(tmp_path):
    said = []
    found = resolve_suite(written(tmp_path / "mine.jsonl", [CHINESE, *RAW]), tmp_path, log=said.append)
    assert [entry.task for entry in found.entries] == ["mine", "mine_zh"]
    assert "mine: a task for each language, mine, mine_zh" in said
    assert "问题：" in prompts(found.include, "mine_zh")[0][0]
    both = read_seeds(tmp_path / "mine.jsonl")[0]
    with pytest.raises(ValueError, match=r"two exams .* 'mine_zh'"):
        resolve_suite({"mine": both, "mine_zh": both}, tmp_path)


def test_a_file_with_open_questions_says_that_all_are_asked_openly(tmp_path):
    said = []
    found = resolve_suite(written(tmp_path / "mine.jsonl", [*RAW[:2], OPEN]), tmp_path, log=said.append)
    assert ["1 of 3 questions have no choices" in line and "'generative'" in line for line in said] == [True]
    assert prompts(found.include, "mine")[0][1]["until"]


def test_a_list_of_files_is_a_task_of_each(tmp_path):
    files = [written(tmp_path / "a.jsonl", RAW[:2]), str(written(tmp_path / "b.jsonl", RAW))]
    found = resolve_suite(files, tmp_path)
    assert [entry.task for entry in found.entries] == ["a", "b"]
    assert found.left_out["b"]["duplicate"] == 1
    (tmp_path / "more").mkdir()
    for odd, message in (
        ([files[0], "mmlu"], "mmlu: no such file"),
        ([files[0], written(tmp_path / "more" / "a.jsonl", RAW)], "another file also becomes task 'a'"),
        ([RAW[0]], "not dict"),
    ):
        with pytest.raises(ValueError, match=message):
            resolve_suite(odd, tmp_path)
    names = ["mmlu", "arc_challenge"]
    assert [entry.task for entry in resolve_suite(names, tmp_path).entries] == names


def test_raw_rows_are_sent_to_read_seeds_and_a_table_without_choices_is_open(tmp_path):
    with pytest.raises(ValueError, match=r"exam 'table': not a QA table: no column 'id'.*read_seeds"):
        resolve_suite(pd.DataFrame(RAW), tmp_path)
    table = read_seeds([OPEN])[0].drop(columns=["choices", "answer_index"])
    assert prompts(resolve_suite(table, tmp_path).include, "table")[0][1]["until"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"dtype": "float99"}, "dtype is 'float99'; it must be one of auto, float32"),
        ({"fewshot": -1}, "fewshot is -1"),
        ({"limit": 0}, "limit is 0"),
        ({"fewshot": 12}, "fewshot is 12, but task 'mine' has 11 examples"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(model, setting, message):
    with pytest.raises(ValueError, match=message):
        evaluate(model, {"mine": exam()}, **setting)


def test_more_examples_than_their_own_table_has_are_refused(model, tmp_path):
    table = exam(n=12)
    export_tasks({"mine": table.iloc[3:]}, tmp_path / "t", examples={"mine": table.iloc[:3]})
    assert len(evaluate(model, tmp_path / "t", fewshot=3)) == 9
    with pytest.raises(ValueError, match="fewshot is 4, but task 'mine' has 3 examples"):
        evaluate(model, tmp_path / "t", fewshot=4)


@pytest.mark.parametrize("scorer", ["hf", "fast"])
@pytest.mark.parametrize("form", ["letter", "generative"])
@pytest.mark.filterwarnings("ignore:.*longer than the model's")
def test_prompts_that_the_model_could_not_hold_are_counted(model, tmp_path, form, scorer):
    said = []
    table = exam(n=40)
    settings = {"form": form, "scorer": scorer, "folder": tmp_path, "log": said.append}
    assert only(evaluate(model, {"mine": table}, **settings))["cut"] == 0
    assert "truncated" not in said[-1]
    assert only(evaluate(model, {"mine": table}, fewshot=39, **settings))["cut"] == 40
    assert "40 prompts were truncated on the left to the model's context" in said[-1]
    assert {task["cut"] for task in manifests(tmp_path)} == {0, 40}


def test_a_model_that_cannot_be_asked_says_why(model, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    network = AutoModelForCausalLM.from_pretrained(model)
    network.save_pretrained(tmp_path / "bare")
    tiny = AutoModelForCausalLM.from_config(GPT2Config(n_layer=1, n_embd=8, n_head=2, n_positions=64))
    tiny.save_pretrained(tmp_path / "invented")  # transformers makes an empty tokenizer for these
    AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path / "short")
    network.resize_token_embeddings(300)
    network.save_pretrained(tmp_path / "short")
    for name, message in (
        ("./nothere", "'./nothere' is not a folder in"),
        ("nothere", "'nothere' is not a folder in .*, and no model of that name is in the local cache"),
        (tmp_path / "bare", "has no readable tokenizer"),
        (tmp_path / "invented", "has no readable tokenizer"),
        (tmp_path / "short", r"its tokenizer has ids up to \d+, but its embedding has 300 rows"),
    ):
        for scorer in ("hf", "fast"):
            with pytest.raises(ValueError, match=message):
                evaluate(name, {"mine": exam()}, scorer=scorer)
        with pytest.raises(ValueError, match=message):
            load_model(name)


def test_a_probe_tells_a_table_without_seeds_from_one_without_choices():
    with pytest.raises(ValueError, match=r"no annotated seeds.*rejects"):
        probe("model", exam().head(0))
    with pytest.raises(ValueError, match="no row of the table has choices"):
        probe("model", exam("textbook_math"))


def test_a_local_file_a_folder_and_names_are_suites(model, tmp_path):
    file = tmp_path / "mine.jsonl"
    exam().drop(columns=["id"]).to_json(file, orient="records", lines=True, force_ascii=False)
    from_file = evaluate(model, file)
    assert from_file["task"].unique().tolist() == ["mine"]
    assert len(from_file) == 12
    export_tasks({"one": exam(), "two": exam("textbook_zh")}, tmp_path / "t")
    assert evaluate(model, tmp_path / "t")["task"].unique().tolist() == ["one", "two"]
    assert evaluate(model, tmp_path / "t", ["two"])["task"].unique().tolist() == ["two"]
    assert from_file["correct"].tolist() == evaluate(model, tmp_path / "t", ["one"])["correct"].tolist()
    (tmp_path / "t").rename(tmp_path / "moved")  # as a whole results folder may be
    assert from_file["correct"].tolist() == evaluate(model, tmp_path / "moved", ["one"])["correct"].tolist()


@pytest.mark.parametrize(
    ("suite", "names", "message"),
    [
        ("nowhere.jsonl", None, "no such file"),
        ("exams", None, "run="),
        (7, None, "not int"),
        ({"mine": None}, ["mime"], "'mime'; did you mean mine"),
    ],
)
def test_an_unknown_suite_is_a_clear_error(model, suite, names, message):
    suite = {"mine": exam()} if isinstance(suite, dict) else suite
    with pytest.raises(ValueError, match=message):
        evaluate(model, suite, names)


def foreign(folder, name, **task):
    """A task YAML of somebody else, under a subject that the maps know, on a data file beside it."""
    rows = [{"q": f"{i} + 1?", "opts": [str(i + 1), "many words here"], "gold": i % 2} for i in range(6)]
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}",
        "doc_to_choice": "opts",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        "metadata": {"version": 2.5},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config | task))


def test_tasks_of_others_keep_their_metrics_versions_and_subjects(model, tmp_path):
    foreign(tmp_path, "mmlu_college_physics")
    foreign(tmp_path, "riddles", tag="games")
    group = {"group": "both", "task": ["mmlu_college_physics", "riddles"]}
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(group))
    samples = evaluate(model, tmp_path, ["both"], fewshot=2)
    assert samples["benchmark"].unique().tolist() == ["both"]
    physics = samples[samples["task"] == "mmlu_college_physics"]
    assert physics["discipline"].unique().tolist() == ["physics"]
    assert samples[samples["task"] == "riddles"]["discipline"].isna().all()
    assert samples["id"].is_unique
    assert set(samples["version"]) == {"2.5"}
    assert set(samples["fewshot"]) == {2}
    scores = samples["scores"].map(json.loads)
    assert (scores.str["acc,none"] == samples["score"]).all()
    assert scores.map(lambda s: set(s) == {"acc,none", "acc_norm,none"}).all()
    assert evaluate(model, tmp_path, ["games"])["task"].unique().tolist() == ["riddles"]


def test_group_changes_reach_its_tasks(model, tmp_path):
    foreign(tmp_path, "riddles")
    group = {"group": "asked", "task": [{"task": "riddles", "doc_to_text": "Riddle: {{q}}"}]}
    (tmp_path / "asked.yaml").write_text(yaml.safe_dump(group))
    manager = resolve_suite(tmp_path, tmp_path).manager()
    [(name, spec)] = list_tasks(manager, "asked")
    assert name == "riddles"
    assert manager.load([spec])["tasks"]["riddles"].config.doc_to_text == "Riddle: {{q}}"


def test_a_probe_of_tasks_fills_unknown_labels(model, tmp_path):
    foreign(tmp_path, "mmlu_college_physics")
    foreign(tmp_path, "riddles")
    grid = cells(probe_tasks(model, tmp_path)).set_index("discipline")
    assert grid["difficulty"].unique().tolist() == ["unlabelled"]
    assert set(grid.index) == {"physics", "unlabelled"}
    assert grid["margin"].notna().all()
    labelled = cells(probe_tasks(model, {"mine": exam()}, form="letter"))
    assert set(labelled["difficulty"]) <= {"H1", "H2", "H3", "H4", "H5"}


def test_what_was_run_is_recorded(model, tmp_path):
    samples = evaluate(model, {"mine": exam()}, folder=tmp_path / "e", seeds=RandomSeeds(fewshot=7), limit=5)
    assert len(samples) == 5
    about = samples.attrs["evaluation"]
    assert about["seeds"] == {"random": 0, "numpy": 1234, "torch": 1234, "fewshot": 7}
    assert about["digest"] == digest_model(model)
    [row] = manifests(tmp_path / "e")
    assert (row["task"], row["n"], row["version"], row["fewshot"]) == ("mine", 5, "1.0", 0)
    assert row["lm_eval"] == about["lm_eval"]
    assert row["model"] == str(model)


def stored(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.glob("*/*")}


def test_a_finished_task_is_not_run_again_unless_something_changed(model, tmp_path):
    tables, folder = {"one": exam(), "two": exam(n=6)}, tmp_path / "e"
    first = evaluate(model, tables, folder=folder)
    before = stored(folder)
    assert len(before) == 4
    again = evaluate(model, tables, folder=folder)
    pd.testing.assert_frame_equal(first, again)
    assert stored(folder) == before
    for changes in (
        {"fewshot": 1},
        {"seeds": RandomSeeds(numpy=1)},
        {"limit": 3},
        {"scorer": "fast"},
        {"form": "letter"},
    ):
        evaluate(model, tables, ["one"], folder=folder, **changes)
        assert len(stored(folder)) == len(before) + 2
        before = stored(folder)
    tables["two"] = exam(n=7)
    evaluate(model, tables, folder=folder)
    assert len(stored(folder)) == len(before) + 2


def test_another_model_is_another_key_and_a_copy_is_not(model, tmp_path):
    import shutil

    copy = shutil.copytree(model, tmp_path / "copy")
    assert digest_model(copy) == digest_model(model)
    (copy / "training.json").write_text("{}")
    assert digest_model(copy) == digest_model(model)
    network = AutoModelForCausalLM.from_pretrained(copy)
    with torch.no_grad():
        network.get_input_embeddings().weight[0, 0] += 1
    network.save_pretrained(copy)
    assert digest_model(copy) != digest_model(model)


def test_a_kill_loses_at_most_the_task_under_way(model, tmp_path):
    for name in ("a", "b", "c", "d"):
        foreign(tmp_path, name)
    folder = tmp_path / "e"
    call = f"""
from qatoolkit.evaluation.evaluate import evaluate
import os, signal
evaluate({str(model)!r}, {str(tmp_path)!r}, ["a", "b", "c", "d"], folder={str(folder)!r},
         log=lambda said: os.kill(os.getpid(), signal.SIGKILL) if said.startswith("b") else None)
"""
    done = subprocess.run([sys.executable, "-c", call], cwd=ROOT, capture_output=True, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    before = stored(folder)
    assert len(before) == 4
    (folder / "0123456789abcdef").mkdir()  # as a kill leaves a task: without its manifest
    (folder / "0123456789abcdef" / ".samples.parquet.99.tmp").write_bytes(b"half")
    samples = evaluate(model, tmp_path, ["a", "b", "c", "d"], folder=folder)
    assert samples["task"].unique().tolist() == ["a", "b", "c", "d"]
    assert {name: when for name, when in stored(folder).items() if name in before} == before


def test_samples_without_their_manifest_are_not_finished(model, tmp_path):
    foreign(tmp_path, "a")
    whole = evaluate(model, tmp_path, ["a"], folder=tmp_path / "e")
    [manifest] = (tmp_path / "e").glob("*/manifest.json")
    manifest.unlink()
    time.sleep(0.01)
    pd.testing.assert_frame_equal(evaluate(model, tmp_path, ["a"], folder=tmp_path / "e"), whole)
    assert manifest.exists()


def test_a_task_without_data_is_named_and_the_others_are_kept(model, tmp_path):
    foreign(tmp_path, "a")
    foreign(tmp_path, "gone", dataset_path=str(tmp_path / "none"), dataset_kwargs={})
    foreign(tmp_path, "z")
    with pytest.raises(TasksUnavailable, match=r"1 of .* \(gone: .*Hub.*HF_HUB_OFFLINE.*2 tasks") as caught:
        evaluate(model, tmp_path, ["a", "gone", "z"], folder=tmp_path / "e")
    assert caught.value.samples["task"].unique().tolist() == ["a", "z"]
    assert len(stored(tmp_path / "e")) == 4


def test_the_twelve_benchmarks_are_known_to_lm_eval_and_say_what_they_lack(model, monkeypatch):
    suite = resolve_suite("paper12", ROOT)
    manager = suite.manager()
    counts = {entry.task: len(list(list_tasks(manager, entry.task))) for entry in paper12()}
    assert list(counts) == [
        "mmlu", "cmmlu", "ceval-valid", "mmlu_pro", "agieval", "arc_challenge", "bbh", "gsm8k", "minerva_math",
        "triviaqa", "hellaswag", "winogrande",
    ]  # fmt: skip
    assert (counts["mmlu"], counts["cmmlu"], counts["ceval-valid"], counts["gsm8k"]) == (57, 67, 52, 1)
    for entry in paper12():
        assert "version" in manager.task_index[entry.task].cfg["metadata"], entry
        name, _ = next(list_tasks(manager, entry.task))
        config = manager.task_index[name].cfg
        metrics = {metric["metric"] for metric in config["metric_list"]}
        filters = {found["name"] for found in config.get("filter_list", [])} or {"none"}
        assert entry.metric in metrics, name
        assert entry.filter in filters, name
        assert config.get("num_fewshot", entry.fewshot) == entry.fewshot, name
    # No data can be had in a test, so the suite must say so, task by task, and quickly.
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(type(suite), "manager", lambda self: manager)
    with pytest.raises(TasksUnavailable, match=r"mmlu_abstract_algebra.*HF_HUB_OFFLINE") as caught:
        evaluate(model, suite, ["mmlu", "winogrande"])
    assert caught.value.samples.empty


def pair(a_only, b_only, both=5):
    right = [(True, False)] * a_only + [(False, True)] * b_only + [(True, True)] * both
    a, b = (pd.DataFrame({"id": range(len(right)), "correct": [r[i] for r in right]}) for i in (0, 1))
    return mcnemar(a, b)


def test_mcnemar_is_exact_for_few_differences_and_corrected_for_many():
    assert pair(1, 8) == {"a_only": 1, "b_only": 8, "p": pytest.approx(2 * (1 + 9) / 2**9)}
    assert pair(0, 0)["p"] == 1.0
    assert pair(20, 20)["p"] == 1.0
    assert pair(25, 10)["p"] == pytest.approx(0.01796, abs=1e-4)  # (|25 - 10| - 1)^2 / 35 = 5.6
    empty = pd.DataFrame({"id": [], "correct": []})
    assert mcnemar(empty, empty)["p"] is None
    with pytest.raises(ValueError, match="share only"):
        mcnemar(pd.DataFrame({"id": [1], "correct": [True]}), pd.DataFrame({"id": [2], "correct": [True]}))


def test_the_lm_eval_command_gives_the_same_with_letters_and_examples(model, tmp_path, lm_eval_command):
    table = exam(n=20)
    export_tasks({"mine": table.iloc[2:]}, tmp_path / "t", form="letter", examples={"mine": table.iloc[:2]})
    lm_eval_command(
        "--model_args", f"pretrained={model},dtype=float32", "--include_path", tmp_path / "t", "--tasks", "mine",
        "--num_fewshot", 2, "--output_path", tmp_path / "out", "--log_samples",
    )  # fmt: skip
    [file] = (tmp_path / "out").rglob("samples_mine_*.jsonl")
    theirs = {}
    for line in file.read_text().splitlines():
        sample = json.loads(line)
        theirs[sample["doc"]["id"]] = sample["acc"]
    samples = evaluate(model, tmp_path / "t", fewshot=2)
    assert samples.set_index("id")["score"].to_dict() == theirs


def test_an_lm_eval_model_of_ones_own_can_answer(tmp_path):
    from lm_eval.models.dummy import DummyLM

    foreign(tmp_path, "a")
    samples = evaluate("a coin", tmp_path, ["a", "a"], scorer=DummyLM(), folder=tmp_path / "e")
    assert len(samples) == 6
    assert samples.attrs["evaluation"]["scorer"] == "DummyLM"
    assert samples.attrs["evaluation"]["digest"] == "a coin"


def test_accuracy_of_a_suite_is_read_by_benchmark(model, tmp_path):
    foreign(tmp_path, "a")
    foreign(tmp_path, "b")
    table = accuracy(evaluate(model, tmp_path), "benchmark")
    assert table[["benchmark", "n"]].values.tolist() == [["a", 6], ["b", 6]]


def test_a_form_for_tasks_that_have_their_own_is_refused(model, tmp_path):
    export_tasks({"mine": exam()}, tmp_path / "t", form="cloze")
    for suite in (tmp_path / "t", "arc_easy"):
        with pytest.raises(ValueError, match="form is 'letter', but the tasks of suite"):
            evaluate(model, suite, form="letter")


@pytest.mark.parametrize("scorer", ["hf", "fast"])
def test_a_model_that_lacks_weights_or_has_no_numbers_is_not_scored(model, tmp_path, scorer):
    network = AutoModelForCausalLM.from_pretrained(model)
    network.model.norm.weight.data[0] = float("nan")
    network.save_pretrained(tmp_path / "nan")
    AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path / "nan")
    with pytest.raises(ValueError, match="48 of 48 log-likelihoods are NaN"):
        evaluate(tmp_path / "nan", {"mine": exam()}, form="cloze", scorer=scorer)
    config = json.loads((tmp_path / "nan" / "config.json").read_text()) | {"num_hidden_layers": 3}
    (tmp_path / "nan" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="is missing 9 weights"):
        evaluate(tmp_path / "nan", {"mine": exam()}, form="cloze", scorer=scorer)


@pytest.mark.parametrize("scorer", ["hf", "fast", "probe"])
def test_an_answer_that_the_tokenizer_joins_to_its_prompt_is_told(model, tmp_path, scorer):
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(tmp_path / "joins")
    words = Tokenizer(BPE())
    words.train_from_iterator(["Answer: yes", "Answer: no"] * 9, BpeTrainer(show_progress=False))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="A").save_pretrained(tmp_path / "joins")
    table = exam().head(2).assign(choices=[["yes", "no"]] * 2, answer="yes", answer_index=0)
    ask = {"probe": lambda: probe(tmp_path / "joins", table)}.get(
        scorer, lambda: evaluate(tmp_path / "joins", {"mine": table}, scorer=scorer)
    )
    with pytest.raises(ValueError, match="the tokenizer joins it to the prompt"):
        ask()
