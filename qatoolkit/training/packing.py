"""Best-fit packing: whole documents into blocks of one length, positions restarting at 0 for each.

With `position_ids` alone transformers keeps packed documents apart. A document longer than a block is split into
pieces, each treated as a document, so that no token is lost.
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
    """Blocks as a model reads them: `ids` and `positions` [blocks, block]; `where` [targets], the flat indices at which
    a token is predicted, and `targets`, those tokens; all int64."""

    ids: np.ndarray
    positions: np.ndarray
    where: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A token file in blocks. Pieces of documents, block by block: `starts` (in the file's tokens), `lengths` and
    `given` (prompt tokens), all [pieces]; the pieces of a block are offsets[block] to offsets[block + 1], [blocks +
    1]."""

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
        """Tokens of documents in each block, [blocks]."""
        return self._per_block(self.lengths)

    @cached_property
    def attended(self) -> np.ndarray:
        """Sum over the tokens of each block of the earlier tokens in their document, [blocks]."""
        lengths = self.lengths.astype(np.int64)
        return self._per_block(lengths * (lengths - 1) // 2)

    @property
    def efficiency(self) -> float:
        """Share of places that are not padding."""
        return float(self.lengths.sum(dtype=np.int64) / (len(self) * self.block))

    def predicted(self, answers_only: bool) -> np.ndarray:
        """Tokens of each block that the loss is taken on, [blocks]: all but each piece's first, or of answers."""
        unlearnt = np.clip(self.given, 1, self.lengths) if answers_only else 1
        return self._per_block(self.lengths - unlearnt)

    def _per_block(self, values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, self.offsets[:-1], dtype=np.int64)

    def read(self, rows: np.ndarray, answers_only: bool = False) -> tuple[np.ndarray, ...]:
        """(ids, labels, positions) of blocks, each [rows, block]; a label is the next token, or -100 without a loss.
        Padding counts as one more document; row -1 is a block of padding."""
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
    """Pack a token file into blocks of `block` tokens, longest piece first, each into the fullest block that has room.

    Stored beside the tokens and reused. `block` is 2 or more (`settings.Block`)."""
    folder = source.folder / f"packed-{block}"
    with locked(source.folder / ".lock"):  # parallel jobs, and processes of one job, pack once
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
    nth = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)  # of its document
    starts = np.repeat(source.offsets[:-1], pieces) + nth * block
    long = np.minimum(np.repeat(lengths, pieces) - nth * block, block).astype(np.int32)
    given = np.clip(np.repeat(source.given, pieces) - nth * block, 0, block).astype(np.int32)
    bins = best_fit(long, block)
    order = np.argsort(bins, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(bins))])
    return {"offsets": offsets.astype(np.int64), "starts": starts[order], "lengths": long[order], "given": given[order]}


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
    """Blocks of several packed sources in the order of training: `order` [blocks] indexes the sources' blocks,
    concatenated; a place in it is all that a resumed run needs. `report` has the token counts."""

    sources: tuple[Packed, ...]
    order: np.ndarray
    report: dict

    def __len__(self) -> int:
        return len(self.order)

    @property
    def tokens(self) -> np.ndarray:
        """Tokens of documents in each block, in the order of training, [blocks]."""
        return self._in_order(s.tokens for s in self.sources)

    def predicted(self, answers_only: bool) -> np.ndarray:
        """Tokens that the loss is taken on in each block, in the order of training, [blocks]."""
        return self._in_order(s.predicted(answers_only) for s in self.sources)

    def _in_order(self, values: Iterable[np.ndarray]) -> np.ndarray:
        return np.concatenate(list(values))[self.order]

    def describe(self) -> str:
        """One line: how many tokens of each source are read, and how often."""
        r = self.report
        parts = [
            f"{r[name]:,} tokens of {name} ({r[epochs]:,.2f} times over)"
            for name, epochs in (("qa", "epochs"), ("general", "general_epochs"))
            if r[name]
        ]
        return "reads " + " and ".join(parts)

    @property
    def identity(self) -> list:
        """What tells this data from other data: the sources' digests and, of parts, what each gives."""
        return [*(s.source.about["digest"] for s in self.sources), *self.report.get("parts", ())]

    def context(self) -> float:
        """Earlier tokens that a token attends to, on average."""
        return float(self._in_order(s.attended for s in self.sources).sum() / max(1, self.tokens.sum()))

    def batch(self, places: np.ndarray, answers_only: bool = False) -> Batch:
        """The blocks at these places of the order; place -1 is a block of padding, for a process without one."""
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
    """Indices of blocks with `tokens` [blocks] tokens, reshuffled each epoch, until their sum is `wanted`."""
    rows, have = [], 0
    while have < wanted:
        epoch = rng.permutation(len(tokens))
        total = have + np.cumsum(tokens[epoch])
        used = int(np.searchsorted(total, wanted)) + 1
        rows.append(epoch[:used])
        have = int(total[min(used, len(epoch)) - 1])
    return np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """QA of several sets: their blocks, shares of the QA tokens (adding up to one), and how often a set is read at most,
    null for any number."""

    sources: dict[str, Packed]
    shares: dict[str, float]
    max_epochs: float | None = None

    def divide(self, tokens: int) -> dict[str, int]:
        """Tokens that each set gives: by the shares, but none more than `max_epochs` of its own; what it can't give the
        others do, by their shares. ValueError where all together have too few."""
        held = {name: int(source.tokens.sum()) for name, source in self.sources.items()}
        if self.max_epochs is None:
            return {name: round(tokens * share) for name, share in self.shares.items()}
        most = {name: int(self.max_epochs * n) for name, n in held.items()}
        if sum(most.values()) < tokens:
            each = ", ".join(f"{name} {n:,}" for name, n in held.items())
            raise ValueError(
                f"{tokens:,} tokens of QA are asked for, and max_epochs {self.max_epochs:g} allows {sum(most.values()):,} "
                f"({each}): raise it, add data, or lower the tokens"
            )
        given, free = {}, dict(self.shares)
        while free:
            left = tokens - sum(given.values())
            wanted = {name: round(left * share / sum(free.values())) for name, share in free.items()}
            full = {name: most[name] for name in free if wanted[name] >= most[name]}
            given |= full or wanted
            free = {name: share for name, share in free.items() if name not in given}
        return {name: given[name] for name in self.shares}


def mix(qa: Packed | Parts | None, general: Packed | None, tokens: int, replay: float, seed: int) -> Mixture:
    """`tokens` training tokens, of which the share `replay` is general text, in one random order.

    The report has the realised counts "qa", "general", "requested_replay" and "realised_replay", and "epochs" and
    "general_epochs", how often each source is read; of QA in parts also "parts", a row each: set, requested and realised
    share of the QA tokens, tokens, epochs. ValueError if a source with a share is missing, or has too few tokens."""
    rng, numbers, sources = np.random.default_rng(seed), [], []
    for name, source, share in (("qa", qa, 1 - replay), ("general", general, replay)):
        if share and source is None:
            raise ValueError(
                f"replay is {replay}, so {share:.0%} of the tokens must be {name}, but there is no {name} data"
            )
    wanted = round(tokens * (1 - replay))
    split = isinstance(qa, Parts)
    read = [(qa.sources[name], n) for name, n in qa.divide(wanted).items()] if split else [(qa, wanted)]
    given = []
    for source, count in [*read, (general, round(tokens * replay))]:
        rows = draw(source.tokens, count, rng) if source else np.empty(0, dtype=np.int64)
        given.append(int(source.tokens[rows].sum()) if source else 0)
        if source:
            numbers.append(rows + sum(map(len, sources)))
            sources.append(source)
    order = np.concatenate(numbers)
    held = [int(source.tokens.sum()) if source else 0 for source, _ in [*read, (general, 0)]]
    questions = sum(given[:-1])
    report = {
        "qa": questions,
        "general": given[-1],
        "requested_replay": replay,
        "realised_replay": given[-1] / max(1, sum(given)),
        "epochs": questions / max(1, sum(held[:-1])),
        "general_epochs": given[-1] / max(1, held[-1]),
    }
    if split:
        rows = zip(qa.shares.items(), given, held, strict=False)  # without general text, which is the last
        report["parts"] = [
            {
                "set": name,
                "requested": share,
                "realised": n / max(1, questions),
                "tokens": n,
                "epochs": n / max(1, all_),
            }
            for (name, share), n, all_ in rows
        ]
    return Mixture(sources=tuple(sources), order=order[rng.permutation(len(order))], report=report)
