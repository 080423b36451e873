"""The cloze scorer: log-likelihoods of answers, with shared contexts and batches of similar length.

For probes and sweeps, where lm-eval would cost more than the training. Tiny models are at chance when they must name a
letter, so the texts of the choices are scored after "Question: ... Answer:", as in the exported lm-eval tasks.
"""

import copy
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from qatoolkit.core.prompt_format import PROMPT
from qatoolkit.training.hub import load_causal_lm, load_tokenizer

SMALL = 256  # tokens; a batch smaller than this costs more than the padding it saves
BATCH_TOKENS = {"cpu": 2048, "cuda": 32_768}  # more is no faster on a CPU, whose caches are small
MOST_TOGETHER = 16  # continuations in one sequence; more would cost more in attention than they save
MOST_LOGITS = 2**26  # at a time (256 MiB), since a large vocabulary times many scored tokens would fill the memory
PREFIX = 32  # tokens; a prefix shared by all contexts is read only once if it is at least this long


def load_model(folder: str | Path):
    """A causal model and its tokenizer from a Hugging Face directory or name, ready to score; safetensors only, no
    remote code. ValueError for a model that does not exist or has no tokenizer of its own."""
    import torch

    if not torch.cuda.is_available():
        torch.set_num_threads(min(2, len(os.sched_getaffinity(0))))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = load_tokenizer(folder)
    model = load_causal_lm(folder).to(device).eval()
    check_fit(folder, model, tokenizer)
    return model, tokenizer


def check_fit(name: str | Path, model, tokenizer) -> None:
    """ValueError for a tokenizer with ids beyond the model's embedding; only the padding token may be."""
    rows = model.get_input_embeddings().weight.shape[0]
    highest = max(i for token, i in tokenizer.get_vocab().items() if token != tokenizer.pad_token)
    if highest >= rows:
        raise ValueError(
            f"model {str(name)!r}: its tokenizer has ids up to {highest:,}, but its embedding {rows:,} rows; save the "
            "tokenizer it was trained with beside the weights"
        )


def score(
    model, tokenizer, table: pd.DataFrame, batch_tokens: int | None = None, *, blind: bool = False
) -> pd.DataFrame:
    """Cloze-score a multiple-choice QA table: columns id, predicted, correct, margin (log-likelihood of the right
    choice minus that of the best wrong one, in nats), per_byte and per_token (whether the right choice is the most
    likely one per UTF-8 byte and per token), bits_per_byte and probability (of the right choice; the latter among the
    choices, whose likelihoods are scaled to add up to 1).

    `blind` leaves the question out of the prompt: what the model would answer without having read it. Rows with a
    choice longer than the model's context are left out, with a warning that names them. ValueError for rows without
    choices or a single right one, and for answers of zero tokens."""
    if table["choices"].isna().any():
        raise ValueError(
            f"score: row {table['choices'].isna().idxmax()} has no choices; open answers go through lm-eval"
        )
    if table["answer_index"].isna().any():
        raise ValueError(
            f"score: row {table['answer_index'].isna().idxmax()} has no single right choice; leave such rows out"
        )
    asked = [""] * len(table) if blind else table["question"]
    contexts = [PROMPT[lang][0].format(question=text) for lang, text in zip(table["language"], asked, strict=True)]
    wholes = [
        context + PROMPT[row.language][1] + choice
        for row, context in zip(table.itertuples(), contexts, strict=True)
        for choice in row.choices
    ]
    starts = [len(ids) for ids in encode(tokenizer, contexts)]
    starts = np.repeat(starts, [len(c) for c in table["choices"]])
    most = max_positions(model)
    pairs, rows = [], np.repeat(np.arange(len(table)), [len(c) for c in table["choices"]])
    for text, ids, start in zip(wholes, encode(tokenizer, wholes), starts, strict=True):
        check_answer(text, ids[start:])
        pairs.append((ids[:start], ids[start:]))
    long = sorted({row for row, (_, answer) in zip(rows, pairs, strict=True) if most and len(answer) > most})
    if long:
        names = ", ".join(map(str, table["id"].iloc[long[:5]]))
        warnings.warn(
            f"{len(long)} of {len(table)} questions are not asked, since a choice is longer than the model's {most} "
            f"positions: {names}{' ...' if len(long) > 5 else ''}",
            stacklevel=2,
        )
        pairs = [pair for row, pair in zip(rows, pairs, strict=True) if row not in long]
        table = table.drop(index=table.index[long])
    pairs = [truncate(*pair, most) for pair in pairs]
    return _judge(table, score_pairs(model, pairs, batch_tokens)[0], [len(answer) for _, answer in pairs])


def encode(tokenizer, texts: list[str], **special) -> list[list[int]]:
    """Token ids of texts that something follows: with the special tokens that the tokenizer puts before a text, as in
    lm-eval, but without the end token that some put after it."""
    end = closes(tokenizer)
    return [
        ids[:-1] if end and ids[-1:] == [tokenizer.eos_token_id] else ids
        for ids in tokenizer(texts, **special)["input_ids"]
    ]


def closes(tokenizer) -> bool:
    """Whether a tokenizer puts its end token after every text."""
    return tokenizer.eos_token_id is not None and tokenizer("a")["input_ids"][-1:] == [tokenizer.eos_token_id]


def check_answer(text: str, answer: list[int]) -> None:
    """ValueError if the answer at the end of `text` (prompt and answer) has no token ids."""
    if not answer:
        raise ValueError(
            f"no token of the answer is left to score: the tokenizer joins it to the prompt in ...{text[-40:]!r}; "
            "reword the answers, or let the model write them (form='generative')"
        )


def max_positions(model) -> int | None:
    """The model's maximum number of positions; None if its configuration gives none."""
    config = getattr(model.config, "text_config", None) or model.config
    found = (getattr(config, name, None) for name in ("n_positions", "max_position_embeddings", "n_ctx"))
    return next((n for n in found if n is not None), None)


def truncate(context: list[int], continuation: list[int], most: int | None) -> tuple[list[int], list[int]]:
    """Context and continuation, cut on the left to what a model of `most` positions can read, as lm-eval does."""
    spare = len(context) + len(continuation) - (most or len(context) + len(continuation)) - 1
    return (context[spare:] if spare > 0 else context), continuation


def score_pairs(
    model, pairs: list[tuple[list[int], list[int]]], batch_tokens: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """For every continuation after its context, both as non-empty token ids: its log-likelihood in nats [pairs]
    float64, and whether greedy decoding would write it [pairs] bool.

    The continuations of one context are read in one sequence, after the context: each has the positions that follow the
    context and attends to the context and itself only. A prefix that all contexts share (few-shot examples) is read
    once. Sequences are sorted by length into batches of about `batch_tokens` tokens (None: a default for the device).

    Not every architecture can be read like this, so the longest sequences are first read in the plain way as well; if
    the two differ, a slower way is used, with a warning."""
    import torch

    if not pairs:
        return np.empty(0), np.empty(0, dtype=bool)
    budget = batch_tokens or BATCH_TOKENS.get(model.device.type, BATCH_TOKENS["cuda"])
    with torch.inference_mode():
        way = _way(model, pairs)
        sequences = _sequences(pairs, way)
        lengths = [sum(map(len, branches), len(context)) for context, _, branches in sequences]
        prefix = _Prefix(model, sequences[0][0][: way.prefix]) if way.prefix else None
        result, greedy = np.empty(len(pairs)), np.empty(len(pairs), dtype=bool)
        for rows in _batches(lengths, budget):
            owners, values, hits = _read(model, [sequences[r] for r in rows], pairs, way, prefix)
            members, place = np.unique(owners, return_inverse=True)
            result[members] = np.bincount(place, values)
            greedy[members] = np.bincount(place, ~hits) == 0
    check_numbers(result)
    return result, greedy


def check_numbers(values) -> None:
    """ValueError if a log-likelihood is NaN: every question would be answered with its first choice."""
    if lost := int(np.isnan(values).sum()):
        raise ValueError(
            f"{lost:,} of {len(values):,} log-likelihoods are NaN: the model's weights are damaged, or too large for "
            "its dtype; try dtype='float32'"
        )


@dataclass(frozen=True, kw_only=True)
class Way:
    """How sequences are read: the continuations of a context `together` in one sequence or apart; logits of the scored
    tokens only, by the output `head`, or of all; the first `prefix` tokens, which all contexts share, once."""

    together: bool
    head: bool
    prefix: int = 0


PLAIN = Way(together=False, head=False)


class _Prefix:
    """The cached keys and values of the tokens that all sequences begin with."""

    def __init__(self, model, ids: list[int]):
        import torch

        ids = torch.tensor([ids], device=model.device)
        self.length, self.cache = ids.shape[1], model(input_ids=ids, use_cache=True).past_key_values

    def times(self, n: int):
        """A copy of the cache for a batch of `n`; a copy, because the model appends to the cache it receives."""
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(n)
        return cache


def _way(model, pairs: list) -> Way:
    """The fastest way that agrees with the plain one on the longest sequences; a warning if others had to be
    skipped."""
    import torch

    from qatoolkit.training.losses import changes_logits

    sequences = _sequences(pairs, Way(together=True, head=True))
    contexts = [context for context, _, _ in sequences]
    shared = _shared(contexts)
    ways = [
        Way(together=together, head=head)
        for together, head in ((True, True), (True, False), (False, True))
        if not (head and changes_logits(model.config))
    ]
    if shared >= PREFIX and len(sequences) > 1:
        ways.insert(0, replace(ways[0], prefix=shared))
    # Masks and positions can fail with several continuations, attention windows in long sequences: test both at once.
    length = lambda s: sum(map(len, s[2]), len(s[0]))  # noqa: E731
    longest_two = (max(sequences, key=lambda s: (sum(map(bool, s[2])) > 1, length(s))), max(sequences, key=length))
    few = [pairs[i] for i in dict.fromkeys(i for _, members, _ in longest_two for i in members)]
    reasons = []
    wanted = _by_owner(model, few, PLAIN)
    for way in ways:
        try:
            worst = float(np.abs(_by_owner(model, few, way) - wanted).max())
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            reasons.append(f"{way}: {type(error).__name__}: {error}".splitlines()[0][:200])
            continue
        # Half precision rounds logits of size 20 by 0.1.
        if worst <= max(1e-3, 32 * torch.finfo(model.dtype).eps):
            break
        reasons.append(f"{way}: a token's log-likelihood is off by {worst:.2g} nats")
    else:
        way = PLAIN
    if reasons:
        used = f"{type(model).__name__} is scored with {way}, which is slower; faster ways failed: "
        warnings.warn(used + "; ".join(reasons), stacklevel=4)
    return way


def _shared(contexts: list[list[int]]) -> int:
    """The length of the prefix that all contexts share, leaving each at least one token of its own."""
    first, last = min(contexts), max(contexts)  # in lexicographic order: what these two share, all do
    shortest = min(map(len, contexts)) - 1
    return next((i for i in range(shortest) if first[i] != last[i]), shortest)


def _by_owner(model, pairs: list, way: Way) -> np.ndarray:
    """The log-likelihood of every token of a few pairs, pair by pair."""
    sequences = _sequences(pairs, way)
    prefix = _Prefix(model, sequences[0][0][: way.prefix]) if way.prefix else None
    owners, values, _ = _read(model, sequences, pairs, way, prefix)
    return values[np.argsort(owners, kind="stable")]


def _sequences(pairs: list, way: Way) -> list[tuple[list[int], list[int], list[list[int]]]]:
    """(context, indices of its pairs, the input part of their continuations). The last token is predicted but is no
    input, so continuations of one token share their context in every way."""
    together: dict[tuple, list[int]] = {}
    for i, (context, continuation) in enumerate(pairs):
        alone = () if way.together or len(continuation) == 1 else (i,)
        together.setdefault((tuple(context), *alone), []).append(i)
    return [
        (pairs[part[0]][0], part, [pairs[i][1][:-1] for i in part])
        for members in together.values()
        for part in (members[k : k + MOST_TOGETHER] for k in range(0, len(members), MOST_TOGETHER))
    ]


def _read(model, sequences: list, pairs: list, way: Way, prefix: _Prefix | None):
    """One batch: for every scored token its pair, its log-likelihood, and whether it is the most likely token."""
    import torch

    skip = prefix.length if prefix else 0
    width = max(sum(map(len, branches), len(context)) for context, _, branches in sequences) - skip
    ids, positions = (np.zeros((len(sequences), width), dtype=np.int64) for _ in range(2))
    segments = np.full((len(sequences), width), -1)
    before, targets, owners = [], [], []  # for each scored token: where it is predicted, its id, its pair
    for row, (context, members, branches) in enumerate(sequences):
        at, last = len(context) - skip, row * width + len(context) - skip - 1
        ids[row, :at], segments[row, :at] = context[skip:], 0
        positions[row, :at] = range(skip, len(context))
        for segment, (i, fed) in enumerate(zip(members, branches, strict=True), 1):
            end = at + len(fed)
            ids[row, at:end], segments[row, at:end] = fed, segment
            positions[row, at:end] = range(len(context), len(context) + len(fed))
            before += [last, *range(row * width + at, row * width + end)]
            targets += pairs[i][1]
            owners += [i] * (len(fed) + 1)
            at = end
    given = {"input_ids": torch.from_numpy(ids).to(model.device), "use_cache": bool(prefix)}
    if prefix:
        given["past_key_values"] = prefix.times(len(sequences))
    if way.together:
        given["position_ids"] = torch.from_numpy(positions).to(model.device)
    if max(sum(map(bool, branches)) for _, _, branches in sequences) > 1:  # else plain causal attention is right
        given["attention_mask"] = _mask(torch.from_numpy(segments).to(model.device), skip, model.dtype)
    places, place = np.unique(before, return_inverse=True)  # the first tokens of all choices share one
    if way.head:
        states = model.base_model(**given).last_hidden_state.flatten(0, 1)
        logits_of = model.get_output_embeddings()
    else:
        states, logits_of = model(**given).logits.flatten(0, 1), torch.nn.Identity()
    places, place, targets = (torch.as_tensor(x, device=states.device) for x in (places, place, targets))
    value, hit = (torch.empty(len(targets), dtype=d) for d in (torch.float64, torch.bool))
    step = max(1, MOST_LOGITS // model.config.get_text_config().vocab_size)
    for start in range(0, len(places), step):
        logits = logits_of(states[places[start : start + step]]).float()
        here = (place >= start) & (place < start + step) if len(places) > step else slice(None)
        at, target = place[here] - start, targets[here]
        value[here] = (logits[at, target] - logits.logsumexp(-1)[at]).double().cpu()
        hit[here] = (logits.argmax(-1)[at] == target).cpu()
    return np.array(owners), value.numpy(), hit.numpy()


def _mask(segments, skip: int, dtype):
    """Attention mask [batch, 1, tokens, skip + tokens]: a token sees the prefix, its context and its continuation."""
    import torch

    seen = segments[:, None, :] == 0
    seen = (seen | (segments[:, None, :] == segments[:, :, None])).tril()
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    mask = mask.masked_fill_(~seen, torch.finfo(dtype).min)
    return torch.nn.functional.pad(mask, (skip, 0))[:, None]


def _batches(lengths: list[int], budget: int) -> Iterable[list[int]]:
    """Indices by rising length, in batches whose padded size stays within the budget. A batch that is not tiny also
    ends where sequences get a fifth longer than its first, since all are padded to the longest."""
    batch = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        padded, first = lengths[i] * (len(batch) + 1), lengths[batch[0]] if batch else 0
        if batch and (padded > budget or (lengths[i] > 1.2 * first and first * len(batch) > SMALL)):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _judge(table: pd.DataFrame, likelihood: np.ndarray, tokens: list[int]) -> pd.DataFrame:
    rows, at = [], 0
    for row in table.itertuples():
        here = slice(at, at := at + len(row.choices))
        found = choose(likelihood[here], {int(row.answer_index)}, row.choices, tokens[here])
        apart = likelihood[here] - likelihood[here][int(row.answer_index)]
        found["probability"] = float(1 / np.exp(apart.clip(max=700)).sum())
        rows.append({"id": row.id, "predicted": int(likelihood[here].argmax())} | found)
    return pd.DataFrame(rows, columns=["id", "predicted", "correct", *CHOSEN, "probability"])


CHOSEN = ("margin", "per_byte", "per_token", "bits_per_byte")


def choose(likelihood: np.ndarray, right: set[int], choices: list[str], tokens: list[int] | None = None) -> dict:
    """What log-likelihoods of choices [choices] (nats) say of a question, as in `score`; `tokens` of each choice,
    without which `per_token` is None. bits_per_byte, minus the base-2 log-likelihood of the right choice (the most
    likely one where several are) over its UTF-8 bytes, is the task loss of Bhagia et al. (arXiv 2412.04403)."""
    sizes = np.array([max(1, len(choice.encode())) for choice in choices])
    truth = np.array([i in right for i in range(len(choices))])
    best = int(np.where(truth, likelihood, -np.inf).argmax())
    return {
        "correct": int(likelihood.argmax()) in right,
        "margin": float(likelihood[best] - likelihood[~truth].max()) if 0 < truth.sum() < len(truth) else float("nan"),
        "per_byte": int((likelihood / sizes).argmax()) in right,
        "per_token": None if tokens is None else int((likelihood / np.array(tokens)).argmax()) in right,
        "bits_per_byte": float(-likelihood[best] / np.log(2) / sizes[best]) if truth.any() else float("nan"),
    }
