"""Findings say where a number means little: arms without questions, repeated text, one document, short axes, no other
cells. Such runs are rare and long, so the tables are written by hand here."""

from types import SimpleNamespace

import pandas as pd
import pytest

from qatoolkit.run.findings import students
from qatoolkit.run.findings.phrases import without_repeats

ARMS = {"seeds_only": ("seeds",), "general_control": (), "boostqa": ("boostqa",)}
REPORT = pd.DataFrame(
    [("seeds", "rejected", "contaminated", 30), ("seeds", "flagged", "exam_parent", 3), ("boostqa", "kept", "", 9)],
    columns=["dataset", "outcome", "reason", "rows"],
)
EMPTY = (
    "seeds only has no questions left: all 30 were removed (contaminated 30); it read general text only, as the "
    "general control, so it is not ranked or compared."
)


def mixtures(seeds=20, general_epochs=0.4):
    table = pd.DataFrame({"arm": list(ARMS), "documents": [seeds, 0, 9], "qa": [70, 0, 70], "general": [30, 100, 30]})
    return table.assign(epochs=[1.0, 0.0, 2.0], general_epochs=[0.1, general_epochs, 0.1])


def differences(pairs, parts=("weak", "all"), n=40, **more):
    rows = [{"a": a, "b": b, "on": on} for a, b in pairs for on in parts]
    return pd.DataFrame(rows).assign(difference=0.2, low=0.1, high=0.3, n=n, p_holm=0.01, **more)


def beyond(parts=("weak", "all"), reader="position"):
    rows = [{"arm": arm, "on": on} for arm in ("base", *ARMS) for on in parts]
    blind = {"n": 40, "guessing": 0.25, "blind": 0.9, "reader": reader, "difference": 0.0, "low": -0.1, "high": 0.1}
    return pd.DataFrame(rows).assign(**blind)


def evaluated(**changes):
    tables = {
        "comparisons": differences([("boostqa", "base"), ("boostqa", "seeds_only")]),
        "over_blind": beyond().assign(n=[40, 60] * 4),
        "gains_by_blind": differences([("boostqa", "base"), ("boostqa", "seeds_only")], ["weak"]).assign(blind="wrong"),
        "general": pd.DataFrame(columns=["arm", "documents", "difference", "low", "high"]),
    }
    return SimpleNamespace(**tables | changes)


@pytest.fixture
def said(monkeypatch):
    """The findings of a stage of a run with these tables."""
    scores = pd.DataFrame({"arm": ["base", *ARMS], "weak accuracy": [0.2, 0.4, 0.3, 0.9], "all accuracy": 0.5})
    monkeypatch.setattr(students, "arm_scores", lambda run: scores)
    seeds = pd.DataFrame(columns=["on", "seed", "interval", "difference", "low", "high", "n"])
    monkeypatch.setattr(students, "training_seeds", lambda run: seeds)

    def write(stage, mixed=None, **tables):
        tables |= {"midtrain": SimpleNamespace(mixtures=mixtures() if mixed is None else mixed)}
        tables |= {"curate": SimpleNamespace(report=REPORT)}
        settings = SimpleNamespace(tokens=100)
        profile = SimpleNamespace(
            arms=ARMS, main_arm="boostqa", control="general_control", midtrain=settings, ablation_tokens=0.25
        )
        return list(getattr(students, stage)(SimpleNamespace(profile=profile, read=tables.__getitem__)))

    return write


def test_an_arm_without_questions_is_named_and_neither_ranked_nor_compared(said):
    assert EMPTY in said("midtrain", mixtures(seeds=0))
    lines = said("evaluate", mixtures(seeds=0), evaluate=evaluated())
    assert [line for line in lines if "seeds only" in line] == [EMPTY]
    assert any(line.startswith("BoostQA compared with base") for line in lines)
    whole = " ".join(said("evaluate", evaluate=evaluated()))
    assert "seeds only 40.0%" in whole
    assert "BoostQA compared with seeds only" in whole
    assert EMPTY not in whole


def test_general_text_that_was_read_often_is_named(said):
    [line] = [line for line in said("midtrain", mixtures(general_epochs=1500)) if "memorised" in line]
    assert "General text was read up to 1,500 times: general control 1,500 times." in line
    assert not any("memorised" in line for line in said("midtrain", mixtures(general_epochs=4)))


def test_an_arm_is_compared_with_its_best_blind_reader(said):
    lines = said("evaluate", evaluate=evaluated())
    wanted = (
        "BoostQA in weak cells compared with its best blind reader, the position most often right in its data (90.0%): "
        "+0.0 points (−10.0 to 10.0, n 40) (no clear difference)."
    )
    assert [line for line in lines if "blind reader," in line] == [wanted]
    by_model = said("evaluate", evaluate=evaluated(over_blind=beyond(["all"], "model")))
    assert any("over all compared with its best blind reader, the model without the question" in s for s in by_model)


def test_without_other_cells_nothing_is_said_twice(said):
    lines = said("evaluate", evaluate=evaluated(over_blind=beyond()))
    assert lines[0] == "All questions are in weak cells, so what is said over all is said of these."
    assert [line.split(",")[0] for line in lines if line.startswith("Accuracy")] == ["Accuracy over all"]
    [line] = [line for line in lines if line.startswith("BoostQA compared with base")]
    assert line.count("points") == 1
    assert len(without_repeats(differences([("a", "b")]).assign(n=[40, 41]))) == 2


def test_one_document_has_no_interval(said):
    general = pd.DataFrame([{"arm": "boostqa", "documents": 1, "difference": -0.644, "low": -0.644, "high": -0.644}])
    lines = said("evaluate", evaluate=evaluated(general=general))
    wanted = (
        "Bits per byte on held-out general text, BoostQA compared with the base: −0.644 (1 document); lower is better."
    )
    assert lines[-1] == wanted
    lines = said("evaluate", evaluate=evaluated(general=general.assign(documents=3, low=-0.7)))
    assert "−0.644 (−0.700 to −0.644, 3 documents)" in lines[-1]


@pytest.mark.parametrize(
    ("xs", "slope", "says"),
    [
        ([1000, 1300], 0.3, "Model size: the axis spans only a factor of 1.3: no slope of the gain is given."),
        ([1000, 2500], -1.218, "Model size: a slope of more than 100 points is beyond what a factor of 2.5 can show"),
        ([1000, 10_000], 0.3, "Per tenfold model size that gain changes by +30.0 points"),
    ],
)
def test_a_short_axis_has_no_slope(said, xs, slope, says):
    ends = {"gain": [0.1, 0.2], "gain_low": 0.0, "gain_high": 0.3, "n": 40}
    points = pd.DataFrame({"axis": "parameters", "arm": "boostqa", "over": "general_control", "x": xs} | ends)
    gains = pd.DataFrame([{"axis": "parameters", "slope": slope, "low": 0.1, "high": 0.5, "n": 2, "says": "grows"}])
    lines = said("scaling", scaling=SimpleNamespace(points=points, gains=gains, checks=pd.DataFrame()))
    assert lines[-1].startswith(says)
    assert said("scaling", mixtures().assign(documents=0), scaling=None) == [
        "BoostQA has no questions left; it read general text only, as the general control, so it is not ranked or compared."
    ]


@pytest.mark.parametrize(
    ("half", "n", "seen"),
    [(0.0, 40, None), (0.1, 3, None), (0.004, 4000, "effects below 0.4 points"), (0.1, 40, "effects below 10 points")],
)
def test_what_an_ablation_can_not_see_is_told_only_from_an_interval(said, half, n, seen):
    table = pd.DataFrame([{"ablation": "replay=0", "on": "all", "difference": 0.0, "p_holm": 1.0, "seeds": 1}])
    table = table.assign(low=-half, high=half, n=n)
    [_, line] = said("ablations", ablations=SimpleNamespace(ablations=table))
    assert line.endswith(f"; {seen} at least are not seen." if seen else f"make no clear difference with n {n:,}.")
