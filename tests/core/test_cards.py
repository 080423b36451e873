"""Cards: what the hub reads, what a reader needs, and what must never be in them."""

import re

import datasets
import pandas as pd
import pytest
import yaml

from qatoolkit.core.cards import dataset_card, model_card, save_dataset
from qatoolkit.core.qa_table import read_table
from qatoolkit.curate.curate import curate
from qatoolkit.curate.settings import CurateSettings


def _table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": ["a", "b", "c"],
            "question": [
                "What is the boiling point of water?",
                "水的沸点是多少？",
                "Which force keeps the Moon in orbit?",
            ],
            "answer": ["100 °C", "100 °C", "gravity"],
            "language": ["en", "zh", "en"],
            "source": ["/home/someone/private/seeds.jsonl", "textbook", "textbook <script>alert(1)</script> | x"],
            "licence": ["MIT", "MIT", "MIT"],
            "strategy": ["seed", "seed", "link"],
            "difficulty": ["H1", "H1", "H4"],
            "discipline": ["physics", "chemistry", "physics"],
            "teacher": [None, None, "deepseek-r1"],
        }
    )


def _head(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_head_of_a_dataset_card_is_yaml_for_the_hub():
    head = _head(dataset_card(_table(), name="demo"))
    assert head["license"] == "mit"
    assert head["language"] == ["en", "zh"]
    assert head["size_categories"] == ["n<1K"]
    assert "synthetic" in head["tags"]


def test_several_licences_are_other_and_are_all_counted():
    table = _table().assign(licence=["MIT", "CC-BY-4.0", None])
    card = dataset_card(table, name="demo")
    assert _head(card)["license"] == "other"
    for licence in ("MIT", "CC-BY-4.0", "unknown"):
        assert f"| {licence} | 1 |" in card


def test_a_saved_dataset_is_opened_by_datasets_and_is_not_written_over_something_else(tmp_path):
    kept, _, report = curate(_table())
    folder = save_dataset(kept, tmp_path / "out", name="demo", report=report)
    opened = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert opened["question"] == list(kept["question"])
    assert (folder / "README.md").read_text(encoding="utf-8") == dataset_card(kept, name="demo", report=report)
    assert save_dataset(kept[:1], folder, name="demo") == folder
    assert len(read_table(folder / "train.parquet")) == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.txt"):
        save_dataset(kept, tmp_path / "mine", name="demo")


def test_counts_strategy_difficulty_curation_and_limits_are_shown():
    kept, _, report = curate(_table())
    card = dataset_card(kept, name="demo", settings=CurateSettings(), report=report)
    assert "| link | 0 | 1 | 1 |" in card
    assert "| kept |" in card
    assert "near_threshold" in card
    assert "What it is not for" in card


def test_no_machine_path_key_or_local_endpoint_reaches_a_card():
    settings = {
        "out": "/mnt/disk7/runs/x.parquet",
        "api_key": "abc",
        "note": "see C:\\Users\\me\\x and ~/secret/place, key sk-0123456789abcdef",
        "base_url": "http://127.0.0.1:8931/v1",
        "page": "https://arxiv.org/abs/2508.01326",
    }
    data = dataset_card(_table(), name="/mnt/disk7/demo", settings=settings)
    model = model_card({"name": "m", "base_model": "/srv/models/Llama-3-8B", "settings": settings, "device": "/dev/x0"})
    for card in (data, model):
        for private in ("/home/", "/mnt/", "/srv/", "/dev/", "C:\\", "~/", "127.0.0.1", "sk-0123", "abc |"):
            assert private not in card
        assert "https://arxiv.org/abs/2508.01326" in card
    assert "seeds.jsonl" in data
    assert "Llama-3-8B" in model


def test_table_text_can_neither_run_nor_break_the_table():
    card = dataset_card(_table(), name="demo")
    assert "<script" not in card
    rows = [line for line in card.splitlines() if "alert(1)" in line]
    assert rows
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)


def test_a_model_card_shows_scores_mixture_and_what_it_is_not_for():
    card = model_card(
        {
            "name": "student",
            "base_model": "meta-llama/Meta-Llama-3-8B",
            "licence": "llama3",
            "language": "en",
            "mixture": {"qa": 0.3, "general": 0.7},
            "tokens": 40_000_000_000,
            "evaluation": pd.DataFrame({"task": ["mmlu"], "metric": ["acc"], "value": [0.6512]}),
        }
    )
    assert _head(card)["base_model"] == "meta-llama/Meta-Llama-3-8B"
    assert "| mmlu | acc | 0.6512 |" in card
    assert "40,000,000,000" in card
    assert "not for" in card


def test_a_model_card_without_scores_points_at_no_table():
    card = model_card({"name": "student"})
    assert "This card was written without scores" in card
    assert "above" not in card


def test_every_field_of_a_curated_set_has_a_meaning():
    kept, _, _ = curate(_table())
    card = dataset_card(kept[[c for c in kept if c in ("id", "question", "source", "licence", "flagged")]], name="demo")
    fields = card.partition("## Fields")[2].partition("## What")[0]
    assert "| `flagged` | reasons" in fields
    assert "|  |" not in fields


def test_missing_essentials_are_named():
    with pytest.raises(ValueError, match="source"):
        dataset_card(_table().drop(columns="source"), name="demo")
    with pytest.raises(ValueError, match="name"):
        model_card({"tokens": 1})


def test_the_same_table_gives_the_same_card():
    assert dataset_card(_table(), name="demo") == dataset_card(_table(), name="demo")


def test_a_card_counts_written_questions_and_seeds_and_claims_no_others():
    rows = pd.DataFrame({"question": list("abc"), "source": "x", "strategy": ["link", "link", "seed"]})
    assert "3 questions with answers for mid-training language models: 2 written by a teacher model, 1 seeds." in (
        dataset_card(rows, name="mine")
    )
