"""The cloze scorer: log-likelihoods of answers, with shared contexts and batches of similar length.

For probes and sweeps, where lm-eval would cost more than the training. Tiny models are at chance when asked for a
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

from qatoolkit.core.prompt_format import LETTERS, PROMPT, as_prompt_and_answer
from qatoolkit.training.hub import load_causal_lm, load_tokenizer

SMALL = 256  # tokens; a smaller batch costs more than the padding it saves
BATCH_TOKENS = {"cpu": 2048, "cuda": 32_768}  # more is not faster on a CPU, with its small caches
MOST_TOGETHER = 16  # continuations in one sequence; more would cost more in attention than they save
MOST_LOGITS = 2**26  # at a time (256 MiB): a large vocabulary times many scored tokens would fill the memory
PREFIX = 32  # tokens; the shortest shared prefix that is worth reading only once


def load_model(folder: str | Path):
    """Load a causal model and its tokenizer from a Hugging Face directory or name, ready to score; safetensors only, no
    remote code. ValueError for a model that does not exist or has no tokenizer."""
    import torch

    if not torch.cuda.is_available():
        torch.set_num_threads(min(2, len(os.sched_getaffinity(0))))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = load_tokenizer(folder)
    model = load_causal_lm(folder).to(device).eval()
    check_fit(folder, model, tokenizer)
    return model, tokenizer


def check_fit(name: str | Path, model, tokenizer) -> None:
    """ValueError for a tokenizer with ids beyond the model's embedding, except the padding token."""
    rows = model.get_input_embeddings().weight.shape[0]
    highest = max(i for token, i in tokenizer.get_vocab().items() if token != tokenizer.pad_token)
    if highest >= rows:
        raise ValueError(
            f"model {str(name)!r}: its tokenizer has ids up to {highest:,}, but its embedding has {rows:,} rows; save "
            "the tokenizer it was trained with beside the weights"
        )


def score(
    model, tokenizer, table: pd.DataFrame, batch_tokens: int | None = None, *, blind: bool = False, form: str = "cloze"
) -> pd.DataFrame:
    """Cloze-score a multiple-choice QA table: columns id, predicted, correct, margin (log-likelihood of the right
    choice minus that of the best wrong one, in nats), per_byte and per_token (whether the right choice is the most
    likely one per UTF-8 byte and per token), bits_per_byte and probability (of the right choice; the latter with the
    likelihoods of the choices scaled to add up to 1).

    `blind` leaves the question out of the prompt. With the `form` "letter" the prompt lists the choices as A. B. C. and
    the letters are scored, as in the exported tasks of that form. Rows with a choice longer than the model's context
    are left out, with a warning that names them. ValueError for rows without choices or without a single right one, and
    for answers of zero tokens."""
    if table["choices"].isna().any():
        raise ValueError(
            f"score: row {table['choices'].isna().idxmax()} has no choices; open answers go through lm-eval"
        )
    if table["answer_index"].isna().any():
        raise ValueError(
            f"score: row {table['answer_index'].isna().idxmax()} has no single right choice; leave such rows out"
        )
    questions, listed = [""] * len(table) if blind else table["question"], [()] * len(table)
    if form == "letter":
        listed = table["choices"]
        table = table.assign(choices=[list(LETTERS[: len(choices)]) for choices in listed])
    contexts = [
        as_prompt_and_answer(text, "", language, choices=choices)[0]
        for text, language, choices in zip(questions, table["language"], listed, strict=True)
    ]
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
    """Token ids of texts to be continued: with the special tokens that the tokenizer puts before a text, as in lm-eval,
    but without the end token that some put after it."""
    end = appends_end_token(tokenizer)
    return [
        ids[:-1] if end and ids[-1:] == [tokenizer.eos_token_id] else ids
        for ids in tokenizer(texts, **special)["input_ids"]
    ]


def appends_end_token(tokenizer) -> bool:
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
    """The model's maximum number of positions; None if its configuration has none."""
    config = getattr(model.config, "text_config", None) or model.config
    found = (getattr(config, name, None) for name in ("n_positions", "max_position_embeddings", "n_ctx"))
    return next((n for n in found if n is not None), None)


def truncate(context: list[int], continuation: list[int], most: int | None) -> tuple[list[int], list[int]]:
    """Context and continuation, with the context cut on the left to fit `most` positions, as lm-eval does."""
    spare = len(context) + len(continuation) - (most or len(context) + len(continuation)) - 1
    return (context[spare:] if spare > 0 else context), continuation


def score_pairs(
    model, pairs: list[tuple[list[int], list[int]]], batch_tokens: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """For every (context, continuation), both non-empty token ids: the continuation's log-likelihood in nats [pairs]
    float64, and whether greedy decoding would write it [pairs] bool.

    The continuations of one context are read in one sequence, after the context: each has the positions that follow the
    context and attends to the context and itself only. A prefix that all contexts share (few-shot examples) is read
    once. Sequences are sorted by length into batches of about `batch_tokens` tokens (None: a default for the device).

    Not every architecture supports this, so the longest sequences are first also read one continuation at a time; if
    the results differ, a slower mode is used, with a warning."""
    import torch

    if not pairs:
        return np.empty(0), np.empty(0, dtype=bool)
    budget = batch_tokens or BATCH_TOKENS.get(model.device.type, BATCH_TOKENS["cuda"])
    with torch.inference_mode():
        mode = _choose_mode(model, pairs)
        sequences = _sequences(pairs, mode)
        lengths = [sum(map(len, branches), len(context)) for context, _, branches in sequences]
        prefix = _Prefix(model, sequences[0][0][: mode.prefix]) if mode.prefix else None
        result, greedy = np.empty(len(pairs)), np.empty(len(pairs), dtype=bool)
        for rows in _batches(lengths, budget):
            owners, values, hits = _read(model, [sequences[r] for r in rows], pairs, mode, prefix)
            members, place = np.unique(owners, return_inverse=True)
            result[members] = np.bincount(place, values)
            greedy[members] = np.bincount(place, ~hits) == 0
    check_numbers(result)
    return result, greedy


def check_numbers(values) -> None:
    """ValueError if a log-likelihood is NaN: every question would be answered with its first choice."""
    if nan := int(np.isnan(values).sum()):
        raise ValueError(
            f"{nan:,} of {len(values):,} log-likelihoods are NaN: the model's weights are damaged, or too large for "
            "its dtype; try dtype='float32'"
        )


@dataclass(frozen=True, kw_only=True)
class ReadMode:
    """How sequences are read: the continuations of a context `together` in one sequence or separately; logits of the
    scored tokens only, computed with the output `head`, or of all tokens; the shared first `prefix` tokens only
    once."""

    together: bool
    head: bool
    prefix: int = 0


PLAIN = ReadMode(together=False, head=False)


class _Prefix:
    """The cached keys and values of a prefix shared by all sequences."""

    def __init__(self, model, ids: list[int]):
        import torch

        ids = torch.tensor([ids], device=model.device)
        self.length, self.cache = ids.shape[1], model(input_ids=ids, use_cache=True).past_key_values

    def times(self, n: int):
        """A copy of the cache for a batch of `n`; a copy, because the model appends to the cache it receives."""
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(n)
        return cache


def _choose_mode(model, pairs: list) -> ReadMode:
    """The fastest mode that agrees with PLAIN on the longest sequences; warns if faster ones failed."""
    import torch

    from qatoolkit.training.losses import changes_logits

    sequences = _sequences(pairs, ReadMode(together=True, head=True))
    contexts = [context for context, _, _ in sequences]
    shared = _shared_prefix(contexts)
    modes = [
        ReadMode(together=together, head=head)
        for together, head in ((True, True), (True, False), (False, True))
        if not (head and changes_logits(model.config))
    ]
    if shared >= PREFIX and len(sequences) > 1:
        modes.insert(0, replace(modes[0], prefix=shared))
    # Masks and positions can fail with several continuations, attention windows in long sequences: test both at once.
    length = lambda s: sum(map(len, s[2]), len(s[0]))  # noqa: E731
    longest_two = (max(sequences, key=lambda s: (sum(map(bool, s[2])) > 1, length(s))), max(sequences, key=length))
    longest_pairs = [pairs[i] for i in dict.fromkeys(i for _, members, _ in longest_two for i in members)]
    reasons = []
    expected = _by_owner(model, longest_pairs, PLAIN)
    for mode in modes:
        try:
            worst = float(np.abs(_by_owner(model, longest_pairs, mode) - expected).max())
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            reasons.append(f"{mode}: {type(error).__name__}: {error}".splitlines()[0][:200])
            continue
        # Half precision rounds logits of size 20 by 0.1.
        if worst <= max(1e-3, 32 * torch.finfo(model.dtype).eps):
            break
        reasons.append(f"{mode}: a token's log-likelihood is off by {worst:.2g} nats")
    else:
        mode = PLAIN
    if reasons:
        message = f"{type(model).__name__} is scored with {mode}, which is slower; faster modes failed: "
        warnings.warn(message + "; ".join(reasons), stacklevel=4)
    return mode


def _shared_prefix(contexts: list[list[int]]) -> int:
    """The length of the prefix that all contexts share, leaving at least one token of each."""
    first, last = min(contexts), max(contexts)  # in lexicographic order: what these two share, all share
    shortest = min(map(len, contexts)) - 1
    return next((i for i in range(shortest) if first[i] != last[i]), shortest)


def _by_owner(model, pairs: list, mode: ReadMode) -> np.ndarray:
    """The log-likelihood of every token of a few pairs, pair by pair."""
    sequences = _sequences(pairs, mode)
    prefix = _Prefix(model, sequences[0][0][: mode.prefix]) if mode.prefix else None
    owners, values, _ = _read(model, sequences, pairs, mode, prefix)
    return values[np.argsort(owners, kind="stable")]


def _sequences(pairs: list, mode: ReadMode) -> list[tuple[list[int], list[int], list[list[int]]]]:
    """(context, indices of its pairs, input part of their continuations). The last token is predicted but not read, so
    continuations of one token share their context in every mode."""
    together: dict[tuple, list[int]] = {}
    for i, (context, continuation) in enumerate(pairs):
        alone = () if mode.together or len(continuation) == 1 else (i,)
        together.setdefault((tuple(context), *alone), []).append(i)
    return [
        (pairs[part[0]][0], part, [pairs[i][1][:-1] for i in part])
        for members in together.values()
        for part in (members[k : k + MOST_TOGETHER] for k in range(0, len(members), MOST_TOGETHER))
    ]


def _read(model, sequences: list, pairs: list, mode: ReadMode, prefix: _Prefix | None):
    """Read one batch: for every scored token its pair, its log-likelihood, and whether it is the most likely token."""
    import torch

    skip = prefix.length if prefix else 0
    width = max(sum(map(len, branches), len(context)) for context, _, branches in sequences) - skip
    ids, positions = (np.zeros((len(sequences), width), dtype=np.int64) for _ in range(2))
    segments = np.full((len(sequences), width), -1)
    before, targets, owners = [], [], []  # per scored token: the place that predicts it, its id, its pair
    for row, (context, members, branches) in enumerate(sequences):
        at, last = len(context) - skip, row * width + len(context) - skip - 1
        ids[row, :at], segments[row, :at] = context[skip:], 0
        positions[row, :at] = range(skip, len(context))
        for segment, (i, inputs) in enumerate(zip(members, branches, strict=True), 1):
            end = at + len(inputs)
            ids[row, at:end], segments[row, at:end] = inputs, segment
            positions[row, at:end] = range(len(context), len(context) + len(inputs))
            before += [last, *range(row * width + at, row * width + end)]
            targets += pairs[i][1]
            owners += [i] * (len(inputs) + 1)
            at = end
    arguments = {"input_ids": torch.from_numpy(ids).to(model.device), "use_cache": bool(prefix)}
    if prefix:
        arguments["past_key_values"] = prefix.times(len(sequences))
    if mode.together:
        arguments["position_ids"] = torch.from_numpy(positions).to(model.device)
    if max(sum(map(bool, branches)) for _, _, branches in sequences) > 1:  # else causal attention needs no mask
        arguments["attention_mask"] = _mask(torch.from_numpy(segments).to(model.device), skip, model.dtype)
    places, place = np.unique(before, return_inverse=True)  # the first tokens of all choices share a place
    if mode.head:
        states = model.base_model(**arguments).last_hidden_state.flatten(0, 1)
        logits_of = model.get_output_embeddings()
    else:
        states, logits_of = model(**arguments).logits.flatten(0, 1), torch.nn.Identity()
    places, place, targets = (torch.as_tensor(x, device=states.device) for x in (places, place, targets))
    value, hit = (torch.empty(len(targets), dtype=d) for d in (torch.float64, torch.bool))
    step = max(1, MOST_LOGITS // model.config.get_text_config().vocab_size)
    for start in range(0, len(places), step):
        logits = logits_of(states[places[start : start + step]]).float()
        in_chunk = (place >= start) & (place < start + step) if len(places) > step else slice(None)
        at, target = place[in_chunk] - start, targets[in_chunk]
        value[in_chunk] = (logits[at, target] - logits.logsumexp(-1)[at]).double().cpu()
        hit[in_chunk] = (logits.argmax(-1)[at] == target).cpu()
    return np.array(owners), value.numpy(), hit.numpy()


def _mask(segments, skip: int, dtype):
    """Attention mask [batch, 1, tokens, skip + tokens]: a token attends to the prefix, its context and its
    continuation."""
    import torch

    seen = segments[:, None, :] == 0
    seen = (seen | (segments[:, None, :] == segments[:, :, None])).tril()
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    mask = mask.masked_fill_(~seen, torch.finfo(dtype).min)
    return torch.nn.functional.pad(mask, (skip, 0))[:, None]


def _batches(lengths: list[int], budget: int) -> Iterable[list[int]]:
    """Indices by increasing length, in batches whose padded size is at most `budget`. A batch that is not tiny also
    ends where sequences become a fifth longer than its first, since all are padded to the longest."""
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
        span = slice(at, at := at + len(row.choices))
        columns = score_choices(likelihood[span], {int(row.answer_index)}, row.choices, tokens[span])
        difference = likelihood[span] - likelihood[span][int(row.answer_index)]
        columns["probability"] = float(1 / np.exp(difference.clip(max=700)).sum())
        rows.append({"id": row.id, "predicted": int(likelihood[span].argmax())} | columns)
    return pd.DataFrame(rows, columns=["id", "predicted", "correct", *CHOSEN, "probability"])


CHOSEN = ("margin", "per_byte", "per_token", "bits_per_byte")


def score_choices(likelihood: np.ndarray, right: set[int], choices: list[str], tokens: list[int] | None = None) -> dict:
    """The columns of `score` for one question, from the log-likelihoods of its choices [choices] in nats; `per_token`
    is None without `tokens`, the number of tokens of each choice. bits_per_byte, minus the base-2 log-likelihood of the
    right choice (the most likely one if several are right) over its UTF-8 bytes, is the task loss of Bhagia et al.
    (arXiv 2412.04403)."""
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
