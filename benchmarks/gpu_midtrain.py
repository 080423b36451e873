"""Tokens per second, MFU and memory of mid-training on one GPU, with each of its shortcuts on and off.

    python benchmarks/gpu_midtrain.py [--quick] [--sizes 130m,350m,1b] [--only plain,all]

Llama architecture at 0.13, 0.35 and 1.1 billion parameters with a vocabulary of 32,000, sequences of 4,096 packed with
short documents, bfloat16 products on float32 weights: `training.train.train` as users run it. Every row of the table is
a fresh process; its rate is document tokens per second from the fifth step to the last, and MFU is the model's FLOPs at
that rate over the rate of a large matrix product on the same GPU (`mfu`) and over 989 TFLOP/s, the H100's dense
bfloat16 peak (`mfu_peak`). Then a model of 8 billion parameters takes a few steps in low memory: bfloat16 weights and
moments, stochastic rounding, checkpointing.

Without a GPU, or with --quick, sizes of a few hundred thousand parameters only show that the script runs; the ratios
are null. The last line is one JSON object.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEAK = 989e12
VARIANTS = {
    "plain": {"compile": False, "fused_loss": False, "attention": "sdpa"},
    "packed attention": {"compile": False, "fused_loss": False},
    "fused loss": {"compile": False, "attention": "sdpa"},
    "compile": {"fused_loss": False, "attention": "sdpa", "compile": True},
    "all": {"compile": True},
    "all and checkpointing": {"compile": True, "checkpointing": True},
}
ROWS = {"130m": 16, "350m": 8, "1b": 4, "8b": 1}  # sequences a step


def make_data(folder: Path, vocabulary: int, tokens: int) -> None:
    """Write a tokenizer of `vocabulary` words, and a token file of documents of about 300 random words each."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from qatoolkit.training.tokens import write_tokens

    words = {f"w{i}": i for i in range(vocabulary - 1)} | {"<eos>": vocabulary - 1}
    inner = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<eos>")
    tokenizer.save_pretrained(folder / "tokenizer")
    rng, texts, made = random.Random(0), [], 0
    while made < tokens:
        length = min(4000, int(rng.lognormvariate(5.4, 0.8)) + 2)
        texts.append(" ".join(f"w{rng.randrange(vocabulary - 1)}" for _ in range(length)))
        made += length
    write_tokens(texts, tokenizer, folder / "qa")


def run_one(folder: Path, size: str, block: int, steps: int, settings: dict) -> dict:
    """Train `steps` steps; returns rate, MFU and memory."""
    import torch

    from qatoolkit.training.job import Job
    from qatoolkit.training.memory_estimate import matmul_rate
    from qatoolkit.training.train import train

    cuda = torch.cuda.is_available()
    ticks = []

    def hook(row):
        if cuda:
            torch.cuda.synchronize()
        ticks.append((time.perf_counter(), row["tokens"], row["loss"]))

    batch = ROWS.get(size, 8)
    job = Job(
        name=size, out=str(folder / "out"), size=size, tokenizer=str(folder / "tokenizer"), qa=str(folder / "qa"), replay=0.0,
        tokens=int(0.97 * steps * batch * block), block=block, batch=batch, learning_rate=1e-4, **settings,
    )  # fmt: skip
    started = time.perf_counter()
    manifest = train(job, hook=hook, log=lambda line: print(line, file=sys.stderr))
    first = min(4, len(ticks) - 2)
    rate = (ticks[-1][1] - ticks[first][1]) / (ticks[-1][0] - ticks[first][0])
    flops, ceiling = rate * manifest["flops_per_token"], matmul_rate()
    return {
        "parameters": manifest["parameters"],
        "tokens_per_second": round(rate),
        "mfu": round(flops / ceiling, 3),
        "mfu_peak": round(flops / PEAK, 3),
        "ceiling_tflops": round(ceiling / 1e12, 1),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1) if cuda else None,
        "first_step_s": round(ticks[0][0] - started, 1),
        "loss": [round(ticks[0][2], 3), round(ticks[-1][2], 3)],
        "gpu": torch.cuda.get_device_name() if cuda else None,
    }


def measure(data: Path, size: str, block: int, steps: int, settings: dict) -> dict:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("tokenizer", "qa"):
            (folder / name).symlink_to(data / name)
        command = [sys.executable, __file__, "--contender", json.dumps([str(folder), size, block, steps, settings])]
        environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["killed"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny model on whatever there is, under 50 s")
    parser.add_argument("--sizes", default="130m,350m,1b,8b", help="rungs of the ladder, separated by commas")
    parser.add_argument("--only", default=",".join(VARIANTS), help="variants, separated by commas")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        folder, size, block, steps, settings = json.loads(arguments.contender)
        return print(json.dumps(run_one(Path(folder), size, block, steps, settings)))

    import torch

    real = torch.cuda.is_available() and not arguments.quick
    sizes = arguments.sizes.split(",") if real else ["xs"]
    variants = arguments.only.split(",") if real else ["plain", "packed attention"]
    block, steps = (4096, 20) if real else (256, 8)
    table = []
    with tempfile.TemporaryDirectory() as temporary:
        for vocabulary, chosen in (
            (32_000 if real else 500, [s for s in sizes if s != "8b"]),
            (128_256, [s for s in sizes if s == "8b"]),
        ):
            if not chosen:
                continue
            data = Path(temporary) / str(vocabulary)
            make_data(data, vocabulary, 400_000 if real else 20_000)
            for size in chosen:
                wanted = {name: VARIANTS[name] for name in variants}
                if size == "8b":
                    wanted = {"low memory": {"memory": "low", "checkpointing": True, "compile": True}}
                for name, settings in wanted.items():
                    got = measure(data, size, block, 6 if size == "8b" else steps, settings)
                    table.append({"size": size, "variant": name} | got)
                    print(json.dumps(table[-1]), flush=True)

    def best(size: str, key: str) -> float | None:
        found = [row[key] for row in table if row["size"] == size and key in row and real]
        return max(found, default=None)

    ratios = {f"mfu_{size}": best(size, "mfu_peak") for size in ("130m", "350m", "1b")}
    print(json.dumps({"benchmark": "gpu_midtrain", "ratios": ratios, "rows": table}))


if __name__ == "__main__":
    main()
