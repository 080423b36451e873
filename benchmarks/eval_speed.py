"""Multiple-choice questions per second: FastScorer against lm-eval's HFLM, both called by the same lm-eval code.

    python benchmarks/eval_speed.py [--quick]

`lm.loglikelihood(requests)` is timed in CPU seconds on one thread (a busy machine would slow the wall clock), including
tokenisation, with a loaded and warm model, on the requests that lm-eval builds from exported tasks: 4-choice textbook
questions as cloze (four answer texts), as letters (A. B. C. D., one token each), and as letters after five examples
that all prompts share. Models are Llamas with random weights whose spread gives clear decisions; their tokenizers are
trained here. HFLM runs at the best of several batch sizes, found on part of the requests. Rounds alternate and the
median is reported. The last line is one JSON object: `vs_hflm` is the cloze form on the smallest model, the case of the
demo's sweeps; the other ratios are named by form and size.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

FORMS = ("cloze", "letter", "letter_5shot")
# name, width, layers, heads, feed-forward, vocabulary
MODELS = {"0.7M": (128, 2, 4, 384, 2048), "25M": (512, 6, 8, 1536, 8192)}
BATCHES = (8, 16, 32, 64)  # "auto" takes the largest that fits the memory, 64 on a CPU, after trying it out


def questions(n: int):
    """`n` questions and five other ones as examples."""
    from qatoolkit.textbook import exams, knowledge

    table = exams.exam(knowledge.load(), "textbook_en", 30, 0).sample(n + 5, random_state=0)
    return table.iloc[5:], table.iloc[:5]


def make_model(folder: Path, name: str, texts: list[str]) -> Path:
    """Write a random Llama of a size in `MODELS` with its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from qatoolkit.training.tokens import train_tokenizer

    width, layers, heads, ffn, vocabulary = MODELS[name]
    tokenizer = train_tokenizer(texts, vocabulary)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=width**-0.5,
    )
    LlamaForCausalLM(config).save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)
    return folder / name


def requests_of(folder: Path, form: str, table, examples):
    """The requests that lm-eval builds for a form."""
    from lm_eval.tasks import TaskManager

    from qatoolkit.evaluation.tasks import export_tasks

    where = folder / form
    export_tasks({"exam": table}, where, form=form.split("_")[0], examples={"exam": examples})
    task = TaskManager(include_path=str(where), include_defaults=False).load(["exam"])["tasks"]["exam"]
    task.set_config(key="num_fewshot", value=5 if "5shot" in form else 0)
    task.set_fewshot_seed(seed=0)
    task.build_all_requests(rank=0, world_size=1)
    return task.instances


def clock(lm, requests) -> tuple[float, list]:
    started = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        answers = lm.loglikelihood(requests, disable_tqdm=True)
    return time.process_time() - started, answers


def best_batch(make, requests, quick: bool) -> tuple[object, object]:
    """The HFLM that is fastest on a part of the requests, and its batch size."""
    timed = []
    for batch in BATCHES[:1] + BATCHES[2:3] if quick else BATCHES:
        lm = make(batch)
        clock(lm, requests[:32])
        timed.append((clock(lm, requests)[0], batch, lm))
    _, batch, lm = min(timed, key=lambda found: found[0])
    return lm, batch


def compare(model: Path, requests, rounds: int, quick: bool) -> dict:
    """Seconds of both scorers, their ratio, the share of equal predictions, the largest difference of a log-likelihood,
    and the smallest margin of a prediction."""
    from lm_eval.models.huggingface import HFLM

    from qatoolkit.evaluation.lm_eval_models import FastScorer

    quiet = {"pretrained": str(model), "dtype": "float32", "device": "cpu"}
    with contextlib.redirect_stderr(io.StringIO()):
        fast = FastScorer(**quiet, batch_size=64)
        some = requests[: max(64, len(requests) // 16 // 4 * 4)]
        slow, batch = best_batch(lambda b: HFLM(**quiet, batch_size=b), some, quick)
    clock(fast, some[:32])
    seconds = {"fast": [], "hflm": []}
    for _ in range(rounds):
        for name, lm in (("fast", fast), ("hflm", slow)):
            taken, answers = clock(lm, requests)
            seconds[name].append(taken)
            if name == "fast":
                ours = np.array(answers)
            else:
                theirs = np.array(answers)
    ours, theirs = (a[:, 0].reshape(-1, 4) for a in (ours, theirs))
    ranked = np.sort(theirs, axis=1)
    fast_s, hflm_s = (statistics.median(seconds[name]) for name in ("fast", "hflm"))
    return {
        "fast_s": round(fast_s, 2),
        "hflm_s": round(hflm_s, 2),
        "hflm_batch": batch,
        "ratio": round(hflm_s / fast_s, 2),
        "agreement": float((ours.argmax(1) == theirs.argmax(1)).mean()),
        "max_difference": float(np.abs(ours - theirs).max()),
        "closest_decision": float((ranked[:, -1] - ranked[:, -2]).min()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer questions and rounds, under 50 s")
    arguments = parser.parse_args()
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
    warnings.simplefilter("error")  # a scorer that has to fall back would be measured as something else
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    import lm_eval.models.huggingface  # noqa: F401 (sets the level of its log)
    import torch
    from datasets.utils.logging import disable_progress_bar
    from transformers.utils import logging as hf

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    disable_progress_bar()
    hf.disable_progress_bar()
    torch.set_num_threads(1)
    many = {"0.7M": 250, "25M": 16} if arguments.quick else {"0.7M": 2000, "25M": 200}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, n in many.items():
            table, examples = questions(n)
            model = make_model(Path(folder), name, table["question"].tolist())
            rounds = 3 if name == "0.7M" and not arguments.quick else 1
            for form in FORMS[:2] if arguments.quick and name == "25M" else FORMS:
                requests = requests_of(Path(folder) / name / "tasks", form, table, examples)
                one = found[f"{form}_{name}"] = compare(model, requests, rounds, arguments.quick)
                print(f"{name} {form}: {n} questions, {one}", flush=True)
    ratios = {"vs_hflm": found["cloze_0.7M"]["ratio"]}
    ratios["agreement"] = min(one["agreement"] for one in found.values())
    ratios |= {f"vs_hflm_{key}": one["ratio"] for key, one in found.items()}
    print(
        json.dumps(
            {
                "benchmark": "eval_speed",
                "ratios": ratios,
                "max_difference": max(one["max_difference"] for one in found.values()),
                "closest_decision": min(one["closest_decision"] for one in found.values()),
                "questions": many,
                "threads": 1,
            }
        )
    )


if __name__ == "__main__":
    main()
