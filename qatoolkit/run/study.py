"""A study to start from: a folder with a profile, a notebook and a data layout, for `qatoolkit new`."""

import json
import re
from pathlib import Path

from qatoolkit.core.bounds import check_name
from qatoolkit.core.files import write_text
from qatoolkit.run.notebooks import notebooks_folder

PROFILE = """\
# The profile of this study: `qatoolkit plan --profile {name}.yaml` says what it stands on and what is missing,
# `qatoolkit settings` lists every dial. Paths are relative to this file.
profile: own
seeds: {{sources: [data/seeds/]}}
exams: {{mine: data/exam.jsonl}}
general: {{sources: [data/text/]}}
student: {{checkpoint: HuggingFaceTB/SmolLM2-135M}}  # a Hugging Face directory or name, or a GGUF file
teacher:  # any OpenAI-compatible endpoint; the key stays in OPENAI_API_KEY
  base_url: https://api.deepseek.com/v1
  synthesiser: deepseek-reasoner
  refiner: deepseek-chat
  annotator: deepseek-chat
  budget: 5.0  # US dollars that each model and stage may spend
# curate: {{marks: ../results/{name}/marks.jsonl}}  # what qt.browse saved; name the file where it is
"""
SEEDS = [
    {
        "question": "Which force keeps a planet in its orbit?",
        "choices": ["friction", "gravity", "buoyancy"],
        "answer": "B",
    },
    {"question": "What is 7 × 8?", "answer": "56"},
]
EXAM = [{"question": "Which force makes a ball fall?", "choices": ["gravity", "friction", "tension"], "answer": "A"}]
READ_ME = {
    "seeds": "Seed questions, as they are published: JSON lines, JSON, CSV or Parquet. Replace seeds.jsonl.",
    "text": "General text for replay and for the control, as .txt files. Replace general.txt.",
}
BESIDE = re.compile(r"\[(\w+)\]\(\w+\.ipynb\)")
TEXT = "Replace this file with general text: some of it is mixed into every training, and some is held out.\n"


def new_study(folder: Path) -> list[Path]:
    """Write `<name>.yaml`, `<name>.ipynb` (notebook 12 over that profile) and `data/` with a row or two of each kind into
    a new folder; what was written. ValueError for a name that can't be a run's, or a folder that is not empty."""
    name = folder.resolve().name
    check_name(name, "study")
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; give a new folder")
    notebook = json.loads((notebooks_folder() / "12_own_model.ipynb").read_text(encoding="utf-8"))
    notebook["cells"][0]["source"][0] = f"# {name}\n"
    for cell in notebook["cells"]:
        cell["source"] = [BESIDE.sub(r"\1", line) for line in cell["source"]]  # those notebooks are not beside this one
        cell["source"] = [
            f'PROFILE = "{name}.yaml"\n' if line.startswith("PROFILE =") else line for line in cell["source"]
        ]
    files = {
        f"{name}.yaml": PROFILE.format(name=name),
        f"{name}.ipynb": json.dumps(notebook, indent=1, ensure_ascii=False) + "\n",
        "data/seeds/seeds.jsonl": _lines(SEEDS),
        "data/exam.jsonl": _lines(EXAM),
        "data/text/general.txt": TEXT,
        "data/README.md": "".join(f"- `{where}/`: {said}\n" for where, said in READ_ME.items())
        + "- `exam.jsonl`: questions that nothing may train on. Replace it, or name lm-eval tasks in the profile.\n",
    }
    for place, text in files.items():
        write_text(text, folder / place)
    return [folder / place for place in files]


def _lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
