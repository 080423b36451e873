"""A job is checked before anything loads, and its rate moves as asked."""

import pytest

from qatoolkit.training.job import Job, identity, job_of, learning_rate, read_job


def job(**fields):
    return Job(
        **{"name": "j", "out": "o", "size": "xxs", "tokenizer": "t", "qa": "q", "general": "g", "tokens": 1000} | fields
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"start": "a"},
        {"size": None},
        {"tokenizer": None},
        {"batch": 0},
        {"micro_batch": 0},
        {"tokens": 0},
        {"block": 1},
        {"replay": 1.1},
        {"schedule": "sine"},
        {"rate": "inherit"},
        {"rate": "cold"},
        {"schedule": "wsd", "warmup": 0.9, "decay": 0.5},
        {"loss_on": "prompt"},
        {"memory": "tiny"},
        {"betas": (0.9,)},
        {"keep": (0.0,)},
        {"z_loss": -1.0},
        {"seed": -1},
        {"qa": None},
        {"general": None},
    ],
)
def test_a_job_that_makes_no_sense_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match="'j'"):
        job(**wrong)


def rates(**fields):
    return [learning_rate(step, 100, job(learning_rate=1.0, warmup=0.1, **fields)) for step in range(100)]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "wsd"])
def test_the_rate_warms_up_to_its_peak(schedule):
    found = rates(schedule=schedule)
    assert found[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert max(found) == pytest.approx(1.0)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "wsd"])
def test_the_rate_falls_to_zero(schedule):
    found = rates(schedule=schedule)
    assert found[-1] < 0.06
    assert found[10:] == sorted(found[10:], reverse=True)


def test_a_trunk_stays_at_its_rate_and_wsd_until_its_decay():
    assert set(rates(schedule="constant")[10:]) == {1.0}
    found = rates(schedule="wsd", decay=0.3)
    assert set(found[10:71]) == {1.0}
    assert found[-1] == pytest.approx(1 / 30)


def test_an_inherited_rate_neither_warms_up_nor_jumps():
    one = job(size=None, start="s", rate="inherit", learning_rate=9.0)
    assert learning_rate(0, 100, one, inherited=0.5) == 0.5
    assert learning_rate(99, 100, one, inherited=0.5) == pytest.approx(0.005)


def test_a_job_is_read_from_yaml_with_paths_beside_it(tmp_path):
    (tmp_path / "trunk").mkdir()
    (tmp_path / "run.yaml").write_text(
        "start: trunk\nqa: data/qa\nreplay: 0\ntokens: 40e9\nlearning_rate: 3e-5\nout: done\n"
    )
    found = read_job(tmp_path / "run.yaml")
    assert (found.name, found.tokens, found.learning_rate) == ("run", 40_000_000_000, 3e-5)
    assert found.qa == str(tmp_path / "data/qa")
    assert found.start == str(tmp_path / "trunk")
    (tmp_path / "hub.yaml").write_text("start: meta-llama/Meta-Llama-3-8B\nqa: q\nreplay: 0\ntokens: 1000\nout: o\n")
    assert read_job(tmp_path / "hub.yaml").start == "meta-llama/Meta-Llama-3-8B"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tokens: [1", "not valid YAML"),
        ("- 1", "expected the fields"),
        ("tokns: 5\ntokens: 5\nout: o", "tokns.*did you mean tokens"),
        ("tokens: 5", "out must be given"),
        ("tokens: many\nout: o", "tokens is 'many'; it must be int"),
        ("tokens: 1.5\nout: o", "tokens is 1.5"),
        ("tokens: 5\nout: o\nkeep: 1", "keep is 1; it must be a list"),
        ("tokens: 5\nout: o\ncompile: 1", "compile is 1; it must be bool"),
    ],
)
def test_a_faulty_file_is_refused_with_its_field(tmp_path, text, expected):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ValueError, match=expected) as caught:
        read_job(tmp_path / "run.yaml")
    assert "run.yaml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.yaml does not exist"):
        read_job(tmp_path / "nowhere.yaml")


def test_what_a_resumed_run_must_share_leaves_places_out():
    assert identity(job(), data="d") == identity(job(out="elsewhere", qa="moved"), data="d")
    assert identity(job(), data="d") != identity(job(learning_rate=1e-3), data="d")
    assert identity(job(), data="d") != identity(job(), data="e")


def test_a_job_survives_json():
    import json

    assert job_of(json.loads(job(keep=(0.5, 1.0)).model_dump_json())) == job(keep=(0.5, 1.0))


def test_the_job_of_the_readme_is_one(tmp_path):
    from conftest import ROOT

    readme = (ROOT / "README.md").read_text()
    block = readme[readme.index("# run.yaml") : readme.index("```", readme.index("# run.yaml"))]
    (tmp_path / "run.yaml").write_text(block)
    assert read_job(tmp_path / "run.yaml").tokens == 40_000_000_000
