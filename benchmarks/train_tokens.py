"""Useful tokens per second of training on one core: our loop against Hugging Face's Trainer and litgpt.

    python benchmarks/train_tokens.py [--quick]

One model (Llama architecture, 7.2 million parameters, 1.5 million with --quick), the same documents, the same number of
useful tokens per step (4 blocks of 1,024), the same optimizer and schedule, one epoch. Useful tokens are those of
documents, not padding. Every contender is a fresh process with one thread; its rate is useful tokens per CPU second
from the third step to the last, which excludes loading and compiling and does not depend on other load. The median of
the rounds is reported.

- ours: `training.train.train` with its defaults; documents are packed best-fit and do not attend to each other.
- trainer_concat: Trainer over concatenated documents cut into blocks, as in transformers' language-modelling example.
  No padding and no mask, but documents are cut and attend to each other.
- trainer_flat: Trainer with DataCollatorWithFlattening, transformers' packing without padding.
- trainer_grouped: Trainer with documents of similar length together, padded to the longest.
- trainer_ours: Trainer over our packed blocks with their position ids, which Trainer alone does not offer.
- litgpt: litgpt's model and chunked loss in its pre-training step over concatenated blocks, if `LITGPT_PYTHON` names
  the Python of an environment in which it is installed.

`loss` is that of held-out documents, each read alone, after the same number of useful tokens. The ratio is against the
fastest documented way of using Trainer (concat, flat or grouped). The last line is one JSON object.
"""

import argparse
import itertools
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DOCUMENTED = ("trainer_concat", "trainer_flat", "trainer_grouped")
CONTENDERS = ("ours", *DOCUMENTED, "trainer_ours", "litgpt")
SLOW = ("trainer_flat", "trainer_grouped")  # measured once
QUICK = ("ours", "trainer_concat")
BLOCK, BATCH, RATE, WARMUP, HELD_OUT = 1024, 4, 2e-3, 0.1, 40
SHAPES = {
    False: {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 768},
    True: {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 384},
}
TOKENS = {False: 40_000, True: 25_000}
VOCABULARY = 8192


def prepare(folder: Path, quick: bool) -> None:
    """Write the textbook's questions as token files, their tokenizer, and a model with random weights."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from qatoolkit.textbook import corpus
    from qatoolkit.textbook.server import parts
    from qatoolkit.textbook.settings import TextbookSettings
    from qatoolkit.training.tokens import train_tokenizer, write_tokens

    settings = TextbookSettings(entities=30)
    lines = iter(corpus.documents(parts(settings), TOKENS[quick] // 10, settings, 0)["text"])
    rng, texts = random.Random(0), []
    while first := next(lines, None):  # some 15 tokens a line; a question with its working has many
        texts.append("\n".join([first, *itertools.islice(lines, int(rng.lognormvariate(1.7, 0.8)))]))
    tokenizer = train_tokenizer(texts, VOCABULARY)
    tokenizer.save_pretrained(folder / "tokenizer")
    held = write_tokens(texts[:HELD_OUT], tokenizer, folder / "held_out")
    kept = write_tokens(texts[HELD_OUT:], tokenizer, folder / "documents")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, tie_word_embeddings=True, max_position_embeddings=BLOCK, **SHAPES[quick]
    )
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder / "start")
    tokenizer.save_pretrained(folder / "start")
    count = sum(p.numel() for p in model.parameters())
    print(
        f"{count:,} parameters; {kept!r}, {len(kept.tokens) / len(kept):.0f} a document; {len(held)} held out",
        flush=True,
    )


def documents(folder: Path, name: str = "documents") -> list[list[int]]:
    """The token ids of every document of a token file, read without the toolkit, which is not in a peer's
    environment."""
    import numpy as np

    about = json.loads((folder / name / "tokens.json").read_text())
    tokens = np.fromfile(folder / name / "tokens.bin", dtype=about["dtype"]).astype(np.int64)
    offsets = np.load(folder / name / "offsets.npy")
    found = [tokens[a:b].tolist() for a, b in itertools.pairwise(offsets.tolist())]
    return [f[:BLOCK] for f in found]


def strung(folder: Path) -> list[list[int]]:
    """All documents concatenated in random order, cut into blocks."""
    import numpy as np

    every = documents(folder)
    order = np.random.default_rng(0).permutation(len(every))
    flat = [token for i in order for token in every[i]]
    return [flat[a : a + BLOCK] for a in range(0, len(flat) - BLOCK + 1, BLOCK)]


class Clock:
    """CPU seconds at the end of each step, and the useful tokens of the step."""

    def __init__(self):
        self.seconds, self.tokens = [], []

    def tick(self, tokens: int) -> None:
        self.seconds.append(time.process_time())
        self.tokens.append(tokens)

    def rate(self) -> float:
        return sum(self.tokens[2:]) / (self.seconds[-1] - self.seconds[1])


def held_out(folder: Path, logits) -> float:
    """Mean loss of the held-out documents in nats per token, each read alone by `logits(ids [1, tokens])`."""
    import torch

    total, count = 0.0, 0
    with torch.inference_mode():
        for document in documents(folder, "held_out"):
            ids = torch.tensor([document])
            found = torch.nn.functional.cross_entropy(logits(ids)[0, :-1].float(), ids[0, 1:], reduction="sum")
            total, count = total + found.item(), count + len(document) - 1
    return total / count


def ours(folder: Path) -> tuple[Clock, float]:
    from transformers import AutoModelForCausalLM

    from qatoolkit.training.job import Job
    from qatoolkit.training.tokens import open_tokens
    from qatoolkit.training.train import train

    clock, last = Clock(), [0]
    tokens = len(open_tokens(folder / "documents").tokens)

    def hook(row):
        clock.tick(row["tokens"] - last[0])
        last[0] = row["tokens"]

    job = Job(
        name="ours", out=str(folder / "ours"), start=str(folder / "start"), qa=str(folder / "documents"), replay=0.0,
        tokens=tokens, block=BLOCK, batch=BATCH, learning_rate=RATE, warmup=WARMUP,
    )  # fmt: skip
    train(job, hook=hook, log=str)
    model = AutoModelForCausalLM.from_pretrained(folder / "ours")
    return clock, held_out(folder, lambda ids: model(input_ids=ids, use_cache=False).logits)


def trainer(folder: Path, name: str) -> tuple[Clock, float]:
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForLanguageModeling,
        DataCollatorWithFlattening,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        default_data_collator,
    )

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    every = documents(folder)
    together = round(BATCH * BLOCK / (sum(map(len, every)) / len(every)))
    collator, strategy, size = default_data_collator, "random", BATCH
    if name == "trainer_concat":
        rows = [{"input_ids": ids, "labels": ids} for ids in strung(folder)]
    elif name == "trainer_ours":
        import numpy as np

        from qatoolkit.training.packing import pack
        from qatoolkit.training.tokens import open_tokens

        packed = pack(open_tokens(folder / "documents"), BLOCK)
        rows = []
        for i in range(len(packed)):
            ids, labels, positions = (part[0] for part in packed.read(np.array([i])))
            labels = np.concatenate([[-100], labels[:-1]])  # transformers shifts them itself
            rows.append({"input_ids": ids, "labels": labels, "position_ids": positions})
    else:
        rows, size = [{"input_ids": ids, "length": len(ids)} for ids in every], together
        if name == "trainer_flat":
            rows, collator = [{"input_ids": ids} for ids in every], DataCollatorWithFlattening()
        else:
            strategy, collator = "group_by_length", DataCollatorForLanguageModeling(tokenizer, mlm=False)
    pad, seen, clock = tokenizer.pad_token_id, [], Clock()

    def counting(features):
        batch = collator(features)
        ids = batch["input_ids"]
        seen.append(int(((ids != pad) if name in ("trainer_grouped", "trainer_ours") else torch.ones_like(ids)).sum()))
        return batch

    class Ticks(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            clock.tick(seen[state.global_step - 1])

    model = AutoModelForCausalLM.from_pretrained(folder / "start", dtype=torch.float32)
    steps = -(-len(rows) // size)
    arguments = TrainingArguments(
        output_dir=str(folder / name), per_device_train_batch_size=size, num_train_epochs=1, learning_rate=RATE,
        lr_scheduler_type="linear", warmup_steps=round(WARMUP * steps), weight_decay=0.1, adam_beta1=0.9, adam_beta2=0.95,
        max_grad_norm=1.0, optim="adamw_torch_fused", use_cpu=True, report_to="none", save_strategy="no",
        logging_strategy="no", disable_tqdm=True, train_sampling_strategy=strategy, remove_unused_columns=name == "trainer_grouped",
        seed=0,
    )  # fmt: skip
    Trainer(model=model, args=arguments, train_dataset=rows, data_collator=counting, callbacks=[Ticks()]).train()
    model.eval()
    return clock, held_out(folder, lambda ids: model(input_ids=ids, use_cache=False).logits)


def litgpt(folder: Path) -> tuple[Clock, float]:
    import torch
    from lightning.fabric import Fabric
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.utils import chunked_cross_entropy

    shape = json.loads((folder / "start" / "config.json").read_text())
    config = Config(
        block_size=BLOCK, vocab_size=VOCABULARY, padded_vocab_size=VOCABULARY, n_layer=shape["num_hidden_layers"],
        n_head=shape["num_attention_heads"], n_embd=shape["hidden_size"], intermediate_size=shape["intermediate_size"],
        rotary_percentage=1.0, parallel_residual=False, bias=False, norm_class_name="RMSNorm", mlp_class_name="LLaMAMLP",
    )  # fmt: skip
    fabric = Fabric(accelerator="cpu", devices=1)
    torch.manual_seed(0)
    model = GPT(config)
    model.lm_head.weight = model.transformer.wte.weight
    model.apply(
        lambda m: torch.nn.init.normal_(m.weight, std=0.02) if hasattr(m, "weight") and m.weight.ndim == 2 else None
    )
    model = fabric.setup(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    optimizer = fabric.setup_optimizers(optimizer)
    blocks, clock = torch.tensor(strung(folder)), Clock()
    steps = -(-len(blocks) // BATCH)
    for step in range(steps):
        ids = blocks[step * BATCH : (step + 1) * BATCH]
        warm = round(WARMUP * steps)
        rate = RATE * ((step + 1) / warm if step < warm else (steps - step) / (steps - warm))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = chunked_cross_entropy(model(ids)[:, :-1], ids[:, 1:])
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        clock.tick(ids.numel())
    model.eval()
    return clock, held_out(folder, model)


def contend(name: str, folder: Path) -> None:
    import torch

    torch.set_num_threads(1)
    calls = {"ours": ours, "litgpt": litgpt}
    clock, loss = calls[name](folder) if name in calls else trainer(folder, name)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rate": clock.rate(), "loss": loss, "mib": memory, "tokens": sum(clock.tokens)}))


def measure(name: str, folder: Path) -> dict | None:
    python = os.environ.get("LITGPT_PYTHON") if name == "litgpt" else sys.executable
    if not python:
        return None
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    command = [python, __file__, "--contender", name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    shutil.rmtree(folder / name, ignore_errors=True)  # so that the next round trains again
    if done.returncode:
        print(f"{name}: {(done.stderr.strip().splitlines() or ['killed'])[-1]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small model, the fastest peer, one round, under 50 s")
    parser.add_argument("--contender", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        return contend(arguments.contender[0], Path(arguments.contender[1]))

    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, arguments.quick)
        for number in range(1 if arguments.quick else 3):
            for name in QUICK if arguments.quick else CONTENDERS:
                if number and name in SLOW:
                    continue
                if got := measure(name, folder):
                    found.setdefault(name, []).append(got)
                    print(
                        f"{name}: {got['rate']:,.0f} tokens/s, loss {got['loss']:.3f}, {got['mib']:,.0f} MiB",
                        flush=True,
                    )
    middle = {
        name: {key: float(f"{statistics.median(r[key] for r in rows):.4g}") for key in rows[0]}
        for name, rows in found.items()
    }

    def ratio(*peers: str) -> float | None:
        there = [middle[peer]["rate"] for peer in peers if peer in middle]
        return round(middle["ours"]["rate"] / max(there), 2) if there and "ours" in middle else None

    ratios = {"useful_tokens_vs_trainer": ratio(*DOCUMENTED)}
    ratios |= {f"vs_{name}": ratio(name) for name in CONTENDERS[1:]}
    print(json.dumps({"benchmark": "train_tokens", "ratios": ratios, "contenders": middle}))


if __name__ == "__main__":
    main()
