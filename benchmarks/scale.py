"""Steps over Parquet shards: the local engine against Ray, memory by rows, and a worker killed while it asks a teacher.

    python benchmarks/scale.py [--quick]

1. rows: a step of filters (`qt.curate.filters`) over 100,000 rows in shards of 10,000 (4,000 rows in shards of 500 with
   --quick), by the local engine and by Ray with two workers, each in a fresh process. `same_rows`: whether the kept and
   rejected files have the same digests. Starting Ray and its workers is not part of the rate but reported as `start`:
   the time until the first shard is done, minus the time that the local engine takes for it.
2. memory: peak resident memory of the local engine (filters, and near-duplicates by bands) at increasing numbers of
   rows, each in a fresh process, up to 1,000,000 (not with --quick). --figure names a file for a figure of it.
3. killed: two workers on Ray send 2,000 requests (200 with --quick) for questions over HTTP to the packaged offline
   teacher; one is killed (-9) meanwhile. `paid_twice`: requests that the server answered more than once, beyond those
   that the worker had in flight; it must be 0.

The peer is Ray Data alone: `map_batches` of the same step over the same files. `rows_vs_ray_data` is its time over ours
through Ray, from a started Ray to the last file, since it may write all rows at once. The last line is one JSON object.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

WORKERS, IN_FLIGHT = 2, 16
WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "r", "l", "st")]


def tables(n: int, chunk: int):
    """Questions in made-up words, an eighth of them copies of earlier ones with the same answer, `chunk` rows at a
    time."""
    import numpy as np

    from qatoolkit.core.qa_table import qa_table

    rng = np.random.default_rng(0)
    for start in range(0, n, chunk):
        words, rows = rng.choice(WORDS, (min(chunk, n - start), 24)), []
        for i, some in enumerate(words):
            if i % 8 == 7:
                rows.append(rows[i - 1] | {"id": f"q{start + i}"})
            else:
                rows.append(
                    {"id": f"q{start + i}", "question": f"What is {' '.join(some)}?", "answer": " ".join(some[:2])}
                )
        yield qa_table(rows, language="en", source="words")


def checked(table):
    """The filters as a step: kept rows, and rejects with their first reason."""
    from qatoolkit.curate import filters

    faults = filters(table)
    first = faults[faults["reject"]].drop_duplicates("row").set_index("row")
    return table.drop(index=first.index), table.loc[first.index].assign(reason=first["reason"])


def rows(engine: str, source: str, out: str, per_shard: int) -> dict:
    """Seconds until Ray runs, from there to the first finished shard, and from there to the last."""
    from qatoolkit.core.shards import list_shards, map_shards

    began = time.time()
    if engine == "ray_data":
        return ray_data(source)
    if engine == "ray":
        from qatoolkit.core.ray_engine import start

        start()
    ready = time.time()
    done = map_shards(checked, source, out, key="checked 1", engine=engine, workers=WORKERS, rows_per_shard=per_shard)
    ends = sorted(path.stat().st_mtime for path in Path(out, "done").glob("*.json"))
    assert len(ends) == len(list_shards(source, per_shard))
    return {
        "ray": ready - began,
        "first": ends[0] - ready,
        "rest": ends[-1] - ends[0],
        "n": int(done["rows"][1:].sum()),
    }


def ray_data(source: str) -> dict:
    """The same step by Ray Data alone, with its reader and writer."""
    import pandas as pd

    from qatoolkit.core.ray_engine import start

    ray = start()

    def step(batch: pd.DataFrame) -> pd.DataFrame:
        return checked(batch)[0][["id", "question", "answer"]]

    began = time.time()
    found = ray.data.read_parquet(source).map_batches(step, batch_format="pandas", batch_size=None)
    with tempfile.TemporaryDirectory() as folder:
        found.write_parquet(folder)
        ends = sorted(path.stat().st_mtime for path in Path(folder).rglob("*.parquet"))
        n = sum(map(len, map(pd.read_parquet, Path(folder).rglob("*.parquet"))))
    return {"first": ends[0] - began, "rest": ends[-1] - ends[0], "n": n * (len(ends) - 1) // len(ends)}


def memory(source: str, out: str, per_shard: int, near: bool) -> dict:
    """Peak resident memory of a step by the local engine in MiB, its wall-clock and its CPU seconds."""
    from qatoolkit.core.shards import map_shards
    from qatoolkit.curate import near_duplicate_shards

    began = time.time()
    if near:
        done = near_duplicate_shards(source, out, rows_per_shard=per_shard)
    else:
        done = map_shards(checked, source, out, key="checked 1", rows_per_shard=per_shard)
    used, seconds = resource.getrusage(resource.RUSAGE_SELF), time.time() - began
    counts = {"rows": int(done["rows"].sum()), "rejects": int(done["rejects"].sum())}
    return counts | {"mib": used.ru_maxrss / 1024, "seconds": seconds, "cpu": used.ru_utime + used.ru_stime}


def killed(n: int, folder: str) -> dict:
    """Kill one of two workers that write questions; returns how many requests the server answered, and how often."""
    import pandas as pd

    from qatoolkit.core.shards import write_shards
    from qatoolkit.run.shards import ask_shards
    from qatoolkit.teacher.client import Endpoint
    from qatoolkit.textbook.server import local_teacher
    from qatoolkit.textbook.settings import TextbookSettings

    folder = Path(folder)
    source = write_shards([asked(n)], folder / "requests", n // 10)
    log, victim = folder / "teacher.log", folder / "victim"
    with local_teacher(TextbookSettings(), faults="latency=0.2", log=log) as url:
        about = {"model": "textbook", "endpoint": Endpoint(base_url=url, name="textbook"), "in_flight": IN_FLIGHT}
        done = ask_shards(
            killing(victim), source, folder / "made", key="benchmark", ledger=folder / "ledger.sqlite", engine="ray",
            workers=WORKERS, teachers={"teacher": about, "annotator": about}, rows_per_shard=n // 10,
        )  # fmt: skip
    answered = Counter(json.loads(line)["request"] for line in log.read_text().splitlines() if line.endswith("}"))
    twice = sum(answered.values()) - len(answered)
    made = pd.concat(map(pd.read_parquet, sorted((folder / "made" / "kept").glob("*.parquet"))))
    return {"requests": len(answered), "killed": victim.exists(), "answered_twice": twice, "in_flight": IN_FLIGHT,
            "paid_twice": max(0, twice - IN_FLIGHT), "shards": len(done), "questions": len(made)}  # fmt: skip


def asked(n: int):
    """BoostQA's requests for questions of the embedded textbook, with payloads as JSON."""
    import pandas as pd

    from qatoolkit.core.taxonomy import GRADES
    from qatoolkit.seeds.read import read_seeds
    from qatoolkit.synthesis.boostqa import requests
    from qatoolkit.synthesis.settings import BoostQASettings
    from qatoolkit.textbook.server import parts
    from qatoolkit.textbook.settings import TextbookSettings
    from qatoolkit.textbook.sources import write_sources

    with tempfile.TemporaryDirectory() as folder:
        seeds, _ = read_seeds(write_sources(parts(TextbookSettings()), Path(folder), 40))
    plan = pd.DataFrame([{"discipline": "physics", "difficulty": "H2", "budget": n * len(GRADES)}])
    table = requests(seeds.assign(discipline="physics"), plan, BoostQASettings())
    return table.assign(payload=[json.dumps(payload, ensure_ascii=False) for payload in table["payload"]])


def killing(victim: Path):
    """`write_and_label` as a step; the worker of the third call is killed half a second after it starts."""

    def step(table, teacher, annotator):
        from qatoolkit.synthesis.write import write_and_label

        begun = victim.with_name(f"begun-{time.time_ns()}")
        begun.touch()
        if len(list(victim.parent.glob("begun-*"))) >= 3 and not victim.exists():
            victim.touch()
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return write_and_label(table, teacher, annotator)

    return step


def fresh(name: str, *arguments) -> dict:
    """Run a part of this benchmark in a separate process."""
    command = [sys.executable, __file__, "--part", name, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} {arguments}: {done.stderr[-2000:]}")
    return json.loads(
        next(line for line in reversed(done.stdout.splitlines()) if line.startswith("{"))
    )  # Ray prints too


def draw(found: dict[str, list[dict]], place: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for name, points in found.items():
        axes.plot([p["rows"] for p in points], [p["mib"] for p in points], marker="o", label=name)
    axes.set(xlabel="rows", ylabel="peak of resident memory, MiB", xscale="log", ylim=(0, None))
    axes.legend()
    figure.savefig(place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rows, no memory at 1,000,000 rows, under 50 s")
    parser.add_argument("--figure", type=Path, help="a file for the figure of memory by rows")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        name, values = arguments.part
        return print(json.dumps(globals()[name](*json.loads(values))))
    from qatoolkit.core.files import digest
    from qatoolkit.core.shards import write_shards

    quick = arguments.quick
    n, per_shard = (4000, 500) if quick else (100_000, 10_000)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        source = str(write_shards(tables(n, per_shard), folder / "source", per_shard))
        by = {}
        for engine in ("local", "ray") if quick else ("local", "ray", "ray_data"):
            by[engine] = found = fresh("rows", engine, source, str(folder / engine), per_shard)
            found["seconds"] = found["first"] + found["rest"]
            found["rate"] = found["n"] / found["rest"] if found["rest"] else None
            found["start"] = found.get("ray", 0) + found["first"] - by["local"]["first"] if found["rate"] else None
            rate = (
                f"{found['rate']:,.0f} rows/s after the first shard, start {found['start']:.1f} s"
                if found["rate"]
                else "one file"
            )
            print(f"{engine}: {found['seconds']:.1f} s; {rate}")
        same = all(digest(folder / "local" / part) == digest(folder / "ray" / part) for part in ("kept", "rejects")
                   if (folder / "local" / part).exists())  # fmt: skip
        print(f"same rows: {same}")

        sizes = (4000,) if quick else (10_000, 100_000, 1_000_000)
        used = {"filters": [], "near-duplicates": []}
        for size in sizes:
            some = str(write_shards(tables(size, 10_000), folder / f"source-{size}", 10_000))
            for name, points in used.items():
                out = str(folder / f"{name}-{size}")
                points.append(fresh("memory", some, out, 10_000, name != "filters"))
                print(f"{name}: {size:,} rows in {points[-1]['mib']:,.0f} MiB, {points[-1]['seconds']:.0f} s")
        if arguments.figure:
            draw(used, arguments.figure)
        (folder / "killed").mkdir()
        paid = fresh("killed", 200 if quick else 2000, str(folder / "killed"))
        print(f"killed: {paid}")

    last = {name: points[-1]["mib"] for name, points in used.items()}
    ratios = {
        "same_rows": float(same),
        "ray_vs_local": round(by["ray"]["rate"] / by["local"]["rate"], 3),
        "rows_vs_ray_data": round(by["ray_data"]["seconds"] / by["ray"]["seconds"], 3) if "ray_data" in by else None,
        "memory_1m_vs_10k": None if quick else round(max(last.values()) / max(p[0]["mib"] for p in used.values()), 3),
        "paid_twice": paid["paid_twice"] if paid["killed"] else None,
    }
    print(json.dumps({"benchmark": "scale", "ratios": ratios, "rows": by, "memory": used, "killed": paid}))


if __name__ == "__main__":
    main()
