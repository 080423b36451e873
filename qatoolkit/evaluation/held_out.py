"""Retention: bits per byte of general text that nothing trained on, by lm-eval's rolling log-likelihood."""

import numpy as np
import pandas as pd


def bits_per_byte(model, documents: list[str], *, batch: int = 8, dtype: str = "float32") -> pd.DataFrame:
    """Score documents with a model (directory or name): one row per document with its id (number), bytes (UTF-8) and
    bits. Longer documents than the model reads are scored in windows, as lm-eval does."""
    from lm_eval.api.instance import Instance

    from qatoolkit.evaluation.evaluate import load_lm, no_progress_bars

    requests = [
        Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text,), idx=i)
        for i, text in enumerate(documents)
    ]
    with no_progress_bars():
        likelihoods = load_lm(model, "hf", batch, dtype).loglikelihood_rolling(requests, disable_tqdm=True)
    return pd.DataFrame(
        {
            "id": range(len(documents)),
            "bytes": [len(text.encode()) for text in documents],
            "bits": [-float(value) / np.log(2) for value in likelihoods],
        }
    )


def mean_bits_per_byte(rows: pd.DataFrame) -> float:
    """All bits over all bytes of `bits_per_byte`, as lm-eval weighs them."""
    return float(rows["bits"].sum() / rows["bytes"].sum())


def bits_difference(a: pd.DataFrame, b: pd.DataFrame, *, resamples: int = 2000, seed: int = 0) -> dict:
    """Bits per byte of `a` minus `b` over the same documents, with a bootstrap 95% interval over documents:
    {difference, low, high, n}. ValueError if the documents differ."""
    if list(a["bytes"]) != list(b["bytes"]):
        raise ValueError("bits per byte: the two models were not scored on the same documents")
    gain, size = (a["bits"] - b["bits"]).to_numpy(), a["bytes"].to_numpy()
    draws = np.random.default_rng(seed).integers(0, len(gain), (resamples, len(gain)))
    low, high = np.quantile(gain[draws].sum(axis=1) / size[draws].sum(axis=1), [0.025, 0.975])
    return {"difference": float(gain.sum() / size.sum()), "low": float(low), "high": float(high), "n": len(gain)}
