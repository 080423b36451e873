"""lm-eval's Hugging Face model in two versions: CountingHFLM (`evaluate.scorer: hf`, the default) counts truncated
prompts and unfinished replies; FastScorer (`fast`) takes its log-likelihoods from `cloze`. Both give the same answers.

Tokenisation, beginning-of-sequence tokens, truncation, rolling windows and generation are lm-eval's code; FastScorer
replaces only the scoring of (context, continuation) pairs.
"""

import warnings

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs

from qatoolkit.evaluation.cloze import appends_end_token, check_answer, check_numbers, encode, score_pairs, truncate
from qatoolkit.training.hub import COMPLETE, load_tokenizer, require_all_weights, require_safe

MEMORY = 2**30  # bytes of logits at a time on a CPU; on a GPU it is a quarter of the free memory
LARGEST_BATCH = 64  # sequences at a time


class CountingHFLM(HFLM):
    """HFLM that records what the model could not read or finish. `cut`: prompts too long for the model, which lm-eval
    cuts on the left; `unasked`: (context, continuation) pairs whose continuation alone is too long, which score minus
    infinity; `unfinished`: number of replies that reached their limit of tokens; `lengths`: tokens of every scored
    continuation, by (context, continuation).

    With `batch_size` None a batch has at most `MOST` sequences, fewer if its logits would exceed `MEMORY`.

    The end token that some tokenizers put after every text is removed from prompts. Without `device` it uses the GPU if
    there is one, else the CPU. No code of a checkpoint runs and no pickle is loaded: ValueError for
    `trust_remote_code`."""

    def __init__(self, *args, **kwargs):
        if kwargs.get("trust_remote_code"):
            raise ValueError("trust_remote_code is set, but code of a checkpoint is never run; leave it out")
        if isinstance(pretrained := kwargs.get("pretrained", args[0] if args else None), str):
            require_safe(pretrained)
        if isinstance(tokenizer := kwargs.get("tokenizer") or pretrained, str) and not kwargs.get("gguf_file"):
            load_tokenizer(tokenizer, kwargs.get("revision"))  # fails with a one-line error, unlike HFLM
        kwargs.setdefault("device", "cuda" if torch.cuda.is_available() else "cpu")
        self.fitted = kwargs.get("batch_size", 1) is None
        if self.fitted:
            kwargs["batch_size"] = LARGEST_BATCH
        super().__init__(*args, **kwargs)
        self.start_counts()
        self.closes = self.backend == "causal" and appends_end_token(self.tokenizer)
        if self.tokenizer.pad_token_id >= self.model.get_input_embeddings().weight.shape[0]:
            self.tokenizer.pad_token = self.tokenizer.eos_token  # padding is masked, but looked up in the embedding

    def start_counts(self) -> None:
        """Reset all counts, for the next task."""
        self.cut: set[str] = set()
        self.unasked: set[tuple[str, str]] = set()
        self.unfinished = 0
        self.lengths: dict[tuple[str, str], int] = {}

    def _create_model(self, pretrained: str, **kwargs):
        """HFLM's model; ValueError if the checkpoint has missing weights."""
        kwargs["use_safetensors"] = True
        if any(kwargs.get(name) for name in ("peft", "delta", "autogptq", "gptqmodel")):
            return super()._create_model(pretrained, **kwargs)
        super()._create_model(pretrained, **kwargs | COMPLETE)
        self._model = require_all_weights(pretrained, *self._model)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs) -> list[int]:
        """Token ids of a text, as in HFLM, without the tokenizer's end token."""
        ids = super().tok_encode(string, add_special_tokens, **kwargs)
        return ids[:-1] if getattr(self, "closes", False) and ids[-1:] == [self.tokenizer.eos_token_id] else ids

    def tok_batch_encode(self, strings, *args, left_truncate_len: int | None = None, **kwargs):
        """Token ids of prompts for generation, encoded and truncated as in HFLM, without the tokenizer's end token."""
        if left_truncate_len:
            self.cut |= {text for text in strings if len(self.tok_encode(text)) > left_truncate_len}
            left_truncate_len += self.closes
        ids, mask = super().tok_batch_encode(strings, *args, left_truncate_len=left_truncate_len, **kwargs)
        return (ids[:, :-1], mask[:, :-1]) if self.closes else (ids, mask)  # padded on the left: the end token is last

    def fit(self, longest: int) -> int:
        """How many sequences of `longest` tokens a batch may have: HFLM keeps logits and log-probabilities of all their
        tokens in float32."""
        free = torch.cuda.mem_get_info(self.device)[0] // 4 if self.device.type == "cuda" else MEMORY
        vocabulary = self.model.config.get_text_config().vocab_size
        return max(1, min(LARGEST_BATCH, free // (2 * 4 * vocabulary * min(longest, self.max_length))))

    def generate_until(self, requests, disable_tqdm: bool = False) -> list[str]:
        """Replies as in HFLM; if the limit of tokens leaves no room for the prompt, it is set to half the context."""
        for request in requests:
            context, limits = request.args
            if normalize_gen_kwargs(limits, self.max_gen_toks)["max_gen_toks"] >= self.max_length:
                request.arguments = (context, limits | {"max_gen_toks": self.max_length // 2})
        return super().generate_until(requests, disable_tqdm)

    def _model_generate(self, context, max_length: int, stop: list[str], **generation_kwargs):
        configured = (
            self.model.generation_config.eos_token_id
        )  # lm-eval removes end tokens from texts: they must end them
        ends = {*(configured if isinstance(configured, list) else [configured]), self.tokenizer.eos_token_id} - {None}
        generation_kwargs = {"eos_token_id": sorted(ends) or None} | generation_kwargs
        written = super()._model_generate(context, max_length, stop, **generation_kwargs)
        if self.backend == "causal" and written.shape[1] >= max_length:
            replies = self.tokenizer.batch_decode(written[:, context.shape[1] :])
            self.unfinished += sum(not any(end and end in reply for end in stop) for reply in replies)
        return written

    def _loglikelihood_tokens(self, requests, disable_tqdm: bool = False, override_bs: int | None = None):
        most = self.max_length  # read once: the property searches the configuration at each access
        for texts, _, more in requests:
            check_answer("".join(texts or ()), more)
        self.lengths |= {texts: len(more) for texts, _, more in requests if texts}
        fitting = [request for request in requests if len(request[2]) <= most]
        self.unasked |= {texts for texts, _, more in requests if len(more) > most}
        answers = iter(self._score(fitting, disable_tqdm, override_bs) if fitting else ())
        return [next(answers) if len(more) <= most else (float("-inf"), False) for _, _, more in requests]

    def _score(self, requests, disable_tqdm: bool, override_bs: int | None) -> list[tuple[float, bool]]:
        """HFLM's log-likelihoods; ValueError if one is NaN."""
        most, causal = self.max_length, self.backend == "causal"  # an encoder reads only the context
        self.cut |= {
            texts[0] for texts, context, more in requests if texts and len(context) + causal * (len(more) - 1) > most
        }
        if self.fitted:
            self.batch_size_per_gpu = self.fit(max(len(context) + len(more) for _, context, more in requests))
        answers = super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        check_numbers([value for value, _ in answers])
        return answers


class FastScorer(CountingHFLM):
    """HFLM whose log-likelihood requests share contexts and few-shot prefixes, in batches of about `batch_tokens`
    tokens (None: a default for the device).

    Takes HFLM's arguments; `batch_size` is used for generation only. `FastScorer(pretrained=DIR)` works wherever
    lm-eval takes a model. Encoder-decoder models and autocast fall back to HFLM."""

    def __init__(self, *args, batch_tokens: int | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.batch_tokens = batch_tokens
        self._encoded: dict[str, list[int]] = {}

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs) -> list[int]:
        """Token ids of a text, as in HFLM, from those that `_encode_together` prepared."""
        if add_special_tokens is None and not kwargs and string in self._encoded:
            return self._encoded[string]
        return super().tok_encode(string, add_special_tokens, **kwargs)

    def loglikelihood(self, requests, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-likelihood in nats, whether greedy decoding would write it) for every request's continuation."""
        self._encode_together([request.args for request in requests])
        try:
            return super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        finally:
            self._encoded = {}

    def _encode_together(self, arguments: list[tuple[str, str]]) -> None:
        """Encode all texts that `_encode_pair` will need in one call: ten times faster than one by one."""
        if self.backend != "causal":
            return
        texts = {text for context, more in arguments if context for text in (context + more, context.rstrip())}
        start = self.tokenizer.decode(self.prefix_token_id)
        texts = [text for text in texts if text and not text.startswith(start)]  # HFLM encodes the others one by one
        special = {} if self.add_bos_token is None else {"add_special_tokens": self.add_bos_token}
        if texts:
            self._encoded = dict(zip(texts, encode(self.tokenizer, texts, **special), strict=True))

    def _score(self, requests, disable_tqdm: bool, override_bs: int | None) -> list[tuple[float, bool]]:
        most = self.max_length
        if self.backend != "causal" or self.mixed_precision_dtype is not None or any(not r[1] for r in requests):
            return super()._score(requests, disable_tqdm, override_bs)
        pairs = [truncate(context, continuation, most) for _, context, continuation in requests]
        cut = [r[0] for pair, r in zip(pairs, requests, strict=True) if len(pair[0]) < len(r[1])]
        self.cut |= {texts[0] for texts in cut if texts}
        if cut:
            warnings.warn(
                f"{len(cut)} of {len(pairs)} contexts are longer than the model's {most} positions and were cut on the "
                "left, as lm-eval does: use fewer examples, or another model",
                stacklevel=2,
            )
        values, greedy = score_pairs(self.model, pairs, self.batch_tokens)
        answers = [(float(value), bool(hit)) for value, hit in zip(values, greedy, strict=True)]
        for (texts, _, _), answer in zip(requests, answers, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers
