"""Decontamination: recall by disguise, false positives, and rows per second, against lm-eval's Janitor.

    python benchmarks/decontam.py [--quick]

Recall: items of public exams (`QATOOLKIT_REAL_DATA`, see tests) are planted in each disguise of `curate.controls`; 400
of each kind and language (30 with --quick). The lower recall of the two languages is reported for each kind. The
Janitor (lm-eval's 13-grams in its Python mode, a set of strings) gets the same planted questions, in English only since
it splits at white space: `janitor_*`.

False positives: rows of question sets on the same subjects as the exams, but with other questions: gsm8k's training
part, AQuA, TheoremQA, CMATH. Every hit is printed for reading; those in SAME are the same question, so not false.

Speed: one core, an index of 100,000 items (5,000 with --quick), made from real items by replacing half of their words,
and rows with question, options and rationale, made in the same way from the sets above. Medians over rounds that
alternate with the Janitor's on the same texts, in CPU seconds of a single process. Memory is the peak of the process
that builds the index, opens it and reads the rows, before the Janitor starts.

The last line is one JSON object. Without the real data, recall and false positives are null.
"""

import argparse
import contextlib
import io
import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from qatoolkit.curate import CurateSettings, ExamIndex, controls, decontaminate, plant
from qatoolkit.curate.controls import KINDS
from qatoolkit.curate.decontaminate import index_exams

REAL = Path(os.environ.get("QATOOLKIT_REAL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
EXAMS = ("gsm8k_test", "mmlu_redux", "gaokao_bench", "pubmedqa", "tal_scq5k_en_train", "tal_scq5k_zh_train")
OTHERS = ("gsm8k_train", "aqua", "theoremqa", "cmath")
SAME: set[tuple[str, str]] = set()  # (row, exam item) of hits that were read and are the same question
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]+|[\u4e00-\u9fff]")


def read(name: str) -> pd.DataFrame:
    lines = (REAL / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
    return pd.DataFrame([json.loads(line) for line in lines if line])


def janitor(texts):
    """lm-eval's Janitor with the 13-grams of the texts."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        from lm_eval.decontamination.janitor import Janitor
    peer = Janitor()
    for text in texts:
        peer.register_contaminant_python(text)
    return peer


def text_of(row) -> str:
    parts = (row.question, *(row.choices if row.choices is not None else ()), row.rationale, row.answer)
    return "\n".join(str(part) for part in parts if part is not None)


def measure_recall(exams: dict, index: ExamIndex, n: int) -> dict[str, float]:
    found = controls(read("gsm8k_train"), exams, index=index, n=n)
    print(found.drop(columns=["recall_high", "precision_low", "precision_high"]).round(4).to_string(), flush=True)
    ours = found.groupby("kind", sort=False)["recall"].min()
    pool = pd.concat(exams.values(), ignore_index=True)
    planted, peer = plant(pool, n=n), janitor(pool["question"])
    from lm_eval.decontamination.janitor import word_ngrams  # clean_python drops short texts, dirty or not

    found = [set(word_ngrams(peer.normalize_string(text), 13)) & peer.dirt_ngrams for text in planted["question"]]
    planted["found"] = list(map(bool, found))
    theirs = planted[planted["language"] == "en"].groupby("kind")["found"].mean()
    recall = {key(kind): None if pd.isna(ours[kind]) else float(ours[kind]) for kind in KINDS}
    return recall | {f"janitor_{key(kind)}": float(theirs[kind]) for kind in KINDS if kind in theirs}


def key(kind: str) -> str:
    return "recall_" + re.sub(r"\W+", "_", kind.replace("%", " percent"))


def measure_false_positives(exams: dict, index: ExamIndex) -> float:
    table = pd.concat([read(name) for name in OTHERS], ignore_index=True)
    asked = pd.concat(exams.values()).drop_duplicates("id").set_index("id")["question"]
    hits, false = decontaminate(table, index), set()
    for hit in hits.itertuples():
        print(f"{hit.rule} {hit.score:.2f}:\n  {table['question'][hit.row]!r}\n  {asked[hit.exam_id]!r}")
        if (hit.id, hit.exam_id) not in SAME:
            false.add(hit.row)
    print(f"false positives: {len(false)} of {len(table):,} rows", flush=True)
    return len(false) / len(table)


def varied(table: pd.DataFrame, count: int, share: float, seed: int) -> pd.DataFrame:
    """`count` rows from a table, with a `share` of their words and characters replaced."""
    chance = random.Random(seed)
    words = {True: [], False: []}
    for question in table["question"]:
        for word in _WORD.findall(question):
            words[word.isascii()].append(word)

    def other(match):
        return chance.choice(words[match[0].isascii()]) if chance.random() < share else match[0]

    def change(value):
        if isinstance(value, list):
            return [change(option) for option in value]
        return _WORD.sub(other, value) if isinstance(value, str) else value

    columns = ["question", "choices", "rationale", "answer", "language"]
    records = table[columns].to_dict("records")
    made = [{k: change(v) for k, v in records[i % len(records)].items()} for i in range(count)]
    return pd.DataFrame(made).assign(id=[f"{seed}-{i}" for i in range(count)])


def template(count: int) -> pd.DataFrame:
    """Made-up rows to start from if the real data is missing."""
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(5000)]
    texts = [" ".join(chance.choices(words, k=45)) for _ in range(count)]
    return pd.DataFrame({"question": texts, "choices": None, "rationale": texts[::-1], "answer": "7", "language": "en"})


def measure_speed(items: int, rows: int, rounds: int) -> None:
    """Run in a separate process; prints JSON."""
    there = REAL.is_dir()
    source = pd.concat([read(name) for name in EXAMS]) if there else template(1000)
    exam = varied(source, items, 0.5, 1)
    table = varied(pd.concat([read(name) for name in OTHERS]) if there else template(1000), rows, 0.3, 2)
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        index_exams({"exam": exam}, CurateSettings(), folder=f"{folder}/index")
        built, started = time.process_time() - started, time.process_time()
        index = ExamIndex.open(f"{folder}/index")
        opened = time.process_time() - started
        hits = decontaminate(table.head(100), index)  # loads the compiled loops
        ours, theirs, peer, memory = [], [], None, 0.0
        for _ in range(rounds):
            started = time.process_time()
            hits = decontaminate(table, index)
            ours.append(rows / (time.process_time() - started))
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 if peer is None else memory
            peer = peer or janitor(exam["question"])
            started = time.process_time()
            for text in map(text_of, table.itertuples()):
                peer.clean_python(text)
            theirs.append(rows / (time.process_time() - started))
    found = {"build_s": built, "open_s": opened, "memory_mib": memory, "hits": len(hits)}
    print(json.dumps(found | {"rows_per_second": statistics.median(ours), "peer": statistics.median(theirs)}))


def main() -> None:
    """Print the measurements, with the ratios as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer planted items, a smaller index, under 50 s")
    parser.add_argument("--speed", nargs=3, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.speed:
        return measure_speed(*arguments.speed)
    quick = arguments.quick
    items, rows, rounds = (5_000, 2_000, 1) if quick else (100_000, 20_000, 3)
    done = subprocess.run(
        [sys.executable, __file__, "--speed", str(items), str(rows), str(rounds)],
        capture_output=True,
        text=True,
        check=True,
    )
    speed = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{items:,} items, {rows:,} rows of {rounds} rounds:", json.dumps(speed), flush=True)
    there = REAL.is_dir()
    ratios = {key(kind): None for kind in KINDS} | {"false_positive_rate": None}
    if there:
        exams = {name: read(name) for name in EXAMS}
        index = index_exams(exams, CurateSettings())
        ratios |= measure_recall(exams, index, 30 if quick else 400)
        ratios["false_positive_rate"] = measure_false_positives(exams, index)
    ratios |= {
        "rows_per_second": round(speed["rows_per_second"]),
        "rows_vs_peer": round(speed["rows_per_second"] / speed["peer"], 2),
        "build_s": round(speed["build_s"], 1),
        "memory_mib": round(speed["memory_mib"]),
    }
    print(json.dumps({"benchmark": "decontam", "ratios": ratios, "items": items, "quick": quick}))


if __name__ == "__main__":
    main()
