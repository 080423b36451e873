"""What a synthesis will take is counted before it starts."""

import asyncio
import json

import pytest
import torch
from own_world import ArithmeticTeacher, write_world

from qatoolkit.run import stages
from qatoolkit.run.cli import main
from qatoolkit.run.cost import (
    ENOUGH,
    TRIAL,
    USUAL,
    describe,
    estimate,
    estimate_requests,
    estimate_training,
    read_local_seeds,
    requests,
)
from qatoolkit.run.profiles import load_profile
from qatoolkit.run.store import open_run
from qatoolkit.teacher.client import Endpoint, Teacher
from qatoolkit.teacher.ledger import Attempt, Ledger


def test_requests_follow_from_the_settings():
    profile = load_profile("demo", **{"plan.questions": 1000, "plan.high": 0.2, "boostqa.samples": 5})
    table = requests(profile).set_index(["stage", "task"])["requests"]
    assert table["boostqa", "synthesise"] == 800 / 5 + 200 / 2 + 50
    assert table["boostqa", "annotate"] == 1050
    assert table["boostqa", "refine"] == 1000 * 2
    assert table["linkqa", "synthesise"] == round(1.1 * 1000 / profile.linkqa.questions_per_path)
    without = requests(load_profile(profile, **{"boostqa.refine": False, "linkqa.refine": False}))
    assert "refine" not in set(without["task"])


def test_labels_are_counted_from_the_seeds_that_are_at_hand(tmp_path):
    rows = [{"question": f"What is {i} plus one?", "answer": str(i + 1)} for i in range(40)]
    rows += [row | {"question": row["question"] + " Say it.", "knowledge_points": ["addition"]} for row in rows[:10]]
    (tmp_path / "seeds.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own = {"seeds": {"sources": [str(tmp_path / "seeds.jsonl")]}, "annotate.samples": 3, "measure.k": 2}
    profile = load_profile("demo", **own)
    table = requests(profile, seeds=read_local_seeds(profile)).set_index("stage")["requests"]
    assert table["annotate"] == 50 * 3 + 40
    assert table["pass_rates"] == 100
    away = load_profile("demo", **{"seeds.sources": ["hf:somebody/questions"]})
    assert read_local_seeds(away) is None
    unknown = estimate(away).set_index("stage").loc["annotate"]
    assert unknown[["requests", "prompt_tokens", "usd", "hours"]].isna().all()


def test_exam_questions_of_files_are_counted_as_far_as_they_lack_labels(tmp_path):
    profile = write_world(tmp_path / "mine", "http://127.0.0.1:9/v1")
    exam = tmp_path / "mine" / "exam.jsonl"
    n = len(exam.read_text().splitlines())

    def labels(**dials):
        turned = load_profile(profile, **dials)
        seeds = read_local_seeds(turned)
        return requests(turned, seeds=seeds).set_index("stage")["requests"]["annotate"] - 2 * len(seeds)

    assert 0 < n == labels() < load_profile(profile).evaluate.label
    assert labels(**{"evaluate.label": 5}) == 5
    assert labels(exams={"final": {"source": str(exam), "limit": 7}}) == 7
    assert labels(exams={"final": {"source": "textbook"}}) == 0
    assert labels(exams={"final": str(exam), "other": "hf:somebody/exam"}) == 2000  # unknown without the hub
    rows = [json.loads(line) | {"discipline": "mathematics", "difficulty": "H1"} for line in exam.open()]
    (tmp_path / "labelled.jsonl").write_text("\n".join(map(json.dumps, [*rows[:20], {**rows[20], "difficulty": None}])))
    assert labels(exams={"final": str(tmp_path / "labelled.jsonl")}) == 1


class NeverAsAsked(ArithmeticTeacher):
    """Labels every question H1, so that each one that asks for another level is requested again."""

    def _annotate(self, given) -> dict:
        return super()._annotate(given) | {"discipline": "mathematics", "difficulty": "H1"}


@pytest.mark.parametrize("each", [3, 7])
def test_the_plan_counts_the_trial_of_difficulty_where_every_walk_and_every_question_counts(
    tmp_path, monkeypatch, trained_here, each
):
    monkeypatch.setenv("QATOOLKIT_RESULTS", str(tmp_path))
    server = NeverAsAsked()
    try:
        dials = {"plan.rule": "uniform", "linkqa.questions_per_path": each, "evaluate.label": 0}
        run = open_run("mine", profile=write_world(tmp_path / "mine", server.url), **dials)
        stages.run_to(run, "plan", log=str)
        stages.synthesise(run, "linkqa", log=str)
        server.asked.clear()
        levels = stages.adjustment(run, adjust={"mathematics": {"H5": 1.0}}, log=str).levels
    finally:
        server.close()
    table = requests(run.profile).set_index(["stage", "task"])["requests"]["adjustment"]
    assert levels.groupby("difficulties")["asked"].sum().between(0.9 * TRIAL / 2, TRIAL / 2 + each).all()
    assert server.asked.count("link") <= table["synthesise"]
    assert server.asked.count("annotate") <= table["annotate"]
    assert len(server.asked) > table.sum() / 2


def test_ablations_that_write_anew_are_counted_and_others_are_not():
    def again(**dials):
        found = requests(load_profile("demo", ablations=[dials])).set_index(["stage", "task"])["requests"]
        return found[found.index.get_level_values("stage").str.startswith("variants/")]

    full = requests(load_profile("demo", ablations=[])).set_index(["stage", "task"])["requests"]
    assert again(**{"linkqa.length": 6}).sum() == full["linkqa"].sum()
    assert again(**{"student.size": "s"})["variants/boostqa"].sum() == full["boostqa"].sum()  # another plan
    assert again(**{"boostqa.attempts": 3})["variants/boostqa", "synthesise"] > full["boostqa", "synthesise"]
    for free in ({"midtrain.replay": 0.5}, {"boostqa.refine": False}, {"plan.rule": "uniform"}, {"curate.echo": 0.9}):
        assert again(**free).empty, free


def test_rounds_are_counted_where_the_profile_runs_them():
    rounds = {"plan.questions": 900, "rounds.n": 3, "rounds.seeds": 2}
    table = requests(load_profile("demo", beside=True, **rounds)).set_index(["stage", "task"])["requests"]
    assert table["rounds", "refine"] == 2 * (300 + 2 * 600)
    assert "rounds" not in set(requests(load_profile("demo", **rounds))["stage"])


def test_a_known_price_gives_money_and_an_unknown_one_none():
    table = estimate(load_profile("paper")).set_index(["stage", "task"]).sort_index()
    assert table["usd"].drop("annotate").notna().all()  # its seeds are not named
    first = table.loc[("boostqa", "synthesise")]
    assert first["completion_tokens"] == first["requests"] * USUAL["synthesise"].completion
    stranger = estimate(load_profile("paper", **{"teacher.refiner": "nobody-knows"}))
    stranger = stranger[stranger["stage"] != "annotate"]
    assert stranger["usd"].isna().tolist() == (stranger["model"] == "nobody-knows").tolist()


def test_earlier_requests_replace_the_assumptions(tmp_path):
    profile = load_profile("paper")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for i in range(ENOUGH):
            attempt = Attempt(str(i), profile.teacher.refiner, "r", "s", 0.0, 2.0, 200, "ok", 100, 50, 0, 0.0)
            asyncio.run(ledger.put(attempt, "{}", "{}"))
        table = estimate(profile, ledger)
    known = table[table["model"] == profile.teacher.refiner]
    assert known["measured"].all()
    assert (known["prompt_tokens"] == 100 * known["requests"]).all()
    assert not table.loc[table["model"] == profile.teacher.synthesiser, "measured"].any()


def test_what_the_ledger_has_answered_is_not_asked_for_again(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        teacher = Teacher(
            "deepseek-chat", endpoint=Endpoint(base_url="http://127.0.0.1:9/v1"), ledger=ledger, in_flight=2
        )
        messages = [[{"role": "user", "content": "abcd" * n}] for n in (1, 10, 100)]
        before = estimate_requests(teacher, messages)
        usual = USUAL["annotate"]
        assert before == {
            "requests": 3,
            "answered": 0,
            "prompt_tokens": 111,
            "completion_tokens": 3 * usual.completion,
            "usd": teacher.price.cost(111, 3 * usual.completion),
            "minutes": 3 * usual.seconds / 2 / 60,
            "measured": False,
        }
        attempt = Attempt(teacher.keys(messages)[2], teacher.model, "", "", 0.0, 1.0, 200, "ok")
        asyncio.run(ledger.put(attempt, "{}", "{}"))
        after = estimate_requests(teacher, messages)
    assert (after["requests"], after["answered"], after["prompt_tokens"]) == (3, 1, 11)


def test_the_command_prints_the_bill_and_spends_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("QATOOLKIT_RESULTS", str(tmp_path / "results"))
    assert main(["plan", "--profile", "paper"]) == 2
    said, refused = capsys.readouterr()
    assert "does not set: seeds.sources" in refused
    assert "general.sources" in refused
    assert "12 benchmarks" in said
    for word in (
        "requests",
        "100,000,000,000 tokens of QA",
        "$",
        "hours",
        "assumptions",
        "8,030,261,248 parameters",
        "meta-llama/Meta-Llama-3-8B is not on this machine and counts as the rung 8b",
        "H100, assumed" if not torch.cuda.is_available() else "on this machine",
        "fits",
    ):
        assert word in said
    assert not (tmp_path / "results").exists()


def test_settings_that_follow_from_a_checkpoint_are_shown_with_their_reason(tmp_path):
    profile = load_profile(write_world(tmp_path / "mine", "http://127.0.0.1:9/v1"))
    _, needs, follows = estimate_training(profile)
    assert set(follows) == {"learning_rate", "block", "batch", "micro_batch", "memory", "checkpointing"}
    assert needs.manner.block == follows["block"].value
    said = describe(profile, tmp_path / "ledger.sqlite")
    assert f"({follows['learning_rate'].reason})" in said
    _, needs, follows = estimate_training(
        load_profile(profile, **{"student.block": 64, "midtrain.learning_rate": 1e-3})
    )
    assert not {"block", "learning_rate"} & set(follows)
    assert needs.manner.block == 64


def test_a_model_that_is_not_here_is_not_taken_for_one_of_another_size(tmp_path, monkeypatch):
    monkeypatch.setenv("QATOOLKIT_RESULTS", str(tmp_path))
    unknown = load_profile("own", **{"student.checkpoint": "HuggingFaceTB/SmolLM2-135M", "student.size": "m"})
    with pytest.raises(ValueError, match=r"SmolLM2-135M is not on this machine.*student\.size"):
        estimate_training(unknown)
    assert "mid-training: HuggingFaceTB/SmolLM2-135M is not on this machine" in describe(unknown, tmp_path / "none")
    where, needs, _ = estimate_training(load_profile(unknown, **{"student.size": "130m", "student.vocabulary": 49152}))
    assert "counts as the rung 130m" in where
    assert 1e8 < needs.model.parameters < 2e8


def test_own_prices_count(tmp_path):
    profile = load_profile(write_world(tmp_path / "mine", "http://127.0.0.1:9/v1"))
    assert estimate(profile)["usd"].isna().all()
    own = {"teacher.price": {"writer": {"input": 1.0, "output": 2.0}}}
    table = estimate(load_profile(profile, **own))
    row = table[table["model"] == "writer"].iloc[0]
    assert row["usd"] == pytest.approx((row["prompt_tokens"] + 2 * row["completion_tokens"]) / 1e6)


def test_an_unknown_profile_ends_with_exit_code_2(capsys):
    assert main(["plan", "--profile", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err
    with pytest.raises(ValueError, match="nonsense"):
        load_profile("nonsense")
