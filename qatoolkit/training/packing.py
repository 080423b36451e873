"""Best-fit packing: whole documents in blocks of equal length, with positions restarting at 0 for each document.

From the `position_ids` transformers separates packed documents. A document longer than a block is split into pieces,
each treated as a document, so no token is lost.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from qatoolkit.core.files import atomic, locked
from qatoolkit.training.tokens import TokenFile

IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A model's input: `ids` and `positions` [blocks, block]; `where` [targets], the flat indices at which a token is
    predicted, and `targets`, these tokens; all int64."""

    ids: np.ndarray
    positions: np.ndarray
    where: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A token file in blocks. For each piece of a document, in the order of blocks: `starts` (in the file's tokens),
    `lengths` and `given` (prompt tokens), all [pieces]; the pieces of block b are offsets[b] to offsets[b + 1], with
    `offsets` [blocks + 1]."""

    source: TokenFile
    block: int
    offsets: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    given: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __repr__(self):
        return f"{len(self):,} blocks of {self.block}, {self.efficiency:.1%} of them tokens of {self.source!r}"

    @cached_property
    def tokens(self) -> np.ndarray:
        """Tokens in each block, without padding, [blocks]."""
        return self._per_block(self.lengths)

    @cached_property
    def attended(self) -> np.ndarray:
        """Attended tokens of each block: for each token the earlier ones of its document, summed, [blocks]."""
        lengths = self.lengths.astype(np.int64)
        return self._per_block(lengths * (lengths - 1) // 2)

    @property
    def efficiency(self) -> float:
        """Share of positions that are not padding."""
        return float(self.lengths.sum(dtype=np.int64) / (len(self) * self.block))

    def predicted(self, answers_only: bool) -> np.ndarray:
        """Tokens of each block that have a loss, [blocks]: all but each piece's first, or only those of answers."""
        without_loss = np.clip(self.given, 1, self.lengths) if answers_only else 1
        return self._per_block(self.lengths - without_loss)

    def _per_block(self, values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, self.offsets[:-1], dtype=np.int64)

    def read(self, rows: np.ndarray, answers_only: bool = False) -> tuple[np.ndarray, ...]:
        """(ids, labels, positions) of the blocks `rows`, each [rows, block]; a label is the next token, or -100 where
        it has no loss. Padding is one more document; row -1 gives a block of padding."""
        ids = np.full((len(rows), self.block), self.source.about["pad"], dtype=np.int64)
        labels = np.full_like(ids, IGNORED)
        positions = np.zeros_like(ids)
        for row, number in enumerate(rows):
            at = 0
            for piece in range(*self.offsets[number : number + 2]) if number >= 0 else ():
                start, length = int(self.starts[piece]), int(self.lengths[piece])
                tokens = self.source.tokens[start : start + length]
                first = min(max(1, int(self.given[piece])), length) if answers_only else 1
                ids[row, at : at + length] = tokens
                labels[row, at + first - 1 : at + length - 1] = tokens[first:]
                positions[row, at : at + length] = np.arange(length)
                at += length
            positions[row, at:] = np.arange(self.block - at)
        return ids, labels, positions


def pack(source: TokenFile, block: int) -> Packed:
    """Pack a token file into blocks of `block` tokens, longest piece first, each into the fullest block with room for
    it.

    The result is stored beside the tokens and reused. `block` is 2 or more (`settings.Block`)."""
    folder = source.folder / f"packed-{block}"
    with locked(source.folder / ".lock"):  # so that parallel jobs and processes pack only once
        if not folder.is_dir():
            with atomic(folder) as temporary:
                temporary.mkdir()
                for name, values in _pack(source, block).items():
                    np.save(temporary / f"{name}.npy", values)
    parts = {p.stem: np.load(p, mmap_mode="r") for p in sorted(folder.glob("*.npy"))}
    return Packed(source=source, block=block, **parts)


def _pack(source: TokenFile, block: int) -> dict[str, np.ndarray]:
    lengths = np.diff(source.offsets)
    pieces = -(-lengths // block)
    nth = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)  # piece of its document, from 0
    starts = np.repeat(source.offsets[:-1], pieces) + nth * block
    piece_lengths = np.minimum(np.repeat(lengths, pieces) - nth * block, block).astype(np.int32)
    given = np.clip(np.repeat(source.given, pieces) - nth * block, 0, block).astype(np.int32)
    bins = best_fit(piece_lengths, block)
    order = np.argsort(bins, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(bins))])
    return {
        "offsets": offsets.astype(np.int64),
        "starts": starts[order],
        "lengths": piece_lengths[order],
        "given": given[order],
    }


def best_fit(lengths: np.ndarray, block: int) -> np.ndarray:
    """The block of each document, [documents] int64: best fit, longest first, ties in the given order."""
    by_room = [[] for _ in range(block + 1)]  # blocks by free tokens
    rooms = 0  # bit r is set where by_room[r] is not empty
    bins, count = np.empty(len(lengths), dtype=np.int64), 0
    for i in np.argsort(-lengths.astype(np.int64), kind="stable").tolist():
        length = int(lengths[i])
        if fitting := rooms >> length:
            room = length + (fitting & -fitting).bit_length() - 1
            bins[i] = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
        else:
            bins[i], room, count = count, block, count + 1
        if rest := room - length:
            by_room[rest].append(int(bins[i]))
            rooms |= 1 << rest
    return bins


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Blocks of several packed sources in training order: `order` [blocks] indexes the concatenated blocks of the
    sources, so a position in it is all that a resumed run needs. `report` has the token counts."""

    sources: tuple[Packed, ...]
    order: np.ndarray
    report: dict

    def __len__(self) -> int:
        return len(self.order)

    @property
    def tokens(self) -> np.ndarray:
        """Tokens in each block, without padding, in training order, [blocks]."""
        return self._in_order(s.tokens for s in self.sources)

    def predicted(self, answers_only: bool) -> np.ndarray:
        """Tokens of each block that have a loss, in training order, [blocks]."""
        return self._in_order(s.predicted(answers_only) for s in self.sources)

    def _in_order(self, values: Iterable[np.ndarray]) -> np.ndarray:
        return np.concatenate(list(values))[self.order]

    def describe(self) -> str:
        """One line: the tokens of each source and its epochs."""
        r = self.report
        parts = [
            f"{r[name]:,} tokens of {name} ({r[epochs]:,.2f} times over)"
            for name, epochs in (("qa", "epochs"), ("general", "general_epochs"))
            if r[name]
        ]
        return "reads " + " and ".join(parts)

    @property
    def identity(self) -> list:
        """Identifies the data: the digests of the sources and, for QA in parts, their token counts."""
        return [*(s.source.about["digest"] for s in self.sources), *self.report.get("parts", ())]

    def context(self) -> float:
        """Mean number of earlier tokens that a token attends to."""
        return float(self._in_order(s.attended for s in self.sources).sum() / max(1, self.tokens.sum()))

    def batch(self, places: np.ndarray, answers_only: bool = False) -> Batch:
        """The blocks at `places` of the order; place -1 gives a block of padding, for a process that has no block."""
        first = np.cumsum([0, *(len(s) for s in self.sources)])
        rows = np.where(places < 0, -1, self.order[places])
        parts = np.searchsorted(first, rows, side="right") - 1
        block = self.sources[0].block
        ids, labels, positions = (np.empty((len(rows), block), dtype=np.int64) for _ in range(3))
        for part in np.unique(parts):
            in_part = parts == part
            source, local = self.sources[max(part, 0)], rows[in_part] - (first[part] if part >= 0 else 0)
            ids[in_part], labels[in_part], positions[in_part] = source.read(local, answers_only)
        where = np.flatnonzero(labels != IGNORED)
        return Batch(ids=ids, positions=positions, where=where, targets=labels.ravel()[where])


def draw(tokens: np.ndarray, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """Draw blocks, reshuffled each epoch, until their tokens (`tokens` [blocks]) add up to `wanted`; returns
    indices."""
    rows, drawn = [], 0
    while drawn < wanted:
        epoch = rng.permutation(len(tokens))
        total = drawn + np.cumsum(tokens[epoch])
        used = int(np.searchsorted(total, wanted)) + 1
        rows.append(epoch[:used])
        drawn = int(total[min(used, len(epoch)) - 1])
    return np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """QA of several sets: their blocks, their shares of the QA tokens (adding up to one), and the most epochs of a set,
    None for any number."""

    sources: dict[str, Packed]
    shares: dict[str, float]
    max_epochs: float | None = None

    def divide(self, tokens: int) -> dict[str, int]:
        """Tokens to read from each set: by the shares, but at most `max_epochs` of a set; the remainder comes from the
        other sets, by their shares. ValueError if all sets together have too few."""
        available = {name: int(source.tokens.sum()) for name, source in self.sources.items()}
        if self.max_epochs is None:
            return {name: round(tokens * share) for name, share in self.shares.items()}
        most = {name: int(self.max_epochs * n) for name, n in available.items()}
        if sum(most.values()) < tokens:
            each = ", ".join(f"{name} {n:,}" for name, n in available.items())
            raise ValueError(
                f"{tokens:,} tokens of QA are requested, but max_epochs {self.max_epochs:g} allows "
                f"{sum(most.values()):,} ({each}): raise max_epochs, add data, or lower the tokens"
            )
        counts, open_shares = {}, dict(self.shares)
        while open_shares:
            left = tokens - sum(counts.values())
            wanted = {name: round(left * share / sum(open_shares.values())) for name, share in open_shares.items()}
            full = {name: most[name] for name in open_shares if wanted[name] >= most[name]}
            counts |= full or wanted
            open_shares = {name: share for name, share in open_shares.items() if name not in counts}
        return {name: counts[name] for name in self.shares}


def mix(qa: Packed | Parts | None, general: Packed | None, tokens: int, replay: float, seed: int) -> Mixture:
    """Mix `tokens` training tokens, of which the share `replay` is general text, in one random order.

    The report has the realised counts "qa" and "general", "requested_replay", "realised_replay", and how often each
    source is read in "epochs" and "general_epochs"; for QA in parts also "parts", a row each: set, requested and
    realised share of the QA tokens, tokens, epochs. ValueError if a source with a share is missing, or has too few
    tokens."""
    rng, numbers, sources = np.random.default_rng(seed), [], []
    for name, source, share in (("qa", qa, 1 - replay), ("general", general, replay)):
        if share and source is None:
            raise ValueError(
                f"replay is {replay}, so {share:.0%} of the tokens must be {name}, but there is no {name} data"
            )
    wanted = round(tokens * (1 - replay))
    in_parts = isinstance(qa, Parts)
    qa_sources = [(qa.sources[name], n) for name, n in qa.divide(wanted).items()] if in_parts else [(qa, wanted)]
    read = []
    for source, count in [*qa_sources, (general, round(tokens * replay))]:
        rows = draw(source.tokens, count, rng) if source else np.empty(0, dtype=np.int64)
        read.append(int(source.tokens[rows].sum()) if source else 0)
        if source:
            numbers.append(rows + sum(map(len, sources)))
            sources.append(source)
    order = np.concatenate(numbers)
    available = [int(source.tokens.sum()) if source else 0 for source, _ in [*qa_sources, (general, 0)]]
    qa_tokens = sum(read[:-1])
    report = {
        "qa": qa_tokens,
        "general": read[-1],
        "requested_replay": replay,
        "realised_replay": read[-1] / max(1, sum(read)),
        "epochs": qa_tokens / max(1, sum(available[:-1])),
        "general_epochs": read[-1] / max(1, available[-1]),
    }
    if in_parts:
        rows = zip(qa.shares.items(), read, available, strict=False)  # the last of `read` is general text
        report["parts"] = [
            {
                "set": name,
                "requested": share,
                "realised": n / max(1, qa_tokens),
                "tokens": n,
                "epochs": n / max(1, total),
            }
            for (name, share), n, total in rows
        ]
    return Mixture(sources=tuple(sources), order=order[rng.permutation(len(order))], report=report)
