"""Draw docs/rooms.svg: the rooms of the package, floor by floor, and who imports whom, as the sources say.

Run `python docs/draw_rooms.py` from anywhere; with `--list` it prints the arrows instead, as docs/architecture.md has them.
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "qatoolkit"
PLACE = {  # left to right, chosen so that few arrows cross
    "textbook": 0.07, "curate": 0.24, "answers": 0.42, "teacher": 0.61, "seeds": 0.92,
    "graph": 0.27, "training": 0.72,
    "figures": 0.10, "synthesis": 0.40, "evaluation": 0.72,
    "scaling": 0.28,
}  # fmt: skip


def floors() -> tuple[tuple[str, ...], ...]:
    """The floors that tests/test_imports.py enforces, lowest first."""
    for node in ast.parse((ROOT / "tests" / "test_imports.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "FLOORS":
            return ast.literal_eval(node.value)
    raise ValueError("tests/test_imports.py has no FLOORS")


def imported(path: Path) -> set[str]:
    """The rooms that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "qatoolkit" and len(part) > 1 and (PACKAGE / part[1]).is_dir()}


def arrows() -> dict[str, list[str]]:
    """The other rooms that each room imports, both in the order of the alphabet."""
    found = {}
    for room in sorted(room for floor in floors() for room in floor):
        others = set().union(*(imported(path) for path in (PACKAGE / room).rglob("*.py"))) - {room}
        found[room] = sorted(others)
    return found


def listed(found: dict[str, list[str]]) -> str:
    """The arrows as text, a room a line."""
    return "\n".join(f"{room} -> {' '.join(others)}" for room, others in found.items() if others)


def lines(room: str) -> int:
    """Lines of the Python files of a room."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (PACKAGE / room).rglob("*.py"))


def draw(path: Path) -> None:
    """Write the picture as SVG; the same sources give the same bytes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    levels, found = floors(), arrows()
    top, (bottom,) = levels[-1][0], levels[0]
    matplotlib.rcParams |= {"svg.hashsalt": "rooms", "svg.fonttype": "none", "font.family": "DejaVu Sans"}
    figure, ax = plt.subplots(figsize=(9, 5.2))
    box, gap, high = {}, 1.0, 0.42
    for y, rooms in enumerate(levels):
        for room in rooms:
            wide = 0.98 if room in (top, bottom) else 0.145
            x = 0.5 if room in (top, bottom) else PLACE[room]
            box[room] = (x, y * gap)
            face = {top: "#dce9f5", bottom: "#eeeeee"}.get(room, "#f7f7f2")
            corner = (x - wide / 2, y * gap - high / 2)
            patch = FancyBboxPatch(corner, wide, high, boxstyle="round,pad=0,rounding_size=0.02", fc=face, ec="#555555")
            patch.set(mutation_aspect=8, linewidth=0.9)
            ax.add_patch(patch)
            ax.text(x, y * gap + 0.05, room, ha="center", va="center", fontsize=11, weight="bold")
            ax.text(
                x, y * gap - 0.12, f"{lines(room):,} lines", ha="center", va="center", fontsize=7.5, color="#555555"
            )

    def arrow(start, end, colour, width):
        style = {"arrowstyle": "-|>", "mutation_scale": 9, "shrinkA": 0, "shrinkB": 0}
        ax.add_patch(FancyArrowPatch(start, end, color=colour, linewidth=width, **style))

    for room, others in found.items():
        for other in others:
            (x0, y0), (x1, y1) = box[room], box[other]
            if other == bottom:
                if room != top:
                    arrow((x0 - 0.025, y0 - high / 2), (x0 - 0.025, y0 - high / 2 - 0.2), "#b5b5b5", 1.0)
            elif room == top:
                arrow((x1 - 0.025, y1 + high / 2 + 0.2), (x1 - 0.025, y1 + high / 2), "#8fb4d6", 1.0)
            elif y0 == y1:
                side = 0.0725 if x1 > x0 else -0.0725
                arrow((x0 + side, y0), (x1 - side, y1), "#222222", 1.2)
            else:
                shift = 0.05 * (1 if x1 > x0 + 0.03 else -1 if x1 < x0 - 0.03 else 0)
                arrow((x0 + shift, y0 - high / 2), (x1 + max(0, -shift / 2), y1 + high / 2), "#222222", 1.2)
    said = f"black: imports between rooms.  blue: imported by {top}.  grey: imports {bottom}."
    ax.text(0.5, -0.42, said, ha="center", va="center", fontsize=8.5, color="#333333")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.55, (len(levels) - 1) * gap + 0.3))
    ax.axis("off")
    figure.savefig(path, bbox_inches="tight", pad_inches=0.05, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    if "--list" in sys.argv:
        print(listed(arrows()))
    else:
        draw(ROOT / "docs" / "rooms.svg")
