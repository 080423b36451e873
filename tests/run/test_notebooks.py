"""The notebooks run top to bottom, in order, from the command line; a second run does nothing."""

import json
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
from conftest import ROOT

from qatoolkit import figures as plots
from qatoolkit.core.files import write_json
from qatoolkit.run import cli, figures, report
from qatoolkit.run import notebooks as runner
from qatoolkit.run.contracts import BESIDE, stage
from qatoolkit.run.cost import read_local_seeds, requests
from qatoolkit.run.notebooks import ORDER, chosen
from qatoolkit.run.store import open_run
from qatoolkit.run.tables.synthesis import spend

pytestmark = pytest.mark.timeout(1500)
PYTHON = {"name": "python3", "language": "python", "display_name": "Python"}
DEGREES = pd.DataFrame({"degree": [1, 2, 2]})


def again(smoke, *arguments):
    command = [sys.executable, "-m", "qatoolkit.run.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, env=smoke.environment, capture_output=True, text=True)


def test_every_notebook_of_the_folder_is_run():
    assert sorted(ORDER) == sorted(p.stem for p in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("name", sorted(ORDER))
def test_notebook_ran_and_shows_something(smoke, name):
    notebook = nbformat.read(smoke.folder / "notebooks" / f"{name}.ipynb", as_version=4)
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    assert any("text/html" in o.get("data", {}) or "image/png" in o.get("data", {}) for o in outputs)
    heads = (n for n, cell in enumerate(notebook.cells) if "## By hand" in cell.source)
    by_hand = notebook.cells[next(heads, len(notebook.cells)) :]
    assert "\nno rows" not in "".join(
        o.get("data", {}).get("text/plain", "") for cell in by_hand for o in cell.get("outputs", ())
    )


def test_every_notebook_found_an_empty_kernel(smoke):
    for name in ORDER:
        notebook = nbformat.read(smoke.folder / "notebooks" / f"{name}.ipynb", as_version=4)
        assert next(cell.execution_count for cell in notebook.cells if cell.cell_type == "code") == 1, name


@pytest.fixture
def executed(tmp_path):
    """A function that executes cells as a notebook of its own in one shared kernel, and returns the last line."""
    with runner.SharedKernel() as kernel:

        def execute(*cells):
            source = tmp_path / "source.ipynb"
            notebook = nbformat.v4.new_notebook(
                cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata={"kernelspec": PYTHON}
            )
            nbformat.write(notebook, source)
            run = SimpleNamespace(name="any", seed=0)
            runner._execute(run, "smoke", source, tmp_path / "done" / "source.ipynb", "key", kernel)
            done = nbformat.read(tmp_path / "done" / "source.ipynb", as_version=4)
            return done.cells[-1].outputs[-1].text.strip()

        yield execute


def test_notebooks_share_what_is_loaded_but_no_name_and_no_figure(executed):
    first = executed(
        "import os, json as left_behind, matplotlib.pyplot as plt; plt.figure(); left_behind.loaded = os.getpid()",
        "print(os.getpid())",
    )
    second = executed(
        "import os, sys; assert 'left_behind' not in globals() and len(In) == 3, In  # parameters, this",
        "import matplotlib.pyplot as plt; assert not plt.get_fignums()",
        "assert sys.modules['json'].loaded == os.getpid()",
        "print(os.getpid())",
    )
    assert first == second


def test_a_kernel_that_ended_between_two_notebooks_is_replaced(executed):
    first = executed("import os, threading; threading.Timer(0.2, os._exit, [1]).start()", "print(os.getpid())")
    time.sleep(1)
    assert first != executed("import os", "print(os.getpid())")


def test_a_kernel_that_has_used_a_gpu_is_replaced(executed):
    used = "import os, sys, types; torch = sys.modules['torch'] = types.ModuleType('torch')"
    first = executed(used, "torch.cuda = types.SimpleNamespace(is_initialized=lambda: True)", "print(os.getpid())")
    assert first != executed("import os", "print(os.getpid())")


def test_the_plan_counts_what_every_stage_sends(smoke):
    run = open_run("smoke", root=smoke.results)
    sent = spend(run).assign(stage=lambda t: t["stage"].str.replace(r"^rounds/.*", "rounds", regex=True))
    sent = sent.groupby("stage")["attempts"].sum().drop("error_rates")  # offline teachers alone
    asked = requests(run.profile, seeds=read_local_seeds(run.profile)).groupby("stage")["requests"].sum()
    assert set(sent.index) <= set(asked.index)
    assert sent["annotate"] == asked["annotate"]
    assert (sent <= 1.1 * asked[sent.index]).all()
    # its count is an upper bound that only a study of few disciplines comes near (test_cost.py)
    assert sent["adjustment"] <= asked["adjustment"]
    assert sent.drop("adjustment").sum() >= 0.8 * asked.drop("adjustment").sum()


def test_second_run_does_nothing_and_says_so(smoke):
    started = time.perf_counter()
    done = again(smoke, "run", "--profile", "smoke")
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout
    assert time.perf_counter() - started < 30


def test_summary_holds_every_arm_exam_and_axis(smoke):
    summary = json.loads((smoke.folder / "summary.json").read_text())
    assert list(summary["arms"]) == [
        "base",
        "seeds_only",
        "general_control",
        "boostqa_untargeted",
        "boostqa",
        "linkqa",
        "boostqa_linkqa",
    ]
    for arm in summary["arms"].values():
        assert set(arm["exams"]) == {"textbook_en", "textbook_zh", "textbook_pro", "textbook_math"}
        assert all(0 <= e["low"] <= e["accuracy"] <= e["high"] <= 1 and e["n"] > 0 for e in arm["exams"].values())
        assert arm["cells"]
        assert arm["tokens"] > 0
        assert arm["flops"] > 0
    assert {c["on"] for c in summary["comparisons"]} == {"weak", "other", "all"}
    assert set(summary["scaling"]) == {"parameters", "tokens", "initial_flops"}
    assert all(len(points) >= 2 for points in summary["scaling"].values())
    assert set(summary["refinement"]) >= {"teacher_error_rate", "wrong_before", "wrong_after", "n"}
    assert set(summary["seconds"]) >= {"base", "midtrain", "evaluate"}


def test_arms_are_matched_in_tokens(smoke):
    arms = json.loads((smoke.folder / "summary.json").read_text())["arms"]
    tokens = [arm["tokens"] for name, arm in arms.items() if name != "base"]
    assert max(tokens) - min(tokens) < 0.02 * max(tokens)


def test_report_is_one_self_contained_page(smoke):
    page = (smoke.folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 10
    assert "http://" not in page
    assert "https://" not in page


def test_status_names_what_is_done(smoke):
    done = again(smoke, "status", "--profile", "smoke")
    assert done.returncode == 0
    assert "to do" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("run", "--profile", "nope"), "nope"),
        (("run", "--profile", "smoke", "--run", "../outside"), "../outside"),
        (("run", "--profile", "smoke", "--only", "99_none"), "99_none"),
        (("run", "--profile", "missing.yaml"), "missing.yaml"),
        (("teacher", "serve", "--faults", "gremlins=1"), "gremlins"),
        (("teacher", "serve", "--port", "99999"), "99999"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(smoke, arguments, names, monkeypatch, capsys):
    for name in ("QATOOLKIT_RESULTS", "OPENAI_BASE_URL", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, smoke.environment[name])
    before = sorted(smoke.results.rglob("*"))
    assert cli.main([*arguments]) == 2
    said = capsys.readouterr().err
    assert names in said
    assert len(said.strip().splitlines()) == 1
    assert sorted(smoke.results.rglob("*")) == before


def test_missing_upstream_names_the_notebook_and_the_command(smoke):
    done = again(smoke, "run", "--profile", "smoke", "--run", "empty", "--only", "06_curate")
    assert done.returncode == 1
    assert "--only 02_annotate" in done.stderr or "--only 01_seeds" in done.stderr


def test_the_plain_library_opens_the_result(smoke):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = smoke.folder / "models" / "boostqa"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer("Question: What is the capital of Japan?\nAnswer:", return_tensors="pt")
    assert model.generate(**prompt, max_new_tokens=4, do_sample=False).shape[1] > prompt["input_ids"].shape[1]


def test_the_lm_eval_command_gives_the_same_accuracy(smoke, tmp_path, lm_eval_command):
    lm_eval_command(
        "--model_args", f"pretrained={smoke.folder / 'models' / 'boostqa'},dtype=float32",
        "--include_path", smoke.folder / "evaluate" / "tasks", "--tasks", "textbook_zh",
        "--batch_size", 64, "--output_path", tmp_path / "out",
    )  # fmt: skip
    [file] = (tmp_path / "out").rglob("results*.json")
    accuracy = json.loads(file.read_text())["results"]["textbook_zh"]["acc,none"]
    summary = json.loads((smoke.folder / "summary.json").read_text())
    assert accuracy == pytest.approx(summary["arms"]["boostqa"]["exams"]["textbook_zh"]["accuracy"], abs=1e-9)


def executed_by_hand(monkeypatch, seconds=0.0):
    """Names of the notebooks that a runner without kernels executes."""
    names = []

    def execute(run, profile, source, target, key, kernel):
        names.append(source.stem)
        time.sleep(seconds)
        write_json({"metadata": {"qatoolkit": {"key": key}}}, target)

    monkeypatch.setattr(runner, "_execute", execute)
    return names


def test_of_two_commands_at_once_each_notebook_is_executed_by_one(tmp_path, monkeypatch):
    names, run = executed_by_hand(monkeypatch, 0.2), open_run("trial", profile="smoke", root=tmp_path)
    commands = [threading.Thread(target=runner.run_notebooks, args=(run, "smoke", ["00"], str)) for _ in range(2)]
    [command.start() for command in commands]
    [command.join() for command in commands]
    assert names == ["00_tour"]


def test_a_notebook_whose_stage_is_gone_or_whose_file_changed_is_executed_again(tmp_path, monkeypatch):
    @stage("seeds", settings=("seeds",), files=("seeds.sources",))
    def seeds(run, folder):
        return {"value": 1}

    mine = tmp_path / "mine.jsonl"
    mine.write_text("a")
    run = open_run("trial", profile="smoke", root=tmp_path, **{"seeds.sources": [str(mine)]})
    names = executed_by_hand(monkeypatch)
    stage("exams")(lambda run, folder: {"value": 1})(run, log=str)
    seeds(run, log=str)
    assert [runner.run_notebooks(run, "smoke", ["01"], str) for _ in range(2)] == [1, 0]
    mine.write_text("b")
    assert runner.run_notebooks(run, "smoke", ["01"], str) == 1
    seeds(run, log=str)
    assert runner.run_notebooks(run, "smoke", ["01"], str) == 0
    (run.stage("seeds") / "manifest.json").unlink()
    assert runner.run_notebooks(run, "smoke", ["01"], str) == 1
    assert names == ["01_seeds"] * 3


def test_a_relative_results_folder_is_the_same_for_the_command_and_its_notebooks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QATOOLKIT_RESULTS", "out")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    told = []
    monkeypatch.setattr(runner, "run_notebooks", lambda *a: told.append(os.environ["QATOOLKIT_RESULTS"]) or 0)
    assert cli.main(["run", "--profile", "smoke"]) == 0
    assert told == [str(tmp_path / "out")]


def test_status_names_what_changed_since(tmp_path, monkeypatch, capsys):
    @stage("seeds", settings=("plan",))
    def seeds(run, folder):
        return {"value": 1}

    monkeypatch.setenv("QATOOLKIT_RESULTS", str(tmp_path))
    seeds(open_run("smoke", profile="smoke"), log=str)
    assert cli.main(["status", "--profile", "smoke"]) == 0
    assert "seeds              done in" in capsys.readouterr().out
    asked = ["status", "--profile", "demo", "--run", "smoke", "--seed", "1"]
    assert cli.main(asked) == 2
    assert "run 'smoke' was made with other settings: profile was 'smoke' and is 'demo'" in capsys.readouterr().err
    assert cli.main([*asked, "--change"]) == 0
    assert "seeds              to do again, plan, seed changed: 01_seeds" in capsys.readouterr().out


def test_the_report_states_profile_and_seed_of_the_results_and_draws_figures_that_are_gone(tmp_path, monkeypatch):
    @stage("summary")
    def summary(run, folder):
        return {"summary": {"profile": "smoke", "seed": 0, "arms": {}, "comparisons": [], "refinement": {}}}

    def degree(run):
        """Degrees"""
        return plots.kp_degree(DEGREES)

    monkeypatch.setattr(figures, "FIGURES", {"degree": degree})
    summary(open_run("trial", profile="smoke", root=tmp_path), log=str)
    page = report.write_report(open_run("trial", profile="demo", seed=5, root=tmp_path, change=True)).read_text(
        encoding="utf-8"
    )
    assert "smoke, seed 0" in page
    assert "<figcaption>Degrees</figcaption>" in page


def test_doctor_finds_a_results_folder_that_is_a_file_and_tells_no_password(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QATOOLKIT_RESULTS", str(tmp_path / "file" / "results"))
    monkeypatch.setenv("OPENAI_BASE_URL", "https://me:secret@host.example/v1")
    assert cli.main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert f"FAIL results folder: {tmp_path / 'file'} is not a writable folder" in said
    assert "ok   teacher: https://host.example/v1" in said
    assert "secret" not in said


def test_a_port_that_is_none_is_one_clear_line(capsys):
    assert cli.main(["teacher", "serve", "--port", "99999"]) == 2
    assert capsys.readouterr().err == "qatoolkit: --port 99999: a port is a number from 0 to 65535\n"


def test_only_takes_a_number_or_a_name():
    assert chosen(["03"]) == ["03_probe"]
    assert chosen(["11_figures", "02_annotate.ipynb"]) == ["02_annotate", "11_figures"]
    assert set(ORDER) - set(chosen([], beside=False)) == set(BESIDE.values())
    assert chosen(["13"], beside=False) == ["13_rounds"]
    with pytest.raises(ValueError, match="99"):
        chosen(["99"])
