"""No code of a checkpoint runs and nobody is asked: on a terminal and with piped answers, wherever one is opened."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from small_training import job, sums
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from qatoolkit.core.artifacts import write_sealed
from qatoolkit.core.qa_table import write_table
from qatoolkit.training.hub import load_causal_lm, load_config
from qatoolkit.training.job import write_job

OPEN_ALL = """
import sys
from pathlib import Path
from qatoolkit.evaluation.bits import bits_per_byte
from qatoolkit.evaluation.cloze import load_model
from qatoolkit.evaluation.evaluate import evaluate
from qatoolkit.evaluation.lm_eval_models import CountingHFLM, FastScorer
from qatoolkit.evaluation.probe import probe
from qatoolkit.core.qa_table import read_table
from qatoolkit.run.cli import main
from qatoolkit.training import checkpoints, hub

folder, here = sys.argv[1:]
table = read_table(Path(here) / "asked.parquet")
exam = f"{here}/exam.jsonl"
commands = [
    ["train", f"{here}/run.yaml"], ["train", f"{here}/run.yaml", "--plan"], ["train", f"{here}/tokenizer.yaml"],
    ["tokenise", exam, "--tokenizer", folder, "--out", f"{here}/tokens"],
    ["plan", "--profile", f"{here}/profile.yaml"], ["run", "--profile", f"{here}/profile.yaml", "--only", "01"],
    ["run", "--profile", f"{here}/profile.yaml", "--rehearse", "--only", "01"],
]
calls = {
    "config": lambda: hub.load_config(folder), "model": lambda: hub.load_causal_lm(folder),
    "tokenizer": lambda: hub.load_tokenizer(folder), "score": lambda: load_model(folder),
    "adopt": lambda: checkpoints.adopt(folder, Path(here) / "adopted"),
    "soup": lambda: checkpoints.soup([folder, folder], Path(here) / "soup"),
    "evaluate": lambda: evaluate(folder, exam, form="cloze", scorer="hf"),
    "fast": lambda: evaluate(folder, exam, form="cloze", scorer="fast"),
    "probe": lambda: probe(folder, table), "bits": lambda: bits_per_byte(folder, ["text"]),
    "lm-eval": lambda: CountingHFLM(pretrained=folder), "lm-eval fast": lambda: FastScorer(pretrained=folder),
    "lm-eval trusting": lambda: CountingHFLM(pretrained=folder, trust_remote_code=True),
}
for name, call in calls.items():
    try:
        call()
        print("OPENED", name)
    except (ValueError, OSError, RuntimeError) as error:
        print("refused", name, "in one line" if "\\n" not in str(error) else "in many", str(error).splitlines()[0])
    except Exception as error:
        print("RAISED", name, repr(error))
for command in commands:
    print("code", main(command), *command[:1])
"""


def hostile(folder: Path, tokenizer: Path, kind: str) -> Path:
    """A checkpoint whose Python file writes `ran` when it is imported."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=len(tokenizer), **size)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nOwn = Model = None\n")
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text((folder / "own.py").read_text())
    if kind == "model":
        own = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Model"}
        change(folder / "config.json", model_type="own", auto_map=own)
    else:
        own = {"AutoTokenizer": ["own.Own", None], "AutoProcessor": "own.Own"}
        change(folder / "tokenizer_config.json", tokenizer_class="Own", auto_map=own)
    return folder


def change(file: Path, **fields) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def on_a_terminal(command: list[str], **settings) -> str:
    """The output of a command on a terminal where somebody answers y to everything."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        **settings,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, b"y\n" * 100)
    try:
        return process.communicate(timeout=300)[0]
    finally:
        process.kill()
        os.close(ours)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["model", "tokenizer"])
@pytest.mark.parametrize("answers", ["on a terminal", "piped"])
def test_no_command_and_no_function_runs_the_code_of_a_checkpoint(world, tmp_path, kind, answers):
    folder = hostile(tmp_path / "hostile", world / "tokenizer", kind)
    write_table(sums(), tmp_path / "asked.parquet")
    rows = [{"question": "1 + 1?", "choices": ["2", "3"], "answer": "2"}] * 3
    (tmp_path / "exam.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_job(job(world, tmp_path / "out", start=folder, tokenizer=None), tmp_path / "run.yaml")
    write_job(job(world, tmp_path / "out", tokenizer=folder), tmp_path / "tokenizer.yaml")
    (tmp_path / "profile.yaml").write_text(f"base: smoke\nname: own\nstudent: {{checkpoint: {folder}}}\n")
    here = os.environ | {
        "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "QATOOLKIT_RESULTS": str(tmp_path / "results"),
    }  # fmt: skip
    command = [sys.executable, "-c", OPEN_ALL, str(folder), str(tmp_path)]
    if answers == "piped":
        said = subprocess.run(
            command, input="y\n" * 100, env=here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=300, check=False,
        ).stdout  # fmt: skip
    else:
        said = on_a_terminal(command, env=here)
    assert not (folder / "ran").exists(), said
    assert "[y/N]" not in said
    assert "Traceback" not in said, said
    assert "RAISED" not in said, said
    assert "in many" not in said, said
    assert said.count("refused ") + said.count("OPENED ") == 13, said
    assert said.count("\ncode ") == 7, said


NESTED = '{"a":' * 100_000 + "1" + "}" * 100_000


@pytest.mark.parametrize(
    "fields",
    [
        {"num_hidden_layers": 10**9}, {"vocab_size": 10**12}, {"hidden_size": 2**24}, {"intermediate_size": 2**25},
        {"num_attention_heads": 0}, {"hidden_size": -1}, {"hidden_size": "large"}, {"hidden_size": None},
        {"hidden_size": [1]}, {"num_hidden_layers": 1.5}, {"rope_parameters": "none"}, {"architectures": 3},
        {"dtype": "os.system"}, {"model_type": ["llama"]}, {"attn_implementation": "some/kernel"},
        {"_attn_implementation": "some/kernel"}, {"num_key_value_heads": 10**12}, {"head_dim": 10**9}, NESTED,
    ],
    ids=lambda fields: str(fields)[:30],
)  # fmt: skip
def test_a_hostile_configuration_ends_in_one_line(world, tmp_path, fields):
    folder = hostile(tmp_path / "one", world / "tokenizer", "tokenizer")
    if isinstance(fields, str):
        (folder / "config.json").write_text(fields)
    else:
        change(folder / "config.json", **fields)
    try:
        load_config(folder)
        load_causal_lm(folder)
    except (ValueError, OSError) as error:
        said = str(error)
    else:
        said = f"{folder} is opened"
    assert "\n" not in said
    assert str(folder) in said
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("files", [3, [], {"config.json": 3}, {"config.json": {}}, {"../../etc/passwd": {"bytes": 1}}])
def test_hostile_digests_end_in_one_line(world, tmp_path, files):
    folder = hostile(tmp_path / "one", world / "tokenizer", "tokenizer")
    write_sealed({"files": files}, folder / "digests.json")
    with pytest.raises(OSError, match=f"{folder}/digests.json is damaged"):
        load_config(folder)
