"""Mixing is by tokens, in one order that any number of processes reads."""

import numpy as np
import pytest

from qatoolkit.training.packing import draw, mix, pack
from qatoolkit.training.tokens import train_tokenizer, write_tokens

TEXTS = [f"Question: What is {i} plus {i}?\nAnswer: {2 * i}" for i in range(200)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder, tokenizer = tmp_path_factory.mktemp("m"), train_tokenizer(TEXTS, 320)
    general = ["A much longer general text goes here. " * 2] * 100
    return pack(write_tokens(TEXTS, tokenizer, folder / "qa"), 64), pack(
        write_tokens(general, tokenizer, folder / "g"), 64
    )


@pytest.mark.parametrize("replay", [0.0, 0.35, 1.0])
def test_replay_is_a_share_of_tokens_not_of_documents(sources, replay):
    mixed = mix(*sources, 20_000, replay, seed=0)
    assert mixed.report["realised_replay"] == pytest.approx(replay, abs=0.01)
    assert mixed.report["qa"] + mixed.report["general"] == mixed.tokens.sum()
    assert mixed.tokens.sum() == pytest.approx(20_000, rel=0.02)


def test_an_epoch_repeats_nothing_before_it_is_over(sources):
    tokens = sources[0].tokens
    chosen = draw(tokens, int(tokens.sum() * 2), np.random.default_rng(0))
    assert sorted(chosen[: len(tokens)]) == list(range(len(tokens)))


def test_a_batch_holds_the_blocks_of_its_places_whatever_their_source(sources):
    mixed = mix(*sources, 8_000, 0.5, seed=1)
    whole = mixed.batch(np.arange(len(mixed)))
    for place in range(len(mixed)):
        one = mixed.batch(np.array([place]))
        assert (one.ids[0] == whole.ids[place]).all()
    stacked = np.concatenate([s.read(np.arange(len(s)))[0] for s in sources])
    assert (whole.ids == stacked[mixed.order]).all()
    assert len(whole.targets) == mixed.predicted(answers_only=False).sum()
    assert (whole.ids.ravel()[whole.where + 1] == whole.targets).all()


def test_a_process_without_blocks_reads_padding_and_learns_nothing_from_it(sources):
    batch = mix(*sources, 8_000, 0.5, seed=1).batch(np.array([0, -1]))
    assert (batch.where < 64).all()
    assert (batch.ids[1] == sources[0].source.about["pad"]).all()


@pytest.mark.parametrize("replay", [0.0, 0.35])
def test_the_context_is_the_mean_position_of_the_tokens_that_are_read(sources, replay):
    mixed = mix(*sources, 8_000, replay, seed=1)
    positions = mixed.batch(np.arange(len(mixed))).positions
    real = np.arange(64) < mixed.tokens[:, None]
    assert mixed.context() == pytest.approx(positions[real].mean())


def test_nothing_to_draw_from_is_an_error(sources):
    with pytest.raises(ValueError, match="no general data"):
        mix(sources[0], None, 1000, 0.3, seed=0)
