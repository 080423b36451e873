"""Bits per byte of held-out general text, to measure what mid-training on questions costs a model elsewhere. Uses
lm-eval's rolling log-likelihood; differences between two models are bootstrapped over documents."""

from pathlib import Path

import numpy as np
import pandas as pd

from qatoolkit.evaluation.evaluate import load_lm, no_progress_bars, silence_libraries


def bits_per_byte(model: str | Path, documents: list[str]) -> pd.DataFrame:
    """One row per document: id (its number from 0), bytes (UTF-8) and bits (minus the base-2 log-likelihood).

    As in lm-eval's perplexity tasks, every token is predicted once, the first one after the model's prefix token, and a
    document longer than the context is read in non-overlapping windows, each starting after the last token of the one
    before, as many at a time as fit into memory. ValueError without documents and as in `evaluate`."""
    from lm_eval.api.instance import Instance

    if not documents:
        raise ValueError("bits_per_byte: no document to read; give at least one")
    silence_libraries()
    lm = load_lm(model, "hf", None, "float32")
    requests = [Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=0) for text in documents]
    with no_progress_bars():
        likelihood = lm.loglikelihood_rolling(requests, disable_tqdm=True)
    rows = {
        "id": range(len(documents)),
        "bytes": [len(text.encode()) for text in documents],
        "bits": -np.array(likelihood) / np.log(2),
    }
    return pd.DataFrame(rows)


def mean_bits_per_byte(rows: pd.DataFrame) -> float:
    """All bits over all bytes, lm-eval's `bits_per_byte`; NaN if there are no bytes."""
    return float(rows["bits"].sum() / rows["bytes"].sum()) if rows["bytes"].sum() else float("nan")


def bits_difference(a: pd.DataFrame, b: pd.DataFrame, *, resamples: int = 2000, seed: int = 0) -> dict:
    """Bits per byte of `a` minus those of `b` on the same documents, with a 95% interval by paired bootstrap over
    documents: {difference, low, high, n}. ValueError if the documents differ."""
    joined = a.merge(b, on=["id", "bytes"], suffixes=("_a", "_b"), validate="one_to_one")
    joined = joined[joined["bytes"] > 0]
    if not len(joined) == (a["bytes"] > 0).sum() == (b["bytes"] > 0).sum():
        raise ValueError(f"bits difference: {len(a)} and {len(b)} documents share only {len(joined)} of id and bytes")
    if joined.empty:
        return {"difference": None, "low": None, "high": None, "n": 0}
    gain, size = (joined["bits_a"] - joined["bits_b"]).to_numpy(), joined["bytes"].to_numpy()
    draws = np.random.default_rng(seed).integers(0, len(joined), (resamples, len(joined)))
    low, high = np.quantile(gain[draws].sum(axis=1) / size[draws].sum(axis=1), [0.025, 0.975])
    return {"difference": float(gain.sum() / size.sum()), "low": float(low), "high": float(high), "n": len(joined)}
