"""From documents to training blocks: tokenise, pack, and mix QA with general replay by token ratio.

Documents are packed whole, best fit first, and their positions restart at 0, which keeps packed documents from seeing one
another. Mixing happens after packing: a ratio between documents would give short QA far fewer tokens than asked for.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Packed training data: `input_ids`, `labels` and `position_ids`, each [blocks, block length] int32; padding carries
    the label -100 and counts as one more document."""

    input_ids: np.ndarray
    labels: np.ndarray
    position_ids: np.ndarray

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def tokens(self) -> np.ndarray:
        """Tokens of documents in each block, [blocks]."""
        return (self.labels != IGNORED).sum(axis=1)

    def take(self, rows: np.ndarray) -> "Blocks":
        return Blocks(
            input_ids=self.input_ids[rows], labels=self.labels[rows], position_ids=self.position_ids[rows]
        )

    def save(self, path: Path) -> None:
        np.savez(path, input_ids=self.input_ids, labels=self.labels, position_ids=self.position_ids)

    @classmethod
    def load(cls, path: Path) -> "Blocks":
        with np.load(path, allow_pickle=False) as file:
            return cls(**{name: file[name] for name in ("input_ids", "labels", "position_ids")})


def train_tokenizer(texts: list[str], vocabulary: int):
    """A byte-level BPE tokenizer with `<pad>` and `<eos>`, as transformers saves and loads it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def tokenise(texts: list[str], tokenizer, block: int) -> tuple[list[np.ndarray], int]:
    """Each text as token ids ending in `<eos>`; a text longer than a block is cut there. Returns the documents and how many
    tokens were cut."""
    documents, cut = [], 0
    for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []:
        ids = np.array([*ids, tokenizer.eos_token_id], dtype=np.int32)
        cut += max(0, len(ids) - block)
        documents.append(ids[:block])
    return documents, cut


def pack(documents: list[np.ndarray], block: int, pad: int) -> Blocks:
    """Best-fit packing of whole documents into blocks of `block` tokens, longest document first."""
    order = sorted(range(len(documents)), key=lambda i: -len(documents[i]))
    open_by_room = [[] for _ in range(block + 1)]  # blocks by the room they have left
    bins = []
    for i in order:
        length = len(documents[i])
        room = next((r for r in range(length, block + 1) if open_by_room[r]), None)
        if room is None:
            bins.append([])
            index, room = len(bins) - 1, block
        else:
            index = open_by_room[room].pop()
        bins[index].append(i)
        open_by_room[room - length].append(index)
    ids = np.full((len(bins), block), pad, dtype=np.int32)
    labels = np.full((len(bins), block), IGNORED, dtype=np.int32)
    positions = np.zeros((len(bins), block), dtype=np.int32)
    for row, members in enumerate(bins):
        at = 0
        for i in members:
            end = at + len(documents[i])
            ids[row, at:end] = labels[row, at:end] = documents[i]
            positions[row, at:end] = np.arange(end - at)
            at = end
        positions[row, at:] = np.arange(block - at)
    return Blocks(input_ids=ids, labels=labels, position_ids=positions)


def draw(blocks: Blocks, tokens: int, rng: np.random.Generator) -> np.ndarray:
    """Row numbers of `blocks`, in random order epoch after epoch, until they hold `tokens` tokens."""
    if len(blocks) == 0:
        raise ValueError("no documents to draw from; the data set is empty")
    counts, rows, have = blocks.tokens, [], 0
    while have < tokens:
        epoch = rng.permutation(len(blocks))
        total = have + np.cumsum(counts[epoch])
        used = int(np.searchsorted(total, tokens)) + 1
        rows.append(epoch[:used])
        have = int(total[min(used, len(epoch)) - 1])
    return np.concatenate(rows)


def mix(qa: Blocks, general: Blocks, tokens: int, replay: float, seed: int) -> tuple[Blocks, dict]:
    """`tokens` training tokens, of which the share `replay` is general text, in one random order.

    Returns the blocks and the realised token counts {"qa", "general", "requested_replay", "realised_replay", "epochs"}."""
    rng = np.random.default_rng(seed)
    parts, counts = [], {}
    for name, source, share in (("qa", qa, 1 - replay), ("general", general, replay)):
        rows = draw(source, round(tokens * share), rng) if share else np.empty(0, dtype=int)
        part = source.take(rows)
        parts.append(part)
        counts[name] = int(part.tokens.sum())
    mixed = Blocks(
        **{
            name: np.concatenate([getattr(p, name) for p in parts])
            for name in ("input_ids", "labels", "position_ids")
        }
    )
    total = counts["qa"] + counts["general"]
    report = counts | {
        "requested_replay": replay,
        "realised_replay": counts["general"] / total,
        "epochs": counts["qa"] / max(1, int(qa.tokens.sum())),
    }
    return mixed.take(rng.permutation(len(mixed))), report
