"""Rounds: each looks at the live checkpoint, the parts are one run, the exams are answered once, at the end, and a kill
costs nothing."""

from types import SimpleNamespace

import pandas as pd
import pytest

from qatoolkit.core.files import read_json
from qatoolkit.core.stats import CELL
from qatoolkit.evaluation import probe as probing
from qatoolkit.run import stages, tables
from qatoolkit.run.findings import findings
from qatoolkit.run.stages import evaluation, loops, training
from qatoolkit.run.stages.data import exam_tables, probe_questions
from qatoolkit.run.store import open_run
from qatoolkit.training.job import learning_rate

pytestmark = pytest.mark.timeout(900)
SMALL = {"rounds.n": 2, "rounds.seeds": 2, "rounds.tokens": 4_000}


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def ran(smoke, trained_here):
    """Rounds of two seeds beside the smoke run, killed before the second part is trained and started again; `order` is
    what happened in order."""
    run = open_run("rounds", profile="smoke", root=smoke.results, **SMALL)
    stages.run_to(run, "curate", log=str)
    order, patch = [], pytest.MonkeyPatch()

    def noted(module, name, note):
        real = getattr(module, name)

        def called(*given, **more):
            order.append(note(*given))
            return real(*given, **more)

        patch.setattr(module, name, called)

    noted(probing, "score", lambda model, tokenizer, table: ("asked", frozenset(table["id"])))
    noted(evaluation, "score", lambda model, tokenizer, table: ("asked", frozenset(table["id"])))
    noted(training, "train_all", lambda jobs: ("trained", [(job.name, job.seed) for job in jobs]))
    noted(loops, "plan_budget", lambda grid, settings, history: ("planned", history))
    real, fresh = loops.round_job, []

    def killed(run, loop, nth, *more):
        if nth == 1 and not fresh:
            fresh.append(True)
            raise Killed
        return real(run, loop, nth, *more)

    patch.setattr(loops, "round_job", killed)
    with pytest.raises(Killed):
        stages.rounds(run, log=str)
    half = len(order)
    out = stages.rounds(run, log=str)
    patch.undo()
    return SimpleNamespace(run=run, out=out, order=order, half=half)


def test_the_exams_are_answered_once_and_at_the_end(ran):
    exams = {id for table in exam_tables(ran.run).values() for id in table["id"]}
    probes = set(probe_questions(ran.run)["id"])
    assert not exams & probes
    asked = [(at, ids) for at, (what, ids) in enumerate(ran.order) if what == "asked"]
    of_exams = [at for at, ids in asked if ids & exams]
    assert all(ids <= probes for at, ids in asked if at < min(of_exams))
    last = max(at for at, (what, jobs) in enumerate(ran.order) if what == "trained" and jobs)
    assert min(of_exams) > last
    models = ran.out.accuracies.groupby(["arm", "seed"]).ngroups
    assert len(of_exams) == models - 1  # one base for both seeds


def test_a_round_looks_at_what_the_one_before_it_left(ran):
    rows, cells = ran.out.rounds, ran.out.cells
    for seed, own in cells.groupby("seed"):
        first, second = (own[own["round"] == nth].set_index(CELL) for nth in (1, 2))
        pd.testing.assert_series_equal(first["accuracy_after"], second["accuracy"], check_names=False)
        assert (first["gain"] == first["accuracy_after"] - first["accuracy"]).all()
        assert own.groupby("round")["budget"].sum().tolist() == [60, 60]
        mine = rows[rows["seed"] == seed].set_index("round")
        assert mine["tokens"].tolist() == [0, 2_000, 4_000]
        assert mine.loc[1:, "gain"].tolist() == pytest.approx(mine["accuracy"].diff().dropna().tolist())
        assert own.groupby("round")["questions"].sum().le(mine.loc[1:, "questions"]).all()
        assert mine["stopped"].eq("all 2 rounds are used up").all()
    assert rows.loc[rows["round"] == 0, "accuracy"].nunique() == 1
    known = [history for what, history in ran.order if what == "planned"]
    assert [history is None for history in known] == [True, True, False, True, True, False, False]  # killed, and again
    first = cells[cells["seed"].eq(1) & cells["round"].eq(1)].reset_index(drop=True)
    pd.testing.assert_frame_equal(known[-1], first, check_like=True, check_dtype=False)


def test_questions_repeat_no_seed_and_no_earlier_round(ran):
    seeds = set(ran.run.read("annotate").seeds["id"])
    for _, own in ran.out.questions.groupby("seed"):
        assert set(own["round"]) == {1, 2}
        assert own["id"].is_unique
        assert not set(own["id"]) & seeds
        assert own["verified"].astype(bool).all()
    asked = ran.out.rounds.dropna(subset="asked")
    lost = ran.out.rejects.groupby(["seed", "round"]).size()
    assert (
        asked.set_index(["seed", "round"])["rejected"]
        .astype(int)
        .equals(lost.reindex(asked.set_index(["seed", "round"]).index))
    )


def test_the_parts_are_one_schedule(ran):
    trained = [
        read_json(ran.run.root / "stages" / name / "training.json") for name in ran.run.manifest("rounds")["uses"]
    ]
    parts = [one for one in trained if one["name"].startswith("boostqa round")]
    assert sorted(one["job"]["part"] for one in parts) == [[0.0, 0.5], [0.0, 0.5], [0.5, 1.0], [0.5, 1.0]]
    ends = {one["name"]: one["lr"] for one in parts}
    peak = ran.run.profile.midtrain.learning_rate
    assert 0 < ends["boostqa round 2"] < ends["boostqa round 1"] <= peak
    firsts = [one for one in parts if one["job"]["part"][0] == 0]
    job = training.arm_job(ran.run, "boostqa").model_copy(update={"part": (0.0, 0.5)})
    assert firsts[0]["lr"] == learning_rate(firsts[0]["steps"] - 1, firsts[0]["steps"], job)


def test_after_a_kill_nothing_is_asked_or_trained_twice(ran):
    jobs = [job for what, some in ran.order if what == "trained" for job in some]
    assert len(jobs) == len(set(jobs))
    before = [job for what, some in ran.order[: ran.half] if what == "trained" for job in some]
    assert [name for name, _ in before] == ["boostqa round 1"] * 2
    assert stages.rounds(ran.run, log=str).skipped
    with ran.run.ledger() as ledger:
        attempts = ledger.attempts()
    sent = attempts[attempts["stage"].str.startswith("rounds/seed") & attempts["run"].eq("rounds")]
    assert len(sent) > 0
    assert not attempts[attempts["key"].isin(sent["key"])].duplicated("key").any()


def test_one_pass_is_compared_over_as_many_tokens_and_questions(ran):
    pairs = {(a, b) for a, b in ran.out.comparisons[["a", "b"]].itertuples(index=False)}
    assert pairs == {("rounds", b) for b in ("one_pass", "general_control", "base")} | {("one_pass", "base")}
    assert ran.out.comparisons["seeds"].eq(2).all()
    found = ran.out.comparisons.set_index(["a", "b", "on"]).loc[("rounds", "one_pass", "all")]
    means = ran.out.accuracies.query("on == 'all'").groupby("arm")["accuracy"].mean()
    assert found["difference"] == pytest.approx(means["rounds"] - means["one_pass"])
    trained = [
        read_json(ran.run.root / "stages" / name / "training.json") for name in ran.run.manifest("rounds")["uses"]
    ]
    assert {one["job"]["tokens"] for one in trained if "round" not in one["name"]} == {4_000}
    asked = ran.out.accuracies.dropna(subset="questions").pivot_table("questions", "seed", "arm")
    assert asked["one_pass"].to_numpy() == pytest.approx(asked["rounds"].to_numpy(), rel=0.01)
    assert asked["rounds"].sum() == len(ran.out.questions)
    said = str(findings(ran.run, "rounds"))
    assert "2 rounds compared with one pass of as many tokens and questions, over 2 training seeds" in said
    plans = tables.rule_plans(ran.run)
    assert plans.groupby("rule")["budget"].sum().eq(ran.run.profile.plan.questions).all()


def test_rounds_end_where_a_round_gains_less_than_the_bound(ran):
    dials = SMALL | {"rounds.stop": 0.99, "rounds.seeds": 1}
    run = open_run("rounds_stopped", profile="smoke", root=ran.run.root, **dials)
    stages.run_to(run, "curate", log=str)
    out = stages.rounds(run, log=str)
    assert out.rounds["round"].max() == 1
    assert out.rounds["stopped"].iloc[-1].startswith("the gain of round 1 is below 0.99: its interval ends at")
    shorter = [read_json(run.root / "stages" / name / "training.json") for name in run.manifest("rounds")["uses"]]
    # one pass over the same part of the schedule, and as many tokens and questions
    assert {(tuple(one["job"]["part"]), one["job"]["tokens"]) for one in shorter} == {((0.0, 0.5), 2_000)}
    assert len(out.questions) == out.rounds["questions"].sum()


def test_a_data_set_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"rounds\.of is 'zoo'; it must be a data set of an arm: boostqa"):
        open_run("zoo", profile="smoke", root="nowhere", **{"rounds.of": "zoo"})
