"""A study to start from: a folder with a profile, a notebook and a data layout, for `qatoolkit new`."""

import json
import re
from pathlib import Path

from qatoolkit.core.bounds import check_name
from qatoolkit.core.files import write_text
from qatoolkit.run.notebooks import notebooks_folder

TEMPLATE = Path(__file__).with_name("new_study")  # NAME stands for the study's name, in file names too
NOTEBOOK_LINK = re.compile(r"\[(\w+)\]\(\w+\.ipynb\)")


def new_study(folder: Path) -> list[Path]:
    """Write `<name>.yaml`, `<name>.ipynb` (notebook 12 with that profile) and `data/` with a row or two of each kind
    into a new folder, and return the paths. ValueError for a name that can't be a run's, or a folder that is not
    empty."""
    name = folder.resolve().name
    check_name(name, "study")
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; give a new folder")
    notebook = json.loads((notebooks_folder() / "12_own_model.ipynb").read_text(encoding="utf-8"))
    notebook["cells"][0]["source"][0] = f"# {name}\n"
    for cell in notebook["cells"]:
        cell["source"] = [NOTEBOOK_LINK.sub(r"\1", line) for line in cell["source"]]  # the study lacks those notebooks
        cell["source"] = [
            f'PROFILE = "{name}.yaml"\n' if line.startswith("PROFILE =") else line for line in cell["source"]
        ]
    files = {f"{name}.ipynb": json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"}
    for path in sorted(path for path in TEMPLATE.rglob("*") if path.is_file()):
        place = path.relative_to(TEMPLATE).as_posix().replace("NAME", name)
        files[place] = path.read_text(encoding="utf-8").replace("NAME", name)
    for place, text in files.items():
        write_text(text, folder / place)
    return [folder / place for place in files]
