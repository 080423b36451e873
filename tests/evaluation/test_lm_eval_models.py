"""FastScorer answers as lm-eval's HFLM does, on every architecture, or notices that it cannot and reads more slowly."""

import copy
import random
import warnings

import numpy as np
import pytest
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from qatoolkit.evaluation.cloze import _choose_mode
from qatoolkit.evaluation.evaluate import evaluate
from qatoolkit.evaluation.lm_eval_models import FastScorer
from qatoolkit.textbook import exams, knowledge
from qatoolkit.training.tokens import train_tokenizer

WORDS = [
    "alpha",
    "beta",
    "river",
    "mountain",
    "heat",
    "energy",
    "law",
    "mass",
    "light",
    "year",
    "art",
    "1",
    "2",
    "45",
    "of",
]
POSITIONS = 160
LLAMA = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": POSITIONS, "initializer_range": 0.2,
}  # fmt: skip
GPT2 = {"n_positions": POSITIONS, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2}
SHARED = {
    "llama": ("LlamaConfig", LLAMA),
    "qwen2": ("Qwen2Config", LLAMA),
    "qwen3": ("Qwen3Config", LLAMA | {"head_dim": 8}),
    "gpt2": ("GPT2Config", GPT2),
    "granite": ("GraniteConfig", LLAMA | {"logits_scaling": 4.0}),
}
# Why each cannot be read like the others: softcapped logits and windows; a window; slopes instead of positions.
OTHERS = {
    "gemma2": ("Gemma2Config", LLAMA | {"head_dim": 8, "final_logit_softcapping": 5.0, "sliding_window": 24}),
    "mistral": ("MistralConfig", LLAMA | {"sliding_window": 16}),
    "bloom": ("BloomConfig", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2}),
}


@pytest.fixture(scope="module")
def rng():
    return random.Random(0)


def text(rng, n):
    return " ".join(rng.choice(WORDS) for _ in range(n))


@pytest.fixture(scope="module")
def tokenizer(rng):
    return train_tokenizer([text(rng, 20) for _ in range(200)], 300)


@pytest.fixture(scope="module")
def requests(rng):
    """Pairs of every kind: branches, single tokens, no context, trailing spaces, contexts that must be cut, shared examples."""
    shots = "\n".join(f"Question: {text(rng, 6)}\nAnswer: {text(rng, 2)}" for _ in range(3))
    pairs = []
    for _ in range(12):
        question = f"Question: {text(rng, rng.randint(3, 15))}\nAnswer:"
        pairs += [(question, f" {text(rng, rng.randint(1, 4))}") for _ in range(4)]
        pairs += [(f"{shots}\n{question}", f" {letter}") for letter in "ab"]
        pairs += [("", text(rng, 3)), (f"{question}  ", text(rng, 2)), (text(rng, 200), text(rng, 3))]
    few = [(f"{shots}\nQuestion: {text(rng, 5)}\nAnswer:", f" {text(rng, k)}") for _ in range(8) for k in (1, 2, 3)]
    return {"mixed": as_requests(pairs), "few-shot": as_requests(few)}


def as_requests(pairs):
    return [Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=0) for pair in pairs]


def both(kind, settings, tokenizer, **options):
    torch.manual_seed(0)
    config = getattr(transformers, kind)(vocab_size=len(tokenizer), **settings)
    network = transformers.AutoModelForCausalLM.from_config(config).eval()
    given = {"pretrained": network, "tokenizer": tokenizer, "batch_size": 16, "max_length": POSITIONS} | options
    return HFLM(**given), FastScorer(**given)


def greedy_hits(hflm, requests):
    """The contexts with the token that the model would write, so that greedy continuations occur."""
    hits = []
    for request in requests[:4]:
        ids = hflm.tok_encode(request.args[0])
        token = hflm.model(torch.tensor([ids])).logits[0, -1].argmax().item()
        if hflm.tok_encode(request.args[0] + hflm.tok_decode([token]))[:-1] == ids:
            hits.append((request.args[0], hflm.tok_decode([token])))
    return as_requests(hits)


def compare(hflm, fast, requests):
    wanted, found = (hflm.loglikelihood(requests, disable_tqdm=True), fast.loglikelihood(requests, disable_tqdm=True))
    np.testing.assert_allclose([value for value, _ in found], [value for value, _ in wanted], atol=1e-4)
    assert [hit for _, hit in found] == [hit for _, hit in wanted]
    return wanted


@pytest.mark.parametrize("name", SHARED)
def test_log_likelihoods_are_those_of_hflm(name, tokenizer, requests):
    hflm, fast = both(*SHARED[name], tokenizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*longer than the model's")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        for kind in requests.values():
            compare(hflm, fast, kind)
    hits = compare(hflm, fast, greedy_hits(hflm, requests["mixed"]) + requests["mixed"][:4])
    assert any(hit for _, hit in hits)


@pytest.mark.parametrize("name", OTHERS)
def test_an_architecture_that_cannot_share_is_noticed_and_still_right(name, tokenizer, requests):
    hflm, fast = both(*OTHERS[name], tokenizer)
    with pytest.warns(UserWarning, match=r"ForCausalLM is scored with .* which is slower"):
        compare(hflm, fast, requests["mixed"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shared examples alone some of them can
        compare(hflm, fast, requests["few-shot"])


def test_a_context_too_long_is_cut_as_hflm_cuts_it_and_told(tokenizer, requests):
    hflm, fast = both(*SHARED["gpt2"], tokenizer)
    with pytest.warns(UserWarning, match="longer than the model's 160 positions"):
        compare(hflm, fast, requests["mixed"])


@pytest.mark.parametrize("add", [True, False])
def test_a_first_token_is_added_where_hflm_adds_it(tokenizer, requests, add, tmp_path):
    from tokenizers.processors import TemplateProcessing

    tokenizer.save_pretrained(tmp_path)
    own = transformers.AutoTokenizer.from_pretrained(tmp_path)
    start = own.convert_ids_to_tokens(0)
    own.add_special_tokens({"bos_token": start})
    own.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, own.convert_tokens_to_ids(start))]
    )
    assert own("river")["input_ids"][0] == 0
    for options in ({}, {"add_bos_token": add}):
        hflm, fast = both(*SHARED["llama"], own, **options)
        some = requests["mixed"][:18] + as_requests([(f"{start}river", " heat"), (f"{start}river", " law of")])
        compare(hflm, fast, some)


def test_a_long_sequence_beside_a_branched_one_keeps_its_window(tokenizer, rng):
    hflm, fast = both(*OTHERS["mistral"], tokenizer)
    pairs = [("law of", " heat energy"), ("law of", " mass 45"), (text(rng, 40), " river law")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compare(hflm, fast, as_requests(pairs))


def test_small_batches_give_the_same(tokenizer, requests):
    hflm, fast = both(*SHARED["llama"], tokenizer, batch_tokens=64)
    compare(hflm, fast, requests["few-shot"])


def test_rolling_and_generation_are_hflm_s(tokenizer, rng):
    hflm, fast = both(*SHARED["llama"], tokenizer)
    texts = [Instance(request_type="loglikelihood_rolling", doc={}, arguments=(text(rng, n),), idx=0) for n in (5, 250)]
    np.testing.assert_allclose(fast.loglikelihood_rolling(texts), hflm.loglikelihood_rolling(texts), atol=1e-3)
    asked = [("river of", {"until": ["\n"], "max_gen_toks": 5}), ("heat", {"until": ["a"], "max_gen_toks": 5})]
    asked = [Instance(request_type="generate_until", doc={}, arguments=a, idx=0) for a in asked]
    assert fast.generate_until(asked) == hflm.generate_until(asked)


def test_a_whole_evaluation_agrees(tokenizer, tmp_path):
    _, fast = both(*SHARED["llama"], tokenizer)
    fast.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    table = exams.exam(knowledge.load().part(5, 3, 1), "textbook_en", 1, 1).head(30)
    for form in ("cloze", "letter", "generative"):
        slow, quick = (evaluate(tmp_path, {"mine": table}, form=form, scorer=s) for s in ("hf", "fast"))
        assert slow["given"].tolist() == quick["given"].tolist()
        np.testing.assert_allclose(slow["margin"], quick["margin"], atol=1e-4)
    with pytest.raises(ValueError, match="must be 'hf', 'fast' or an lm-eval model"):
        evaluate(tmp_path, {"mine": table}, scorer="vllm")


def test_a_directory_is_all_that_the_scorer_needs(tokenizer, tmp_path):
    _, fast = both(*SHARED["llama"], tokenizer)
    fast.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    wanted = "cuda" if torch.cuda.is_available() else "cpu"
    assert FastScorer(pretrained=str(tmp_path)).model.device.type == wanted
    assert FastScorer(pretrained=str(tmp_path), device="cpu").model.device.type == "cpu"


def test_the_scorer_itself_needs_no_lm_eval():
    import subprocess
    import sys

    code = "import sys, qatoolkit.evaluation.cloze; assert not {'lm_eval', 'datasets'} & {m.split('.')[0] for m in sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_padding_beyond_the_embedding_is_replaced_by_what_the_model_knows(tokenizer, rng):
    own = copy.deepcopy(tokenizer)
    rows = len(own)
    own.add_special_tokens({"pad_token": "[PAD]"})
    config = transformers.LlamaConfig(vocab_size=rows, **LLAMA)
    network = transformers.AutoModelForCausalLM.from_config(config).eval()
    machine = FastScorer(pretrained=network, tokenizer=own, batch_size=4, max_length=POSITIONS)
    asked = [
        Instance(
            request_type="generate_until", doc={}, arguments=(text(rng, n), {"until": ["\n"], "max_gen_toks": 4}), idx=0
        )
        for n in (3, 12)
    ]
    assert len(machine.generate_until(asked, disable_tqdm=True)) == 2


def test_capped_and_scaled_logits_are_never_read_past(tokenizer, requests):
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("error")
        _, fast = both("GraniteConfig", LLAMA | {"logits_scaling": 1.0001}, tokenizer)
        pairs = [([5, 6, 7], [8, 9]), ([5, 6, 7], [9, 8])]
        assert not _choose_mode(fast.model, pairs).head
