"""Releases: shards and packed tokens that `datasets` opens, a card made from what was recorded, and an upload through the real
client that keeps its token to itself."""

import datasets
import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import yaml
from hub_server import TOKEN, hub

import qatoolkit as qt
from qatoolkit.core.cards import dataset_card
from qatoolkit.core.qa_table import read_table
from qatoolkit.training.packed import write_packed
from qatoolkit.training.tokens import train_tokenizer


@pytest.fixture(scope="module")
def table():
    rows = [{"question": f"What is {i} plus {i}?", "answer": str(2 * i)} for i in range(105)]
    return qt.qa_table(
        rows, language="en", source="sums", licence="mit", teacher="abacus-1", prompt_version="sum.v2 0a1b"
    )


@pytest.fixture(scope="module")
def packed(table, tmp_path_factory):
    tokenizer = train_tokenizer(list(table["question"]), 300)
    folder = tmp_path_factory.mktemp("release") / "packed"
    return write_packed(table, tokenizer, folder, block=64, name="mine/tokenizer", shard_blocks=20), tokenizer


def opened(folder, cache, name="default"):
    return datasets.load_dataset(str(folder), name, split="train", cache_dir=str(cache))


def test_shards_have_a_set_size_and_are_one_data_set(table, tmp_path):
    folder = qt.save_dataset(table, tmp_path / "out", name="sums", shard_rows=40)
    files = sorted(folder.glob("train*.parquet"))
    assert [file.name for file in files] == [f"train-{i:05d}-of-00003.parquet" for i in range(3)]
    assert [len(read_table(file)) for file in files] == [40, 40, 25]
    assert opened(folder, tmp_path / "cache")["question"] == list(table["question"])
    qt.save_dataset(table, folder, name="sums")  # the shards are replaced, not joined by another file
    assert [file.name for file in folder.glob("*.parquet")] == ["train.parquet"]
    assert qt.save_dataset(table[:0], tmp_path / "none", name="none", shard_rows=40).is_dir()
    with pytest.raises(ValueError, match="shard_rows is 0"):
        qt.save_dataset(table, folder, name="sums", shard_rows=0)


def test_packed_tokens_are_the_same_rows_for_another_trainer(table, packed, tmp_path):
    place, tokenizer = packed
    folder = qt.save_dataset(table, tmp_path / "out", name="sums", packed=place)
    assert len(opened(folder, tmp_path / "cache")) == len(table)
    blocks = opened(folder, tmp_path / "cache", "packed").with_format("numpy")
    ids, positions, labels = (np.stack(blocks[c][:]) for c in ("input_ids", "position_ids", "labels"))
    assert ids.shape[1] == 64
    assert len(list(place.glob("*.parquet"))) == -(-len(ids) // 20) > 1
    assert ((labels == ids) | (labels == -100)).all()
    assert (labels[positions == 0] == -100).all()
    text = tokenizer.batch_decode(ids.tolist())
    said = "".join(text)
    assert all(f"{question}\nAnswer: {answer}<eos>" in said for question, answer in zip(table["question"], table["answer"], strict=True))  # fmt: skip
    card = (folder / "README.md").read_text()
    assert "| `tokenizer` | mine/tokenizer |" in card
    assert "| `block` | 64 |" in card


def test_the_card_has_prompts_costs_what_was_removed_and_how_well_planted_questions_are_found(table):
    report = pd.DataFrame(
        [("rejected", "echo", "link", 7, 0.05)], columns=["outcome", "reason", "strategy", "rows", "share"]
    )
    costs = pd.DataFrame([("link", 1234, 5.25)], columns=["strategy", "requests", "usd"])
    controls = pd.DataFrame([("renumbered", "zh", 200, 0.995)], columns=["kind", "language", "planted", "recall"])
    card = dataset_card(table, name="sums", report=report, costs=costs, controls=controls)
    for line in ("| sum.v2 0a1b | 105 |", "| abacus-1 | 105 |", "| rejected | echo | link | 7 | 5.0% |", "| link | 1,234 | 5.25 |", "| renumbered | zh | 200 | 0.995 |"):  # fmt: skip
        assert line in card
    assert "## Contamination" not in dataset_card(table, name="sums")


def test_an_upload_through_the_real_client_has_every_file_and_the_token_nowhere(
    table, packed, tmp_path, monkeypatch, capfd
):
    folder = qt.save_dataset(table, tmp_path / "out", name="sums", shard_rows=60, packed=packed[0])
    (folder / ".secret").write_text("mine")
    with hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # the stand-in has no such storage
        assert qt.push_to_hub(folder, "me/sums") == f"{server.url}/datasets/me/sums"
        sent = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert server.repositories["me/sums"]["type"] == "dataset"
        assert "private" in str(server.repositories["me/sums"])
        assert server.files == {name: content for name, content in sent.items() if name != ".secret"}
        assert not any(TOKEN.encode() in content for content in server.files.values())
        qt.push_to_hub(qt.save_dataset(table, tmp_path / "again", name="sums"), "me/sums")
        assert sorted(server.files) == ["README.md", "train.parquet"]  # no shard of the first upload is left
    assert yaml.safe_load(server.files["README.md"].split(b"---\n")[1])["license"] == "mit"
    assert TOKEN not in "".join(capfd.readouterr())


def test_what_the_hub_refuses_is_one_line_without_the_token(table, tmp_path, monkeypatch, traceback_of):
    folder = qt.save_dataset(table, tmp_path / "out", name="sums")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(ValueError, match="set HF_TOKEN"):
        qt.push_to_hub(folder, "me/sums")
    with pytest.raises(ValueError, match=r"no README\.md"):
        qt.push_to_hub(tmp_path, "me/sums")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong0123456789")
    with hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        with pytest.raises(OSError, match=r"me/sums at http.*401") as caught:
            qt.push_to_hub(folder, "me/sums")
        assert not server.repositories
    assert "\n" not in str(caught.value)
    assert "hf_wrong" not in str(caught.value)
    with pytest.raises(OSError, match=r"me/sums at http.*refused"):  # nobody is there any more
        qt.push_to_hub(folder, "me/sums")
    with pytest.raises(OSError, match="a/b/c"):
        qt.push_to_hub(folder, "a/b/c")
