"""Tables for the tests of curation: rows in a line each, and the real questions."""

import json

import pandas as pd
import pytest
from conftest import REAL

real_data = pytest.mark.skipif(not (REAL / "sidecar").is_dir(), reason="real data not found; set QATOOLKIT_REAL_DATA")


def qa(*rows: tuple, **columns) -> pd.DataFrame:
    """Rows of (question, answer)."""
    table = pd.DataFrame(rows, columns=["question", "answer"])
    table.insert(0, "id", [f"q{i}" for i in range(len(table))])
    return table.assign(language="en", source="test", **columns)


def real(*names: str) -> pd.DataFrame:
    """The questions of some of the real files."""
    texts = [(REAL / f"{name}.jsonl").read_text(encoding="utf-8") for name in names]
    # Not splitlines(): some questions hold a raw U+0085.
    return pd.DataFrame([json.loads(line) for text in texts for line in text.split("\n") if line])
