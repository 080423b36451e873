"""lm-eval's Hugging Face model, as it is but counting the prompts that it cuts, and with the log-likelihoods of `scorer`:
FastScorer, for long suites and sweeps.

Tokenisation, beginning-of-sequence tokens, truncation, rolling windows and generation are lm-eval's own code; only the reading
of (context, continuation) pairs is replaced by FastScorer. lm-eval's HFLM stays what reported numbers come from.
"""

import warnings

import torch
from lm_eval.models.huggingface import HFLM

from qatoolkit.evaluation.cloze import check_answer, check_numbers, fitted, likelihoods
from qatoolkit.training.hub import COMPLETE, complete


class CountingHFLM(HFLM):
    """HFLM that keeps in `cut` every prompt too long for the model, which lm-eval cuts from the left. Without `device` it is on
    the GPU where there is one, else on the CPU."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("device", "cuda" if torch.cuda.is_available() else "cpu")
        super().__init__(*args, **kwargs)
        self.cut: set[str] = set()
        if self.tokenizer.pad_token_id >= self.model.get_input_embeddings().weight.shape[0]:
            self.tokenizer.pad_token = self.tokenizer.eos_token  # masked, but the embedding looks it up

    def _create_model(self, pretrained: str, **kwargs):
        """HFLM's model; ValueError where the checkpoint lacks weights of it."""
        if any(kwargs.get(name) for name in ("peft", "delta", "autogptq", "gptqmodel")):
            return super()._create_model(pretrained, **kwargs)
        super()._create_model(pretrained, **kwargs | COMPLETE)
        self._model = complete(pretrained, *self._model)

    def tok_batch_encode(self, strings, *args, left_truncate_len: int | None = None, **kwargs):
        """Token ids of prompts to be continued, as HFLM encodes and cuts them."""
        if left_truncate_len:
            self.cut |= {text for text in strings if len(self.tok_encode(text)) > left_truncate_len}
        return super().tok_batch_encode(strings, *args, left_truncate_len=left_truncate_len, **kwargs)

    def _loglikelihood_tokens(self, requests, disable_tqdm: bool = False, override_bs: int | None = None):
        most, causal = self.max_length, self.backend == "causal"  # an encoder reads the context alone
        for texts, _, more in requests:
            check_answer("".join(texts or ()), more, most)
        self.cut |= {
            texts[0] for texts, context, more in requests if texts and len(context) + causal * (len(more) - 1) > most
        }
        answers = super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        check_numbers([value for value, _ in answers])
        return answers


class FastScorer(CountingHFLM):
    """HFLM whose log-likelihood requests share contexts and few-shot prefixes, in batches of about `batch_tokens` tokens (None: as fits the device).

    Takes HFLM's arguments; `batch_size` counts for generation only. `FastScorer(pretrained=DIR)` goes wherever lm-eval takes
    a model. Encoder-decoder models and autocast are read by HFLM."""

    def __init__(self, *args, batch_tokens: int | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.batch_tokens = batch_tokens
        self._encoded: dict[str, list[int]] = {}

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs) -> list[int]:
        """Token ids of a text, as HFLM encodes it; those of a whole call have been encoded together."""
        if add_special_tokens is None and not kwargs and string in self._encoded:
            return self._encoded[string]
        return super().tok_encode(string, add_special_tokens, **kwargs)

    def loglikelihood(self, requests, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-likelihood in nats, would greedy decoding write it) of every request's continuation."""
        self._encode_together([request.args for request in requests])
        try:
            return super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        finally:
            self._encoded = {}

    def _encode_together(self, arguments: list[tuple[str, str]]) -> None:
        """Encode in one go what `_encode_pair` is going to ask for: ten times faster than text by text."""
        if self.backend != "causal":
            return
        texts = {text for context, more in arguments if context for text in (context + more, context.rstrip())}
        start = self.tokenizer.decode(self.prefix_token_id)
        texts = [text for text in texts if text and not text.startswith(start)]  # others: as HFLM, one by one
        special = {} if self.add_bos_token is None else {"add_special_tokens": self.add_bos_token}
        if texts:
            self._encoded = dict(zip(texts, self.tokenizer(texts, **special)["input_ids"], strict=True))

    def _loglikelihood_tokens(self, requests, disable_tqdm: bool = False, override_bs: int | None = None):
        most = self.max_length  # a look into the configuration each time
        odd = [r for r in requests if not r[1] or not r[2] or len(r[2]) > most]
        if self.backend != "causal" or self.mixed_precision_dtype is not None or odd or not requests:
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        pairs = [fitted(context, continuation, most) for _, context, continuation in requests]
        cut = [r[0] for pair, r in zip(pairs, requests, strict=True) if len(pair[0]) < len(r[1])]
        self.cut |= {texts[0] for texts in cut if texts}
        if cut:
            warnings.warn(
                f"{len(cut)} of {len(pairs)} contexts are longer than the model's {most} positions and were cut from "
                "the left, as lm-eval does: use fewer examples, or another model",
                stacklevel=2,
            )
        values, greedy = likelihoods(self.model, pairs, self.batch_tokens)
        answers = [(float(value), bool(hit)) for value, hit in zip(values, greedy, strict=True)]
        for (texts, _, _), answer in zip(requests, answers, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers
