"""Mixing is by tokens, in one order that any number of processes reads."""

import numpy as np
import pytest

from qatoolkit.training.mixtures import open_qa, write_mixture
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


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Two sets, the second a quarter of the first, and general text."""
    folder, tokenizer = tmp_path_factory.mktemp("sets"), train_tokenizer(TEXTS, 320)

    def written(shares, **options):
        documents = {"large": TEXTS, "small": [f"Question: Is {i} odd?\nAnswer: yes" for i in range(1, 100, 2)]}
        name = "-".join(map(str, [*shares.values(), *options.values()]))
        return write_mixture(documents, shares, tokenizer, folder / name, **options)

    return written, pack(write_tokens(["A general text goes here. " * 4] * 100, tokenizer, folder / "g"), 64)


@pytest.mark.parametrize("shares", [{"large": 0.7, "small": 0.3}, {"large": 1, "small": 3}])
def test_sets_are_read_by_ratio_of_tokens_whatever_their_size(sets, shares):
    written, general = sets
    mixed = mix(open_qa(written(shares), 64), general, 20_000, 0.25, seed=0)
    parts = mixed.report["parts"]
    assert [part["set"] for part in parts] == ["large", "small"]
    for part, share in zip(parts, shares.values(), strict=True):
        assert part["requested"] == pytest.approx(share / sum(shares.values()))
        assert part["realised"] == pytest.approx(part["requested"], abs=0.01)
    assert sum(part["tokens"] for part in parts) == mixed.report["qa"] == pytest.approx(15_000, rel=0.02)
    assert mixed.report["realised_replay"] == pytest.approx(0.25, abs=0.01)
    assert mixed.tokens.sum() == mixed.report["qa"] + mixed.report["general"]


def test_a_set_at_its_limit_of_epochs_gives_what_it_can_and_the_others_the_rest(sets):
    qa = open_qa(sets[0]({"large": 0.5, "small": 0.5}, max_epochs=2.0), 64)
    held = {name: int(source.tokens.sum()) for name, source in qa.sources.items()}
    tokens = held["large"] + 2 * held["small"]
    large, small = mix(qa, None, tokens, 0.0, seed=0).report["parts"]
    assert small["epochs"] == 2.0  # half of the tokens would be 3 epochs or more
    assert small["realised"] < small["requested"] == 0.5
    assert large["epochs"] == pytest.approx(1, abs=0.05)
    with pytest.raises(ValueError, match=r"max_epochs 2 allows .*large .*small .*lower the tokens"):
        mix(qa, None, 3 * sum(held.values()), 0.0, seed=0)


def test_ratios_tell_one_training_from_another(sets):
    written, general = sets
    found = [
        mix(open_qa(written(shares), 64), general, 9_000, 0.25, seed=0).identity
        for shares in ({"large": 0.7, "small": 0.3}, {"large": 1, "small": 3})
    ]
    assert found[0] != found[1]
    assert found[0][:2] == found[1][:2]  # the same token files


def test_a_set_without_questions_or_share_is_an_error(tmp_path):
    tokenizer = train_tokenizer(TEXTS, 320)
    for documents, shares in (({"a": TEXTS, "b": []}, {"a": 1, "b": 1}), ({"a": TEXTS, "b": TEXTS}, {"a": 1})):
        with pytest.raises(ValueError, match=r"mixture: 'b' needs documents and a share above 0"):
            write_mixture(documents, shares, tokenizer, tmp_path / "x")
