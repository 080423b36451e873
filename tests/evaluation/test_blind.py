"""Scores beside accuracy: per byte, per token, bits per byte, and those of who does not read the question."""

import json
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from qatoolkit.core.prompt_format import as_prompt_and_answer
from qatoolkit.core.qa_table import qa_table
from qatoolkit.evaluation.blind import blind_by_model, blind_to_position, blind_to_training
from qatoolkit.evaluation.cloze import CHOSEN, load_model, score
from qatoolkit.evaluation.evaluate import evaluate
from qatoolkit.evaluation.exams import Exam
from qatoolkit.evaluation.task_tables import task_tables
from qatoolkit.evaluation.tasks import export_tasks
from qatoolkit.run.stages import evaluation as stage
from qatoolkit.run.stages.evaluation import judge_samples
from qatoolkit.training import ladder
from qatoolkit.training.tokens import train_tokenizer

ABOUT = {"language": "en", "source": "rivers"}
CHOICES = ["the Danube", "Rhône", "a very long river without a name", "Po"]


def exam(n=8):
    rows = [
        {"question": f"River {i}?", "answer": CHOICES[i % 4], "choices": CHOICES, "answer_index": i % 4}
        for i in range(n)
    ]
    return qa_table(rows, **ABOUT)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer([*exam()["question"], *CHOICES], 280)
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(ladder.llama_config(ladder.size_of("xxs"), len(tokenizer), 128)).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)
    return folder


def likelihood(model, question, choice):
    """Log-likelihood (nats) and number of tokens of a choice, token by token."""
    network, tokenizer = load_model(model)
    prompt, answer = as_prompt_and_answer(question, choice, "en")
    start, ids = len(tokenizer(prompt)["input_ids"]), tokenizer(prompt + answer)["input_ids"]
    with torch.inference_mode():
        logits = network(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(logits[i - 1, ids[i]]) for i in range(start, len(ids))), len(ids) - start


def by_hand(model, table, question=None):
    rows = []
    for row in table.itertuples():
        found = [likelihood(model, row.question if question is None else question, choice) for choice in row.choices]
        values, tokens = np.array([v for v, _ in found]), np.array([n for _, n in found])
        sizes, right = np.array([len(choice.encode()) for choice in row.choices]), row.answer_index
        best = {"correct": values, "per_byte": values / sizes, "per_token": values / tokens}
        found = {name: int(x.argmax()) == right for name, x in best.items()}
        rows.append(found | {"bits_per_byte": -values[right] / np.log(2) / sizes[right]})
    return pd.DataFrame(rows)


def test_scores_of_choices_are_those_of_a_hand_count_by_every_scorer(model):
    table = exam()
    wanted = by_hand(model, table)
    assert wanted[["correct", "per_byte", "per_token"]].nunique(axis=1).max() > 1  # the three ways differ here
    hf, fast = (evaluate(model, {"rivers": table}, scorer=scorer) for scorer in ("hf", "fast"))
    for found in (hf, fast, score(*load_model(model), table)):
        found = found.set_index("id").loc[table["id"]]
        for column in ("correct", "per_byte", "per_token"):
            assert found[column].astype(bool).tolist() == wanted[column].tolist(), column
        np.testing.assert_allclose(found["bits_per_byte"], wanted["bits_per_byte"], rtol=1e-4)
    assert set(CHOSEN) < set(hf)
    for samples in (hf, fast):  # what lm-eval's own command prints for the exported task is the same
        own = pd.DataFrame(map(json.loads, samples["scores"]))
        np.testing.assert_allclose(own["bpb,none"], samples["bits_per_byte"], rtol=1e-6)
        assert (own["acc_bytes,none"] == samples["per_byte"]).all()
        assert {"acc,none", "acc_norm,none"} < set(own)


def test_a_reader_of_answers_alone_takes_the_choice_that_is_most_often_right():
    training = qa_table(
        [{"question": f"Which? {i}", "answer": a} for i, a in enumerate(["Po", "PO", "rhône"])], **ABOUT
    )
    assert blind_to_training(exam(), training).tolist() == [i % 4 == 3 for i in range(8)]
    unknown = qa_table([{"question": "Who?", "answer": "Plato"}], **ABOUT)
    many = exam(2000)
    assert abs(blind_to_training(many, unknown).mean() - 0.25) < 0.04  # nothing known: guessing


def first_is_right(n, k=4):
    rows = [
        {"question": f"Glorb {i}?", "answer": f"blip {i}", "choices": [f"blip {i + j}" for j in range(k)]}
        for i in range(n)
    ]
    return qa_table([row | {"answer_index": 0} for row in rows], **ABOUT)


def test_a_reader_of_positions_passes_an_exam_whose_right_choice_is_always_the_first():
    table = first_is_right(30)
    training = first_is_right(50).assign(answer="unseen")
    assert blind_to_training(table, training).mean() < 0.7
    assert blind_to_position(table, training).all()
    assert 0.1 < blind_to_position(exam(200), training).mean() < 0.4
    other = blind_to_position(first_is_right(400), first_is_right(50, k=3))  # no question with four choices: guessing
    assert abs(other.mean() - 0.25) < 0.07
    for nothing in (
        training.assign(answer_index=pd.array([None] * 50, dtype="Int64")),
        training.drop(columns="choices"),
    ):
        assert blind_to_position(table, nothing).isna().all()


def test_the_blind_scores_of_a_stage_have_the_reader_of_positions(model, monkeypatch):
    table, training = first_is_right(30).assign(exam="glorb"), first_is_right(50)
    about = SimpleNamespace(about={"glorb": {"form": "letter"}})
    run = SimpleNamespace(read=lambda name: about, profile=SimpleNamespace(arms={"arm": ("seeds",), "plain": ()}))
    monkeypatch.setattr(stage, "choice_rows", lambda run: table)
    monkeypatch.setattr(stage, "arm_table", lambda run, arm: training if arm == "arm" else training.head(0))
    found = stage.blind(run, {"base": model, "arm": model, "plain": model})
    scores = found.groupby("arm")["blind_position"]
    assert scores.count().to_dict() == {"base": 0, "arm": 30, "plain": 0}
    assert scores.mean()["arm"] == 1
    by_letter = blind_by_model(model, table, form="letter").tolist()
    assert found.loc[found["arm"] == "base", "blind_model"].tolist() == by_letter
    samples = found[found["arm"] == "arm"].assign(correct=True, chance=0.25, discipline="law", difficulty="H1")
    weak = pd.DataFrame({"discipline": ["law"], "difficulty": ["H1"]})
    row = stage.over_blind(samples, weak, resamples=50, seed=0).iloc[0]
    assert (row["reader"], row["blind"], row["difference"]) == ("position", 1, 0)


def test_letters_are_scored_as_in_the_exported_task(model):
    table = exam()
    wanted = evaluate(model, {"rivers": table}, form="letter", scorer="fast").set_index("id").loc[table["id"]]
    found = score(*load_model(model), table, form="letter")
    assert found["correct"].tolist() == wanted["correct"].tolist()
    np.testing.assert_allclose(found["margin"], wanted["margin"], rtol=1e-4)


def test_an_exam_with_its_right_choices_at_one_position_is_told(tmp_path):
    with pytest.warns(
        UserWarning, match="exam 'glorb': choice 1 is the right one in 100% of 30 .*; shuffle the choices"
    ):
        export_tasks({"glorb": first_is_right(30)}, tmp_path / "a", form="letter")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_tasks({"few": first_is_right(19), "mixed": exam(40)}, tmp_path / "b")
        export_tasks({"open": first_is_right(30)}, tmp_path / "c", form="generative")


def test_a_model_is_asked_without_the_question(model):
    table = exam()
    assert blind_by_model(model, table).tolist() == by_hand(model, table, "")["correct"].tolist()


def test_blind_scores_need_one_right_choice(model):
    table = exam().assign(answer_index=pd.array([None] * 8, dtype="Int64"))
    for call in (lambda: blind_to_training(table, exam()), lambda: blind_by_model(model, table)):
        with pytest.raises(ValueError, match="no single right choice"):
            call()


def test_a_written_answer_counts_by_meaning_or_by_its_letters_and_both_are_told():
    samples = pd.DataFrame({"same": ["same", "different", "undecided", None], "correct": [False, False, False, True]})
    by_meaning, exact = judge_samples(samples, "same_answer"), judge_samples(samples, "exact")
    assert by_meaning["correct"].tolist() == [True, False, False, True]
    assert exact["correct"].tolist() == [False, False, False, True]
    for found in (by_meaning, exact):
        assert found["exact"].tolist()[:3] == [False] * 3
        assert found["undecided"].tolist()[:3] == [False, False, True]
        assert found[["exact", "undecided"]].iloc[3].isna().all()


def test_written_answers_are_compared_with_every_right_form(model, monkeypatch):
    from qatoolkit.evaluation import lm_eval_models

    table = qa_table(
        [
            {"question": "Which river?", "answer": "Donau", "aliases": ["the Danube"]},
            {"question": "How long?", "answer": "1/2"},
            {"question": "How deep?", "answer": "deep"},
        ],
        **ABOUT,
    )
    replies = {"Which": " the danube", "How long": " 0.5", "How deep": ""}
    answer = lambda lm, requests, **_: [  # noqa: E731
        next(reply for start, reply in replies.items() if f"Question: {start}" in r.args[0]) for r in requests
    ]
    monkeypatch.setattr(lm_eval_models.CountingHFLM, "generate_until", answer)
    found = evaluate(model, {"rivers": table}).set_index("id").loc[table["id"]]
    assert found["same"].tolist() == ["same", "same", "different"]
    assert found["correct"].tolist() == [True, False, False]  # exact match knows the aliases, not the half


def test_an_exam_whose_labels_and_choices_come_late_is_read(tmp_path):
    """The reader of JSON lines settles types by its first ten megabytes."""
    rows = [{"question": f"{i} {'long ' * 1000}?", "answer": "yes"} for i in range(2600)]
    rows.append(
        {"question": "Last?", "answer": "no", "discipline": "law", "difficulty": "H2", "choices": ["no", "yes"]}
    )
    rows[-1]["answer_index"] = 0
    suite = Exam(name="late", table=qa_table(rows, **ABOUT), form="generative").resolve(tmp_path)
    assert (tmp_path / "late/tasks/late.jsonl").stat().st_size > 12e6
    last = task_tables(suite)["late"].iloc[-1]
    assert (last["question"], last["discipline"], last["difficulty"]) == ("Last?", "law", "H2")


def test_a_batch_holds_what_fits_into_memory(model, monkeypatch):
    from qatoolkit.evaluation import lm_eval_models

    lm = lm_eval_models.CountingHFLM(pretrained=str(model), batch_size=None)
    vocabulary = lm.model.config.vocab_size
    assert lm.fit(8) == lm_eval_models.LARGEST_BATCH
    monkeypatch.setattr(lm_eval_models, "MEMORY", 2 * 4 * vocabulary * 100 * 3)
    assert lm.fit(100) == 3
    monkeypatch.setattr(lm_eval_models, "MEMORY", 1)
    assert lm.fit(100) == 1
