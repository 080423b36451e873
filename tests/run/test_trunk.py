"""Points along tokens from one training: a trunk whose rate falls to zero on the side for each of them."""

import pytest

from qatoolkit.core.files import read_json
from qatoolkit.run import stages
from qatoolkit.run.stages.flow import run_to
from qatoolkit.run.store import open_run

pytestmark = pytest.mark.timeout(900)
SHARES = (0.25, 0.5, 1.0)
FEW = {
    "arms": {"seeds_only": None, "boostqa_untargeted": None, "linkqa": None, "boostqa_linkqa": None},
    "compare": [["boostqa", "base"]],
    "ablations": [],
}


def test_points_along_tokens_take_no_training_of_their_own(smoke, trained_here):
    dials = {"midtrain.schedule": "wsd", "scaling.tokens": SHARES, "scaling.at": 0.5} | FEW
    run = open_run("trunk", root=smoke.results, profile="smoke", seed=0, **dials)
    run_to(run, "midtrain", log=str)
    arm, control, tokens = run.profile.main_arm, run.profile.control, run.profile.midtrain.tokens
    out = stages.scaling(run, log=str)
    used = {name: read_json(run.root / "stages" / name / "training.json") for name in run.manifest("scaling")["uses"]}
    of_arms = {artifact for artifact, training in used.items() if training["name"] in (arm, control)}
    assert of_arms == {run.read("midtrain").models[name] for name in (arm, control)}

    along = out.points[(out.points["axis"] == "tokens") & (out.points["arm"] == arm)]
    assert along["x"].tolist() == [round(share * tokens) for share in SHARES]
    ours = out.runs[out.runs["arm"] == arm].drop_duplicates("tokens").set_index("tokens").sort_index()
    assert (ours["flops"] / ours["flops"].iloc[-1]).tolist() == pytest.approx(list(SHARES), rel=0.15)
    assert ours["accuracy"].nunique() > 1
    assert ours["flops"].iloc[-1] == run.read("midtrain").training[arm]["flops"]
