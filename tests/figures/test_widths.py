"""Figures at the widths of a paper: letters keep their size, and what has no room is refused."""

import re

import numpy as np
import pandas as pd
import pytest

from qatoolkit import figures


def rates():
    steps = np.linspace(0, 1, 5)
    return pd.concat([pd.DataFrame({"share": steps, "lr": steps * 1e-3, "schedule": s}) for s in ("linear", "wsd")])


def grid(n: int) -> pd.DataFrame:
    cells = [(name, f"H{i}") for name in ("physics", "law") for i in range(1, 6)]
    return pd.DataFrame(cells, columns=["discipline", "difficulty"]).assign(n=n, accuracy=0.5, low=0.25, high=0.75)


@pytest.mark.parametrize(("width", "inches"), [("column", 3.03), ("page", 6.30), (4.5, 4.5)])
def test_a_figure_is_as_wide_as_was_asked_and_afterwards_as_before(tmp_path, width, inches):
    drawn = figures.schedules(rates())
    before = [file.read_bytes() for file in figures.save(drawn, tmp_path / "before")]
    _, svg, pdf = figures.save(drawn, tmp_path / "narrow", width=width)
    points = float(re.search(r'width="([\d.]+)pt"', svg.read_text())[1])
    assert points == pytest.approx(72 * inches, abs=0.01)
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+)", pdf.read_bytes())
    assert float(box[1]) == pytest.approx(72 * inches, abs=0.01)
    sizes = [re.findall(r"font: (?:bold )?([\d.]+)px", file.read_text()) for file in (svg, tmp_path / "before.svg")]
    assert set(sizes[0]) == set(sizes[1])
    assert [file.read_bytes() for file in figures.save(drawn, tmp_path / "again")] == before


def test_a_figure_without_room_is_refused_and_left_as_it_was(tmp_path):
    drawn = figures.accuracy_grid(grid(120))
    before = drawn.get_size_inches().tolist()
    with pytest.raises(ValueError, match=r"no room at 2 inches; it was drawn for \d"):
        figures.save(drawn, tmp_path / "narrow", width=2)
    assert drawn.get_size_inches().tolist() == before
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="width is 'colum'; it must be inches, or column or page"):
        figures.save(drawn, tmp_path / "narrow", width="colum")
