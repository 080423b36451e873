"""The cloze scorer: log-likelihoods of answers, with shared contexts and batches of equal length.

For probes and sweeps, where lm-eval would cost more than the training. Tiny models sit at chance when they must name a
letter, so the answers' texts are scored after "Question: ... Answer:", as the exported lm-eval tasks do.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

PROMPT = {"en": ("Question: {question}\nAnswer:", " "), "zh": ("问题：{question}\n答案：", "")}
MOST_TOGETHER = 16  # continuations in one sequence: more would cost more in attention than they save


def load_model(folder: str | Path):
    """A causal model and its tokenizer from a Hugging Face directory or name, ready to score; safetensors only, no remote
    code."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    if not torch.cuda.is_available():
        torch.set_num_threads(min(2, len(os.sched_getaffinity(0))))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", use_safetensors=True).to(device).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def score(model, tokenizer, table: pd.DataFrame, batch_tokens: int = 16_384) -> pd.DataFrame:
    """Cloze-score a multiple-choice QA table: columns id, predicted, correct, margin (log-likelihood of the right choice
    minus the best wrong one, in nats). Rows without choices raise ValueError."""
    if table["choices"].isna().any():
        raise ValueError(
            f"score: row {table['choices'].isna().idxmax()} has no choices; open answers go through lm-eval"
        )
    contexts = [PROMPT[row.language][0].format(question=row.question) for row in table.itertuples()]
    wholes = [
        context + PROMPT[row.language][1] + choice
        for row, context in zip(table.itertuples(), contexts, strict=True)
        for choice in row.choices
    ]
    starts = [len(ids) for ids in tokenizer(contexts, add_special_tokens=False)["input_ids"]]
    starts = np.repeat(starts, [len(c) for c in table["choices"]])
    encoded = tokenizer(wholes, add_special_tokens=False)["input_ids"]
    pairs = [(ids[:start], ids[start:]) for ids, start in zip(encoded, starts, strict=True)]
    return _judge(table, log_likelihoods(model, pairs, batch_tokens))


def log_likelihoods(
    model, pairs: list[tuple[list[int], list[int]]], batch_tokens: int = 16_384
) -> np.ndarray:
    """Log-likelihood in nats of every continuation after its context, both as token ids, [pairs] float64.

    Continuations of one context are read in one pass: they stand behind it in one sequence, each with the positions that
    follow the context and blind to the others. Sequences are sorted by length into batches of about `batch_tokens`."""
    import torch

    together: dict[tuple, list[int]] = {}
    for i, (context, _) in enumerate(pairs):
        together.setdefault(tuple(context), []).append(i)
    sequences = [
        (list(context), members[k : k + MOST_TOGETHER])
        for context, members in together.items()
        for k in range(0, len(members), MOST_TOGETHER)
    ]
    lengths = [len(context) + sum(len(pairs[i][1]) for i in members) for context, members in sequences]
    result = np.empty(len(pairs))
    with torch.inference_mode():
        for rows in _batches(lengths, batch_tokens):
            owners, values = _read(model, [sequences[r] for r in rows], pairs, lengths[rows[-1]])
            total = torch.zeros(len(pairs), dtype=torch.float64).index_add_(0, owners, values.double())
            members = torch.unique(owners).numpy()
            result[members] = total.numpy()[members]
    return result


def _read(model, sequences: list, pairs: list, width: int):
    """Log-likelihoods of the continuations' tokens of one batch, and the pair that each token belongs to."""
    import torch

    ids, positions = (torch.zeros((len(sequences), width), dtype=torch.long) for _ in range(2))
    segments = torch.full((len(sequences), width), -1)
    rows, before, targets, owners = (
        [],
        [],
        [],
        [],
    )  # of each token that is scored: where it is predicted, and what
    for row, (context, members) in enumerate(sequences):
        at = len(context)
        ids[row, :at], segments[row, :at] = torch.tensor(context), 0
        positions[row, :at] = torch.arange(at)
        for segment, i in enumerate(members, 1):
            continuation = pairs[i][1]
            end = at + len(continuation)
            ids[row, at:end], segments[row, at:end] = torch.tensor(continuation), segment
            positions[row, at:end] = torch.arange(len(context), len(context) + len(continuation))
            before += [len(context) - 1, *range(at, end - 1)]
            rows += [row] * len(continuation)
            targets += continuation
            owners += [i] * len(continuation)
            at = end
    seen = segments[:, None, :] == 0
    seen = (seen | (segments[:, None, :] == segments[:, :, None])).tril()
    mask = torch.zeros(seen.shape, dtype=model.dtype).masked_fill_(~seen, torch.finfo(model.dtype).min)
    ids, positions, mask = (t.to(model.device) for t in (ids, positions, mask[:, None]))
    hidden = model.base_model(
        input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False
    ).last_hidden_state
    logits = model.get_output_embeddings()(hidden[rows, before]).float()  # of the scored tokens only
    targets = torch.tensor(targets, device=model.device)
    return torch.tensor(owners), -torch.nn.functional.cross_entropy(logits, targets, reduction="none").cpu()


def _batches(lengths: list[int], budget: int) -> Iterable[list[int]]:
    """Indices in order of length, in batches whose padded size stays within the budget."""
    batch = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[i] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _judge(table: pd.DataFrame, likelihood: np.ndarray) -> pd.DataFrame:
    rows, at = [], 0
    for row in table.itertuples():
        values = likelihood[at : at + len(row.choices)]
        at += len(row.choices)
        truth = int(row.answer_index)
        margin = values[truth] - np.delete(values, truth).max()
        rows.append((row.id, int(values.argmax()), bool(values.argmax() == truth), float(margin)))
    return pd.DataFrame(rows, columns=["id", "predicted", "correct", "margin"])
