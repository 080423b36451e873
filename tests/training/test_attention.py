"""Packed attention is transformers' attention over each document, for values, gradients and every shape of a batch."""

import numpy as np
import pytest
import torch
from test_losses import CONFIGS, TINY
from transformers import AutoModelForCausalLM, MistralConfig

from qatoolkit.training.attention import documents_of, register
from qatoolkit.training.losses import Scored

register()


def batch(lengths, block):
    """Blocks whose documents have these lengths, [blocks][documents], the rest of a block being padding."""
    torch.manual_seed(1)
    positions = np.zeros((len(lengths), block), dtype=np.int64)
    for row, documents in enumerate(lengths):
        positions[row] = np.concatenate([np.arange(n) for n in [*documents, block - sum(documents)]])
    ids = torch.randint(0, 97, positions.shape)
    where = torch.from_numpy(np.flatnonzero(np.roll(positions, -1).ravel()[:-1] > 0))
    return ids, torch.from_numpy(positions), where, ids.flatten()[where + 1], documents_of(positions, "cpu")


SHAPES = {
    "one document a block": ([[30], [32]], 32),
    "many of many lengths": ([[1, 2, 3, 4, 5, 6, 7], [20, 1, 1, 1], [31]], 32),
    "all of one token": ([[1] * 8, [1] * 8], 8),
    "a long one among short ones": ([[60, 1, 1], [2] * 30], 64),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", CONFIGS)
def test_losses_and_gradients_equal_those_under_a_mask(name, shape):
    torch.manual_seed(0)
    scored = Scored(AutoModelForCausalLM.from_config(CONFIGS[name]()))
    found = {}
    for scored.packed_attention in (True, False):
        scored.zero_grad()
        loss = scored(*batch(*SHAPES[shape]))
        loss.backward()
        found[scored.packed_attention] = (
            loss.detach(),
            [p.grad.clone() for p in scored.parameters() if p.grad is not None],
        )
    torch.testing.assert_close(found[True], found[False], rtol=1e-4, atol=1e-4)


def test_every_token_is_found_once_in_the_groups():
    rng = np.random.default_rng(0)
    positions = np.stack(
        [np.concatenate([np.arange(n) for n in rng.multinomial(200, np.ones(30) / 30)])[:200] for _ in range(5)]
    )
    documents = documents_of(positions, "cpu")
    gathered = np.concatenate([tokens.numpy() for _, _, tokens in documents.groups])
    assert (gathered[documents.back.numpy()] == np.arange(positions.size)).all()
    assert len(gathered) < 1.4 * positions.size


def test_an_attention_of_another_kind_is_refused():
    config = MistralConfig(**TINY, intermediate_size=64, num_key_value_heads=2, sliding_window=4)
    scored = Scored(AutoModelForCausalLM.from_config(config), packed_attention=True)
    with pytest.raises(ValueError, match="sliding_window"):
        scored(*batch([[30], [32]], 32))


def test_packed_attention_requires_the_documents():
    scored = Scored(AutoModelForCausalLM.from_config(CONFIGS["llama"]()), packed_attention=True)
    with pytest.raises(ValueError, match="needs `documents` and no mask"):
        scored(*batch([[30]], 32)[:4])
