"""A rehearsal walks the very profile that will be paid for, in small."""

import json
import os
import subprocess
import sys

import pytest
from own_world import write_world

from qatoolkit.run.notebooks import chosen
from qatoolkit.run.profiles import PROFILES, as_yaml, load_profile
from qatoolkit.run.rehearsal import AMOUNTS, write_rehearsal
from qatoolkit.training.hub import load_causal_lm, load_config

NOBODY = "http://127.0.0.1:9/v1"
MINE = "mine"
ALL = [*PROFILES, MINE]
KEPT = ("arms", "compare", "strategies", "ablations", "ablation_tokens", "curate", "linkqa")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A user's profile with a data set and an arm of its own."""
    path = write_world(tmp_path_factory.mktemp("world"), NOBODY)
    with open(path, "a", encoding="utf-8") as file:
        file.write(
            "data: {larger: {strategy: boostqa, dials: {plan.questions: 1_000_000_000}}}\n"
            "arms: {larger: [larger, seeds], seeds_only: null}\n"
            "compare: [[boostqa, base], [larger, boostqa]]\n"
            "linkqa: {length: 3}\n"
        )
    return path


def profile_of(name: str, mine: str):
    return load_profile(mine if name == MINE else name)


@pytest.mark.parametrize("name", ALL)
def test_a_profile_written_as_yaml_is_read_back_exactly(tmp_path, mine, name):
    profile = profile_of(name, mine)
    (tmp_path / "written.yaml").write_text(as_yaml(profile), encoding="utf-8")
    assert load_profile(tmp_path / "written.yaml") == profile


@pytest.mark.parametrize("name", ALL)
def test_a_rehearsal_keeps_what_is_compared_and_shrinks_what_is_paid_for(tmp_path, mine, name):
    profile = profile_of(name, mine)
    small = load_profile(write_rehearsal(profile, tmp_path, log=str))
    assert {part: getattr(small, part) for part in KEPT} == {part: getattr(profile, part) for part in KEPT}
    for axis in ("tokens", "initial"):
        assert getattr(small.scaling, axis) == getattr(profile.scaling, axis)
    assert small.midtrain.replay == profile.midtrain.replay
    assert [about.strategy for about in small.data.values()] == [about.strategy for about in profile.data.values()]
    assert len(small.ladder) == len(profile.ladder)
    assert bool(small.student.checkpoint) == bool(profile.student.checkpoint)
    assert small.teacher.base_url == "offline"
    asked = [small.plan.questions, *(about.dials.get("plan.questions", 0) for about in small.data.values())]
    assert max(asked) <= AMOUNTS["plan.questions"]
    assert small.midtrain.tokens <= AMOUNTS["midtrain.tokens"]


def test_amounts_in_ablations_are_shrunk_too(tmp_path):
    turned = ({"plan.questions": 10**9}, {"boostqa": {"trial": 10**6, "refine": False}})
    small = load_profile(write_rehearsal(load_profile("smoke", ablations=turned), tmp_path, log=str))
    most = AMOUNTS["plan.questions"], AMOUNTS["boostqa.trial"]
    assert small.ablations == ({"plan.questions": most[0]}, {"boostqa": {"trial": most[1], "refine": False}})


def test_checkpoints_of_one_size_stay_of_one_size(tmp_path, mine):
    small = load_profile(write_rehearsal(load_profile(mine), tmp_path, log=str))
    student, early, other = (load_causal_lm(entry.checkpoint) for entry in small.ladder)
    assert small.ladder[0].checkpoint == small.student.checkpoint != small.ladder[1].checkpoint
    assert [entry.tokens for entry in small.ladder] == [2_000_000, 200_000, 2_000_000]
    assert student.num_parameters() == early.num_parameters() != other.num_parameters()


@pytest.mark.parametrize("architecture", ["GPT2", "Qwen3", "Mixtral", "DeepseekV3"])
def test_the_tiny_model_is_of_the_same_architecture(tmp_path, mine, architecture):
    import torch
    import transformers

    config = getattr(transformers, f"{architecture}Config")(tie_word_embeddings=False)
    config.save_pretrained(tmp_path / "large")
    profile = load_profile(mine, **{"student.checkpoint": str(tmp_path / "large"), "ladder": ()})
    small = load_profile(write_rehearsal(profile, tmp_path / "small", log=str)).student
    model = load_causal_lm(small.checkpoint)
    assert model.config.model_type == config.model_type
    assert not model.config.tie_word_embeddings
    assert model.num_parameters() < 5_000_000
    assert model(input_ids=torch.arange(20)[None]).logits.isfinite().all()


def test_a_model_that_is_not_at_hand_is_stood_in_for_and_named(tmp_path):
    said = []
    small = load_profile(write_rehearsal(load_profile("paper"), tmp_path, log=said.append))
    assert load_config(small.student.checkpoint).model_type == "llama"
    assert said == ["rehearsal: meta-llama/Meta-Llama-3-8B is not on this machine; a tiny Llama takes its place"]
    assert (small.student.memory, small.student.checkpointing, small.student.micro_batch) == ("low", True, 1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["paper", MINE])
def test_every_notebook_and_the_report_are_rehearsed_offline(tmp_path, mine, name):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI_")}
    environment |= {"QATOOLKIT_RESULTS": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [
        sys.executable,
        "-m",
        "qatoolkit.run.cli",
        "run",
        "--rehearse",
        "--profile",
        mine if name == MINE else name,
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    folder = tmp_path / f"{name}-rehearsal"
    assert sorted(p.stem for p in (folder / "notebooks").glob("*.ipynb")) == sorted(
        chosen([], profile_of(name, mine).beside)
    )
    assert (folder / "report.html").is_file()
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["arms"]) == {"base", *profile_of(name, mine).arms}
