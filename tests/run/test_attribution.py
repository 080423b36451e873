"""Gains are traced to the data that made them: a planted part moves its own exam cells, alone and when it is left out."""

import pandas as pd
import pytest

import qatoolkit as qt
from qatoolkit.run.contracts import stage
from qatoolkit.run.stages import attributions
from qatoolkit.run.stages.attributions import contrast, matrix, mean_gain, part_job, parts_of
from qatoolkit.run.stages.evaluation import exam_rows
from qatoolkit.run.store import open_run

pytestmark = pytest.mark.timeout(900)
PLANTED = ["H3", "H4"]
TOKENS = 40_000


@pytest.fixture(scope="module")
def run(smoke, trained_here):
    """The smoke run with other data in one arm: the exams' own questions at two levels, so that what each part must
    move is known."""

    @stage("curate", reads=("exams",))
    def planted(run, folder, *, levels):
        rows = exam_rows(run).drop(columns="exam")
        return {"boostqa": rows[rows["difficulty"].isin(levels)].reset_index(drop=True)}

    found = open_run("smoke", profile="smoke", root=smoke.results).variant("planted", {})
    out = planted(found, log=str, levels=PLANTED)
    found.point("curate", found.artifact(out._stage))
    return found


@pytest.fixture(scope="module")
def alone(run):
    return qt.stages.attribution(run, "difficulty", how="alone", fill="repeat", tokens=TOKENS, log=str)


@pytest.fixture(scope="module")
def without(run):
    return qt.stages.attribution(run, "difficulty", tokens=TOKENS, log=str)


def test_a_part_alone_moves_its_own_cell_most(alone):
    found = alone.matrix[alone.matrix["on"].isin(PLANTED)].pivot(index="part", columns="on", values="difference")
    assert found.idxmax(axis=1).to_dict() == {part: part for part in PLANTED}
    assert found.loc["H3", "H3"] > 0.1
    rows = alone.contrast.set_index("of")
    assert rows.loc["own minus others", "low"] > 0


def test_leaving_a_part_out_recovers_the_cell_that_it_moved(without):
    rows = without.contrast.set_index("of")
    assert rows.loc["own part", "difference"] > rows.loc["other parts", "difference"]
    assert rows.loc["own minus others", "low"] > 0


def test_the_matrix_says_how_sure_it_is(without):
    table = without.matrix
    assert set(table["part"]) == set(PLANTED)
    assert set(table["on"]) == {"all", "H1", "H2", "H3", "H4", "H5"}
    assert table["own"].eq(table["part"] == table["on"]).all()
    assert (table["low"] <= table["difference"]).all()
    assert (table["difference"] <= table["high"]).all()
    assert table["p"].notna().eq(table["n"] >= 20).all()
    tested = table["p"].notna()
    assert (table["p_holm"] >= table["p"])[tested].all()
    assert without.samples.groupby(["seed", without.samples["part"].fillna("")]).size().nunique() == 1


def test_the_other_parts_keep_their_dose_unless_they_are_to_be_repeated(run):
    rows = parts_of(run, "boostqa", "difficulty")
    left = rows[rows["part"] != "H3"]
    filled, repeated = (part_job(run, "boostqa", "x", left, rows, fill, 10_000) for fill in ("replay", "repeat"))
    replay = run.profile.midtrain.replay
    share = attributions.tokens_of(run, left) / attributions.tokens_of(run, rows)
    assert 0 < share < 1
    assert filled.replay == pytest.approx(1 - (1 - replay) * share, abs=1e-5)
    assert repeated.replay == pytest.approx(replay)
    nothing = part_job(run, "boostqa", "x", rows[:0], rows, "replay", 10_000)
    assert (nothing.qa, nothing.replay) == (None, 1.0)


def test_parts_of_a_mixture_by_ratio_take_their_share_of_its_set(run):
    mixed = run.variant("mixed", {"arms": {"boostqa": {"boostqa": 0.75, "seeds": 0.25}}})
    rows = parts_of(run, "boostqa", "difficulty")
    rows = pd.concat([rows, rows[rows["part"] == "H4"].assign(dataset="seeds", part="other")], ignore_index=True)
    job = part_job(mixed, "boostqa", "x", rows[rows["part"] != "H3"], rows, "replay", 10_000)
    of_set = rows[rows["dataset"] == "boostqa"]
    share = attributions.tokens_of(run, of_set[of_set["part"] != "H3"]) / attributions.tokens_of(run, of_set)
    assert job.replay == pytest.approx(1 - (1 - run.profile.midtrain.replay) * (0.75 * share + 0.25), abs=1e-5)


def test_nothing_is_trained_twice(run, without):
    trainings = sorted((run.root / "stages" / "train").iterdir())
    again = qt.stages.attribution(run, "difficulty", on="discipline", tokens=TOKENS, log=str)
    assert sorted((run.root / "stages" / "train").iterdir()) == trainings
    pd.testing.assert_frame_equal(again.samples, without.samples)
    whole = [out.matrix.set_index(["part", "on"])["difference"].xs("all", level="on") for out in (again, without)]
    pd.testing.assert_series_equal(*whole)


def test_a_small_part_is_told_of_and_trained_only_when_named(run):
    trainings = sorted((run.root / "stages" / "train").iterdir())
    out = qt.stages.attribution(run, "discipline", tokens=TOKENS, log=str)
    assert out.parts["reason"].str.contains("questions: fewer than 20").all()
    assert out.matrix.empty
    assert sorted((run.root / "stages" / "train").iterdir()) == trainings
    sizes = attributions.sizes(run, parts_of(run, "boostqa", "discipline"), ["physics"]).set_index("part")
    assert sizes["reason"].isna().to_dict() == {part: part == "physics" for part in sizes.index}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"by": "colour"}, "by is 'colour'; it must be one of discipline, difficulty, cell"),
        ({"by": "difficulty", "how": "with"}, "how is 'with'; it must be one of without, alone"),
        ({"seeds": 0}, "seeds is 0; it must be a whole number from 1"),
        ({"arm": "general_control"}, "arm is 'general_control'; it must be one that trains on data: seeds_only"),
        ({"by": "difficulty", "only": ["H9"]}, "no part is called 'H9'; there are H3, H4"),
    ],
)
def test_what_can_not_be_traced_is_refused_before_anything_is_trained(run, asked, says):
    with pytest.raises(ValueError, match=says):
        qt.stages.attribution(run, **asked, log=str)


def test_communities_of_knowledge_points_part_every_question(smoke):
    run = open_run("smoke", profile="smoke", root=smoke.results)
    rows = parts_of(run, "linkqa", "kps")
    assert rows["part"].notna().all()
    assert 1 < rows["part"].nunique() < len(rows)
    one = rows[rows["part"] == rows["part"].mode()[0]]
    assert one["part"].iloc[0] in set(one["knowledge_points"].explode())


def test_findings_and_figure_tell_what_the_tables_hold(run, without):
    said = repr(qt.findings(run, "attribution-difficulty-without"))
    assert "2 of 2 parts of BoostQA by difficulty, 100.0% of its questions, were trained without them" in said
    assert "a part moves its own cells more" in said
    drawn = [text.get_text() for text in qt.figures.attribution(without.matrix).axes[0].texts]
    assert len(list(filter(None, drawn))) == len(without.matrix)


GAINS = pd.DataFrame({"a": [1.0, 1.0, 0.0, 0.0], "b": [0.0, -1.0, 1.0, 0.0]}, index=list("wxyz"))
CELLS = pd.Series(["a", "a", "b", "c"], index=list("wxyz"))


def test_own_and_other_parts_are_compared_over_the_questions_of_own_cells():
    rows = contrast([GAINS, GAINS], CELLS, ["a", "b"], resamples=100, seed=0).set_index("of")
    assert rows["n"].eq(3).all()  # z is in no part's cell
    assert rows["difference"].to_dict() == {
        "own part": 1.0,
        "other parts": pytest.approx(-1 / 3),
        "own minus others": pytest.approx(4 / 3),
    }
    assert contrast([GAINS[["a"]]], CELLS, ["a"], resamples=100, seed=0).empty


def test_few_questions_have_no_p_and_several_seeds_have_one_that_agrees_with_the_interval():
    assert matrix([GAINS], CELLS, ["a", "b"], resamples=100, seed=0)["p"].isna().all()
    many = pd.Series([1.0] * 6 + [0.0] * 30 + [-1.0])
    assert mean_gain([many], resamples=100, seed=0)["p"] == pytest.approx(0.125)  # McNemar's: 6 against 1
    found = mean_gain([many, 0 * many, many], resamples=100, seed=0)
    assert found["low"] < 0 < found["high"]
    assert found["p"] > 0.05
