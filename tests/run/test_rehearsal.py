"""A rehearsal walks a profile in small and keeps what is to be rehearsed."""

import json
import os
import subprocess
import sys

import pytest
from transformers import AutoConfig, GPT2Config, MixtralConfig, Qwen3Config

from qatoolkit.run.profiles import PROFILES, as_yaml, load_profile
from qatoolkit.run.rehearsal import write_rehearsal

KEPT = ("arms", "data", "compare", "ablations", "ablation_tokens", "strategies", "curate", "linkqa")


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_written_as_yaml_is_read_as_the_same(name, tmp_path):
    path = tmp_path / "again.yaml"
    path.write_text(as_yaml(PROFILES[name]), encoding="utf-8")
    assert load_profile(path) == PROFILES[name]


@pytest.mark.parametrize("name", ["demo", "paper", "smollm"])
def test_a_rehearsal_keeps_arms_comparisons_and_ablations_and_names_nothing_to_pay(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    profile = PROFILES[name]
    found = load_profile(write_rehearsal(profile, tmp_path))
    assert {part: getattr(found, part) for part in KEPT} == {part: getattr(profile, part) for part in KEPT}
    assert found.scaling.tokens == profile.scaling.tokens
    assert found.midtrain.replay == profile.midtrain.replay
    assert found.teacher.base_url == "offline"
    assert found.plan.questions <= 200
    assert found.midtrain.tokens <= 50_000


@pytest.mark.parametrize("config", [GPT2Config(), Qwen3Config(), MixtralConfig()], ids=lambda config: config.model_type)
def test_the_model_of_a_rehearsal_is_a_small_one_of_the_same_architecture(config, tmp_path):
    config.save_pretrained(tmp_path / "mine")
    (tmp_path / "mine" / "README.md").write_text("only a configuration")
    profile = load_profile("own", **{"student.checkpoint": str(tmp_path / "mine")})
    found = load_profile(write_rehearsal(profile, tmp_path / "small"))
    small = AutoConfig.from_pretrained(found.student.checkpoint)
    assert small.model_type == config.model_type
    weights = sum(p.stat().st_size for p in (tmp_path / "small").rglob("*.safetensors"))
    assert weights < 5_000_000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_paper_profile_is_rehearsed_end_to_end(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI_")}
    environment |= {"QATOOLKIT_RESULTS": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "qatoolkit.run.cli", "run", "--profile", "paper", "--rehearse"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    summary = json.loads((tmp_path / "paper-rehearsal" / "summary.json").read_text())
    assert set(summary["arms"]) == {"base", *PROFILES["paper"].arms}
    assert (tmp_path / "paper-rehearsal" / "report.html").is_file()
