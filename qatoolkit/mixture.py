"""QA and general replay in one random order of blocks, by token ratio.

Mixing happens after packing: a ratio between documents would give short QA far fewer tokens than asked for.
"""

from dataclasses import dataclass

import numpy as np

from qatoolkit.packing import IGNORED, Batch, Packed


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Blocks of several packed sources in the order of training: `order` [blocks] counts through the sources' blocks one after
    another; a place in it is all that a resumed run must know. `report` holds the token counts."""

    sources: tuple[Packed, ...]
    order: np.ndarray
    report: dict

    def __len__(self) -> int:
        return len(self.order)

    @property
    def tokens(self) -> np.ndarray:
        """Tokens of documents in each block, in the order of training, [blocks]."""
        return np.concatenate([s.tokens for s in self.sources])[self.order]

    def predicted(self, answers_only: bool) -> np.ndarray:
        """Tokens that the loss is taken on in each block, in the order of training, [blocks]."""
        return np.concatenate([s.predicted(answers_only) for s in self.sources])[self.order]

    def describe(self) -> str:
        """How much of each source is read, and how often, in one line."""
        r = self.report
        parts = [
            f"{r[name]:,} tokens of {name} ({r[epochs]:,.2f} times over)"
            for name, epochs in (("qa", "epochs"), ("general", "general_epochs"))
            if r[name]
        ]
        return "reads " + " and ".join(parts)

    def context(self) -> float:
        """Earlier tokens that a token of a document attends to, on average over what is read."""
        attended = np.concatenate([s.attended for s in self.sources])[self.order]
        return float(attended.sum() / max(1, self.tokens.sum()))

    def batch(self, places: np.ndarray, answers_only: bool = False) -> Batch:
        """The blocks at these places of the order; place -1 is a block of padding, for a process that has none left."""
        first = np.cumsum([0, *(len(s) for s in self.sources)])
        rows = np.where(places < 0, -1, self.order[places])
        parts = np.searchsorted(first, rows, side="right") - 1
        block = self.sources[0].block
        ids, labels, positions = (np.empty((len(rows), block), dtype=np.int64) for _ in range(3))
        for part in np.unique(parts):
            here = parts == part
            source, local = self.sources[max(part, 0)], rows[here] - (first[part] if part >= 0 else 0)
            ids[here], labels[here], positions[here] = source.read(local, answers_only)
        where = np.flatnonzero(labels != IGNORED)
        return Batch(ids=ids, positions=positions, where=where, targets=labels.ravel()[where])


def draw(tokens: np.ndarray, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of blocks holding `tokens` [blocks] tokens each, in random order epoch after epoch, until they hold `wanted`."""
    rows, have = [], 0
    while have < wanted:
        epoch = rng.permutation(len(tokens))
        total = have + np.cumsum(tokens[epoch])
        used = int(np.searchsorted(total, wanted)) + 1
        rows.append(epoch[:used])
        have = int(total[min(used, len(epoch)) - 1])
    return np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)


def mix(qa: Packed | None, general: Packed | None, tokens: int, replay: float, seed: int) -> Mixture:
    """`tokens` training tokens, of which the share `replay` is general text, in one random order.

    The report holds the realised counts: {"qa", "general", "requested_replay", "realised_replay", "epochs", "general_epochs"},
    the last two how often each source is read. ValueError where a source with a share is missing."""
    rng, numbers, counts, sources = np.random.default_rng(seed), [], {}, []
    for name, source, share in (("qa", qa, 1 - replay), ("general", general, replay)):
        counts[name] = 0
        if share and source is None:
            raise ValueError(
                f"replay is {replay}, so {share:.0%} of the tokens must be {name}, but there is no {name} data"
            )
        if source is None:
            continue
        rows = draw(source.tokens, round(tokens * share), rng)
        numbers.append(rows + sum(map(len, sources)))
        counts[name] = int(source.tokens[rows].sum())
        sources.append(source)
    order = np.concatenate(numbers)
    held = {name: source.tokens.sum() if source else 0 for name, source in (("qa", qa), ("general", general))}
    report = counts | {
        "requested_replay": replay,
        "realised_replay": counts["general"] / max(1, counts["qa"] + counts["general"]),
        "epochs": counts["qa"] / max(1, int(held["qa"])),
        "general_epochs": counts["general"] / max(1, int(held["general"])),
    }
    return Mixture(sources=tuple(sources), order=order[rng.permutation(len(order))], report=report)
