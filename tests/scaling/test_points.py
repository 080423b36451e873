"""Points of a sweep: every run is trained once, and the one that all axes share stands on each of them."""

from qatoolkit.scaling.points import by_axis, points
from qatoolkit.scaling.settings import ScalingSettings


def test_the_shared_run_is_trained_once_and_stands_on_every_axis():
    settings = ScalingSettings(tokens=(0.5, 1.0))
    table = points("m", 1000, settings, [("m", 1.0), ("xs", 1.0), ("m", 0.25)])
    assert table["point"].tolist() == ["m-1000-1", "xs-1000-1", "m-1000-0.25", "m-500-1"]
    results = table.assign(
        parameters=[2, 1, 2, 2], initial_flops=[4, 2, 1, 4], arm="boostqa", accuracy=0.5, low=0.4, high=0.6, n=9
    )
    shown = by_axis(results)
    assert shown.groupby("axis", sort=False)["x"].agg(list).to_dict() == {
        "parameters": [1, 2], "tokens": [500, 1000], "initial_flops": [1, 4],
    }  # fmt: skip


def test_sizes_and_initial_compute_can_be_compared_at_fewer_tokens():
    settings = ScalingSettings(tokens=(0.25, 0.5, 1.0), at=0.5)
    table = points("m", 1000, settings, [("m", 1.0), ("xs", 1.0), ("m", 0.25)])
    assert table["point"].tolist() == ["m-500-1", "xs-500-1", "m-500-0.25", "m-250-1", "m-1000-1"]
