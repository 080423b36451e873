"""One dial turned after a finished run: what is shared, what is made again, and how the two compare."""

import pytest

from qatoolkit.run.compare import compare, differing
from qatoolkit.run.profiles import load_profile
from qatoolkit.run.stages import run_to
from qatoolkit.run.store import MissingUpstream, open_run

pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def runs(smoke, trained_here):
    """The finished smoke run, and the same with refinement off in BoostQA, up to its evaluation."""
    other = open_run("no-refine", profile="smoke", root=smoke.results, **{"boostqa.refine": False})
    run_to(other, "evaluate")
    return open_run("smoke", profile="smoke", root=smoke.results), other


def test_what_the_dial_does_not_touch_is_shared(runs):
    run, other = runs
    shared = {stage for stage in other.pointers() if other.stage(stage) == run.stage(stage)}
    assert {"exams", "seeds", "annotate", "base", "probe", "plan", "linkqa"} <= shared
    assert not {"boostqa", "boostqa_untargeted", "curate", "midtrain", "evaluate"} & shared
    for arm in ("base", "seeds_only", "general_control", "linkqa"):
        assert other.model(arm) == run.model(arm)
    assert other.model("boostqa") != run.model("boostqa")


def test_changed_lists_of_the_profile_are_named(runs, smoke):
    run, _ = runs
    dials = {"arms": {"linkqa": None, "boostqa_linkqa": None}, "compare": [["boostqa", "base"]], "ablations": []}
    fewer = open_run("smoke", profile="smoke", root=smoke.results, change=True, **dials)
    assert run.changed("evaluate") == run.changed("ablations") == []
    assert fewer.changed("curate") == ["sets"]
    assert fewer.changed("midtrain") == ["arms"]
    assert fewer.changed("evaluate") == ["compare"]
    assert fewer.changed("ablations") == ["ablations", "arms"]


def test_a_comparison_names_the_dial_and_pairs_the_arms(runs):
    run, other = runs
    found = compare(other, run)
    assert found.settings.values.tolist() == [["boostqa.refine", "False", "True"]]
    paired = found.paired.set_index(["arm", "on"])
    assert {"base", "seeds_only", "linkqa"} <= set(found.same)
    assert set(found.paired["arm"]) | set(found.same) == {"base", *run.profile.arms}
    assert not set(found.paired["arm"]) & set(found.same)
    samples = [
        # a question of two exams counts once
        r.read("evaluate").samples.query("arm == 'boostqa' and exam != 'textbook_math'").drop_duplicates("id")
        for r in (other, run)
    ]
    assert paired.loc[("boostqa", "all"), "n"] == len(samples[0])
    gain = samples[0]["correct"].mean() - samples[1]["correct"].mean()
    assert paired.loc[("boostqa", "all"), "difference"] == pytest.approx(gain)
    assert found.figure().axes
    for text in (repr(found), found._repr_html_()):
        assert "boostqa.refine" in text
        assert "seeds_only" in text.replace(" ", "_")


def test_runs_that_cannot_be_compared_say_why(runs, tmp_path):
    run, other = runs
    with pytest.raises(ValueError, match="arm is 'mine'; the runs share base, "):
        compare(other, run, arm="mine")
    with pytest.raises(MissingUpstream, match="08_evaluate"):
        compare(run, open_run("fresh", profile="smoke", root=tmp_path))


def test_profiles_differ_by_dial():
    a, b = load_profile("smoke"), load_profile("smoke", **{"plan.questions": 9, "boostqa.refine": False})
    assert differing(a, a).empty
    assert set(differing(a, b)["dial"]) == {"plan.questions", "boostqa.refine"}


def test_names_in_place_of_runs_are_told_how_to_open_them():
    with pytest.raises(ValueError, match=r"'smoke' is not a run: qt\.open_run"):
        compare("smoke", "other")
