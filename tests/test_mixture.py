"""Packing keeps documents whole and apart; mixing is by tokens."""

import itertools

import numpy as np
import pytest

from qatoolkit.mixture import IGNORED, Blocks, draw, mix, pack, tokenise, train_tokenizer

TEXTS = [f"Question: What is {i} plus {i}?\nAnswer: {2 * i}" for i in range(200)] + [
    "问题：首都是什么？\n答案：北京"
] * 5


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 320)


@pytest.fixture(scope="module")
def blocks(tokenizer):
    return pack(tokenise(TEXTS, tokenizer, 64)[0], 64, tokenizer.pad_token_id)


def test_every_token_of_every_document_is_in_some_block(tokenizer, blocks):
    documents, cut = tokenise(TEXTS, tokenizer, 64)
    assert cut == 0
    assert blocks.tokens.sum() == sum(map(len, documents))
    found = sorted(tuple(d) for ids, labels, positions in rows(blocks) for d in split(ids, labels, positions))
    assert found == sorted(tuple(d.tolist()) for d in documents)


def rows(blocks):
    return zip(blocks.input_ids, blocks.labels, blocks.position_ids, strict=True)


def split(ids, labels, positions):
    """The documents of a block, cut where positions restart."""
    real = labels != IGNORED
    ids, positions = ids[real], positions[real]
    starts = [*np.flatnonzero(positions == 0), len(ids)]
    return [ids[a:b].tolist() for a, b in itertools.pairwise(starts)]


def test_best_fit_wastes_little(blocks):
    assert blocks.tokens.sum() / blocks.input_ids.size > 0.9


def test_a_document_longer_than_a_block_is_cut_and_counted(tokenizer):
    documents, cut = tokenise(["word " * 500], tokenizer, 64)
    assert len(documents[0]) == 64
    assert cut > 0


def test_text_survives_the_tokenizer(tokenizer):
    for text in (TEXTS[0], TEXTS[-1], "naïve café Ωσ"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize("replay", [0.0, 0.35, 1.0])
def test_replay_is_a_share_of_tokens_not_of_documents(tokenizer, blocks, replay):
    general = pack(tokenise(["A much longer general text goes here. " * 2] * 100, tokenizer, 64)[0], 64, 0)
    mixed, report = mix(blocks, general, 20_000, replay, seed=0)
    assert report["realised_replay"] == pytest.approx(replay, abs=0.01)
    assert report["qa"] + report["general"] == mixed.tokens.sum()
    assert mixed.tokens.sum() == pytest.approx(20_000, rel=0.02)


def test_an_epoch_repeats_nothing_before_it_is_over(blocks):
    chosen = draw(blocks, int(blocks.tokens.sum() * 2), np.random.default_rng(0))
    assert sorted(chosen[: len(blocks)]) == list(range(len(blocks)))


def test_blocks_come_back_from_disk(blocks, tmp_path):
    blocks.save(tmp_path / "b.npz")
    again = Blocks.load(tmp_path / "b.npz")
    assert all(
        (getattr(again, n) == getattr(blocks, n)).all() for n in ("input_ids", "labels", "position_ids")
    )


def test_nothing_to_draw_from_is_an_error(blocks):
    with pytest.raises(ValueError, match="empty"):
        draw(blocks.take(np.empty(0, dtype=int)), 10, np.random.default_rng(0))
