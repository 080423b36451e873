"""Near-duplicates: speed, recall and precision against datasketch on English and Chinese documents.

    python benchmarks/dedup.py [--quick]

200,000 documents (10,000 with --quick), half English, half Chinese, made of pieces of real questions if
QATOOLKIT_REAL_DATA is set, else of made-up words. One in ten is a copy of another with up to 4% of its words replaced,
inserted or deleted (Jaccard of word pairs about 0.85 and more), one in ten a copy with a fifth of its words replaced
(about 0.4). Every contender is a fresh process on one core, measured in CPU time from texts to pairs. Rounds alternate
and the median is reported; compilation happens before the clock starts.

- ours: `near_duplicates(threshold=0.8)`: word pairs, exact Jaccard on pairs proposed by the bands.
- guarded: `near_duplicates()`, which compares questions: a replaced, inserted or deleted word is a difference, so its
  findings are not compared with the peers'. Its rate is reported because it is the default.
- datasketch: MinHash with 128 permutations and MinHashLSH(threshold=0.8) over the same word pairs from `shingles`; the
  pairs are what queries return.
- text_dedup: `embed_func` of its minhash script with its n-grams, hashes and union-find; it splits at white space, so
  it gets our tokens joined by spaces.

Recall: share of the planted close copies found with their original. Precision: share of the found pairs that are
planted close copies. `memory`: peak resident memory in MiB of a process that reads 1 million such documents (20,000
with --quick), the table included, and finds their near-duplicates, guarded.

The last line is one JSON object; a peer that is not installed is null.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

REAL = Path(os.environ.get("QATOOLKIT_REAL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
CONTENDERS = ("ours", "guarded", "datasketch", "text_dedup")


def pools() -> tuple[list[str], list[str]]:
    """English words and Chinese characters, in the order of real questions if there are any."""
    files = [path for path in sorted(REAL.glob("*.jsonl")) if "distractor" not in path.name]
    if not files:
        chance = random.Random(0)
        words = ["".join(chance.choices("abcdefghilmnoprstu", k=chance.randint(2, 9))) for _ in range(20_000)]
        return [words[int(20_000 * chance.random() ** 3)] for _ in range(400_000)], [
            chr(0x4E00 + int(3000 * chance.random() ** 2)) for _ in range(400_000)
        ]
    rows = [json.loads(line) for path in files for line in path.read_text(encoding="utf-8").split("\n") if line]
    english = [word for row in rows if row["language"] == "en" for word in row["question"].split()]
    return english, list("".join("".join(row["question"].split()) for row in rows if row["language"] == "zh"))


def make_documents(n: int, seed: int = 0) -> tuple[list[str], set[tuple[int, int]]]:
    """The documents and the planted pairs."""
    chance, (english, chinese) = random.Random(seed), pools()
    documents, planted = [], set()
    while len(documents) < n:
        pool, join = (english, " ".join) if chance.random() < 0.5 else (chinese, "".join)
        words = []
        for _ in range(chance.randint(5, 12)):
            start = chance.randrange(len(pool) - 20)
            words += pool[start : start + chance.randint(4, 12)]
        documents.append(join(words))
        kind = chance.random()
        if kind < 0.25 and len(documents) < n:
            close = kind < 0.125
            for _ in range(chance.randint(1, max(1, len(words) // 25)) if close else len(words) // 5):
                place, edit = chance.randrange(len(words)), chance.random() if close else 0
                if edit < 0.67:
                    words[place : place + (edit < 0.33)] = [chance.choice(pool)]
                else:
                    del words[place]
            if close:
                planted.add((len(documents) - 1, len(documents)))
            documents.append(join(words))
    return documents, planted


def ours(documents: list[str], guard: bool = False) -> set[tuple[int, int]]:
    from qatoolkit.curate.near_duplicates import near_duplicates

    table = pd.DataFrame({"id": range(len(documents)), "question": documents})
    first: dict[int, int] = {}
    clusters = enumerate(near_duplicates(table, on=("question",), threshold=None if guard else 0.8)["cluster"])
    return {(first[cluster], row) for row, cluster in clusters if first.setdefault(cluster, row) != row}


def datasketch(documents: list[str]) -> set[tuple[int, int]]:
    from datasketch import MinHash, MinHashLSH

    from qatoolkit.curate.comparison_text import shingles

    index, found = MinHashLSH(threshold=0.8, num_perm=128), set()
    sets = ([shingle.encode() for shingle in shingles(text)] for text in documents)
    for row, signature in enumerate(MinHash.generator(sets, num_perm=128)):
        found.update((earlier, row) for earlier in index.query(signature))
        index.insert(row, signature)
    return found


def text_dedup(documents: list[str]) -> set[tuple[int, int]]:
    import numpy as np
    from text_dedup.minhash import SIGNATURE_COLUMN, embed_func
    from text_dedup.utils import UnionFind, optimal_param, xxh3_32hash

    from qatoolkit.curate.comparison_text import tokens

    bands, width = optimal_param(0.8, 128, 0.5, 0.5)
    prime, rng = np.uint64((1 << 61) - 1), np.random.RandomState(42)
    settings = {
        "num_perm": 128,
        "ngram_size": 2,
        "min_length": 0,
        "hashranges": [(band * width, (band + 1) * width) for band in range(bands)],
        "permutations": tuple(rng.randint(first, prime, size=128, dtype=np.uint64) for first in (1, 0)),
        "hash_func": xxh3_32hash,
        "dtype": np.uint64,
        "max_hash": np.uint32((1 << 32) - 1),
        "modulo_prime": prime,
    }
    tables: list[dict[bytes, int]] = [{} for _ in range(bands)]
    clusters = UnionFind()
    for row, text in enumerate(documents):
        signature = embed_func(" ".join(tokens(text)), row, **settings)[SIGNATURE_COLUMN]
        for table, key in zip(tables, signature, strict=True):
            first = table.setdefault(key, row)
            if first != row:
                clusters.union(first, row)
    return {(root, row) for row in range(len(documents)) if (root := clusters.find(row)) != row}


def contend(name: str, n: int) -> dict:
    call = {"ours": ours, "guarded": lambda documents: ours(documents, True), "datasketch": datasketch}.get(
        name, text_dedup
    )
    documents, planted = make_documents(n)
    call(documents[:500])
    started = time.process_time()
    found = call(documents)
    seconds = time.process_time() - started
    right = len(found & planted)
    return {"rate": n / seconds, "recall": right / len(planted), "precision": right / max(1, len(found))}


def memory(n: int) -> dict:
    from qatoolkit.curate.near_duplicates import near_duplicates

    table = pd.DataFrame({"question": pd.Series(make_documents(n)[0], dtype="str"), "answer": "12", "id": range(n)})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.process_time()
    clusters = near_duplicates(table)["cluster"].nunique()
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"memory": peak, "memory_before": before, "seconds": seconds, "clusters": clusters}


def measure(name: str, n: int) -> dict:
    done = subprocess.run([sys.executable, __file__, "--contender", name, str(n)], capture_output=True, text=True)
    if done.returncode:
        print(f"{name}: {(done.stderr.strip().splitlines() or ['killed'])[-1]}", file=sys.stderr)
        return {}
    print(f"{name}: {done.stdout.strip().splitlines()[-1]}", flush=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few documents, one round, under 50 s")
    parser.add_argument("--contender", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        name, n = arguments.contender[0], int(arguments.contender[1])
        print(json.dumps(memory(n) if name == "memory" else contend(name, n)))
        return

    n, rounds, rows = (10_000, 1, 20_000) if arguments.quick else (200_000, 3, 1_000_000)
    print(f"{n:,} documents, {'pieces of real questions' if REAL.is_dir() else 'made-up words'}", flush=True)
    found = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        for name in CONTENDERS:
            found[name] += filter(None, [measure(name, n)])
    figures = {
        name: {key: statistics.median(one[key] for one in several) for key in several[0]}
        for name, several in found.items()
        if several
    }
    room = measure("memory", rows)

    def ratio(ours: str, key: str, peer: str = "datasketch") -> float | None:
        peer, own = figures.get(peer), figures.get(ours)
        return round(own[key] / peer[key], 3) if peer and own else None

    ratios = {
        "documents_vs_datasketch": ratio("ours", "rate"),
        "guarded_documents_vs_datasketch": ratio("guarded", "rate"),
        "documents_vs_text_dedup": ratio("ours", "rate", "text_dedup"),
        "recall_vs_datasketch": ratio("ours", "recall"),
        "precision_vs_datasketch": ratio("ours", "precision"),
        "memory_mib": round(room["memory"]) if room else None,
    }
    print(json.dumps({"benchmark": "dedup", "ratios": ratios, "figures": figures, "rows": rows, "rounds": rounds}))


if __name__ == "__main__":
    main()
