"""Token files and packing: every token is kept, documents stay whole and apart, padding is never learnt."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from qatoolkit.training.packing import IGNORED, best_fit, pack
from qatoolkit.training.tokens import open_tokens, tokenizer_digest, train_tokenizer, write_tokens

TEXTS = [f"Question: What is {i} plus {i}?\nAnswer: {2 * i}" for i in range(200)] + [
    "问题：首都是什么？\n答案：北京"
] * 5
PAIRS = [(t[: t.index("Answer:") + 7], t[t.index("Answer:") + 7 :]) for t in TEXTS[:200]]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 320)


@pytest.fixture(scope="module")
def tokens(tokenizer, tmp_path_factory):
    return write_tokens(TEXTS, tokenizer, tmp_path_factory.mktemp("t") / "texts", together=7)


def documents(file):
    return [tuple(file.tokens[a:b].tolist()) for a, b in itertools.pairwise(file.offsets)]


def read_back(packed):
    """Documents (or pieces) found in the blocks, cut where positions restart."""
    ids, _labels, positions = packed.read(np.arange(len(packed)))
    found = []
    for row in range(len(packed)):
        starts = [*np.flatnonzero(positions[row] == 0), packed.block]
        found += [tuple(ids[row, a:b].tolist()) for a, b in itertools.pairwise(starts)]
    return found


def test_a_token_file_holds_each_text_and_its_end(tokenizer, tokens):
    assert len(tokens) == len(TEXTS)
    assert [tokenizer.decode(d[:-1]) for d in documents(tokens)] == TEXTS
    assert {d[-1] for d in documents(tokens)} == {tokenizer.eos_token_id}
    assert tokens.about["tokens"] == len(tokens.tokens) == sum(map(len, documents(tokens)))


def test_a_token_file_is_mapped_and_not_read(tokens):
    assert isinstance(open_tokens(tokens.folder).tokens, np.memmap)


def test_the_prompt_ends_where_the_answer_begins(tokenizer, tmp_path):
    file = write_tokens(PAIRS, tokenizer, tmp_path / "pairs")
    for document, prompt, (_, answer) in zip(documents(file), file.given, PAIRS, strict=True):
        assert tokenizer.decode(document[prompt:-1]) == answer


def test_a_file_that_is_cut_short_or_missing_is_refused(tokenizer, tmp_path):
    file = write_tokens(TEXTS[:5], tokenizer, tmp_path / "cut")
    with open(file.folder / "tokens.bin", "r+b") as stream:
        stream.truncate(10)
    with pytest.raises(ValueError, match="10 bytes instead of 136"):
        open_tokens(file.folder)
    with pytest.raises(ValueError, match="write_tokens"):
        open_tokens(tmp_path / "nowhere")


def test_a_tokenizer_without_an_end_is_refused(tmp_path):
    tokenizer = train_tokenizer(TEXTS, 320)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="end-of-text"):
        write_tokens(TEXTS, tokenizer, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_tokenizers_are_told_apart_by_their_vocabulary(tokenizer):
    assert tokenizer_digest(tokenizer) == tokenizer_digest(train_tokenizer(TEXTS, 320))
    assert tokenizer_digest(tokenizer) != tokenizer_digest(train_tokenizer(TEXTS, 321))


def test_every_token_of_every_document_is_in_some_block(tokens):
    packed = pack(tokens, 64)
    assert packed.tokens.sum() == tokens.about["tokens"]
    pad = tokens.about["pad"]
    found = [d for d in read_back(packed) if set(d) != {pad}]
    assert sorted(found) == sorted(documents(tokens))


def test_a_document_longer_than_a_block_goes_on_in_pieces(tokenizer, tmp_path):
    file = write_tokens(["word " * 500, "short"], tokenizer, tmp_path / "long")
    packed = pack(file, 64)
    assert packed.tokens.sum() == file.about["tokens"]
    order = np.argsort(packed.starts)
    assert (packed.starts[order] == np.concatenate([[0], np.cumsum(packed.lengths[order])[:-1]])).all()
    assert packed.lengths.max() == 64


def test_packing_is_kept_and_read_back(tokens):
    first = pack(tokens, 32)
    stamp = (tokens.folder / "packed-32" / "starts.npy").stat().st_mtime_ns
    assert (pack(open_tokens(tokens.folder), 32).starts == first.starts).all()
    assert (tokens.folder / "packed-32" / "starts.npy").stat().st_mtime_ns == stamp


def test_padding_and_the_first_token_of_a_document_are_not_learnt(tokens):
    packed = pack(tokens, 64)
    ids, labels, positions = packed.read(np.arange(len(packed)))
    learnt = labels != IGNORED
    assert learnt.sum() == packed.predicted(answers_only=False).sum() == tokens.about["tokens"] - len(tokens)
    assert (labels[:, :-1][learnt[:, :-1]] == ids[:, 1:][learnt[:, :-1]]).all()
    assert (positions[:, 1:][learnt[:, :-1]] > 0).all()


def test_only_answers_are_learnt_when_asked(tokenizer, tmp_path):
    packed = pack(write_tokens(PAIRS, tokenizer, tmp_path / "pairs"), 64)
    _, labels, _ = packed.read(np.arange(len(packed)), answers_only=True)
    learnt = tokenizer.decode(labels[labels != IGNORED])
    assert learnt.count("<eos>") == len(PAIRS)
    assert "Question" not in learnt
    assert (labels != IGNORED).sum() == packed.predicted(answers_only=True).sum()


def test_best_fit_wastes_little(tokens):
    assert pack(tokens, 64).efficiency > 0.9


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 20), max_size=60))
def test_no_block_overflows_and_no_document_would_have_fitted_a_fuller_one(lengths):
    bins = best_fit(np.array(lengths, dtype=np.int32), 20)
    fill = np.bincount(bins, weights=lengths) if lengths else np.zeros(0)
    assert (fill <= 20).all()
    assert len(fill) == 0 or fill.min() > 0
    assert sum(20 - f >= 10 for f in fill) <= 1  # two blocks at most half full would have been one


def test_a_token_for_padding_alone_may_lie_beyond_the_models_rows(tmp_path):
    tokenizer = train_tokenizer(TEXTS, 320)
    rows = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    plain = write_tokens(TEXTS, tokenizer, tmp_path / "plain")
    assert plain.about["vocabulary"] == rows
    assert pack(plain, 64).read(np.array([-1]))[0].max() < rows
    assert write_tokens(["of [PAD]"], tokenizer, tmp_path / "held").about["vocabulary"] == rows + 1


def test_ids_with_gaps_are_stored_as_they_are(tmp_path):
    words = Tokenizer(WordLevel({"<eos>": 0, "a": 70_000, "<unk>": 1}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", unk_token="<unk>")
    file = write_tokens(["a"], tokenizer, tmp_path / "x")
    assert file.tokens.tolist() == [70_000, 0]
    assert file.about["vocabulary"] == 70_001
