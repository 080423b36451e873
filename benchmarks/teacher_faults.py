"""Nothing lost, nothing invented, nothing paid twice: the teacher client on a server with faults, killed at random moments.

    python benchmarks/teacher_faults.py [--quick]

The offline teacher answers 20,000 requests (2,000 with --quick) while 5% of what it is sent gets a 429 (50 in a row), 2% a 500, 1% no answer,
1% an empty one, 1% a truncated one, 2% broken JSON and 1% a refusal, and the client is killed (-9) at 20 (3) random moments.
Its table is compared with that of a run without faults, and the server's own log with the ledger. The last line is one JSON
object; its ratios are shares of the requests.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from qatoolkit.teacher import prompts
from qatoolkit.teacher.client import Endpoint, Teacher
from qatoolkit.teacher.completions import ANSWERED
from qatoolkit.teacher.ledger import Ledger
from qatoolkit.textbook.exams import seed_questions
from qatoolkit.textbook.server import local_teacher, parts
from qatoolkit.textbook.settings import TextbookSettings

WORLD = TextbookSettings(entities=6, entities_zh=2, relations=3, families=4)
FAULTS = "rate_limit=0.05,burst=50,server_error=0.02,timeout=0.01,empty=0.01,truncated=0.01,bad_json=0.02,refusal=0.01"
IN_FLIGHT = 64


def asked(n: int) -> list:
    book = parts(WORLD)["en"]
    questions = seed_questions(book, "en", 10)["question"]
    return [
        prompts.messages("solve", "en", question=questions[i % len(questions)], draw=i // len(questions))
        for i in range(n)
    ]


def client(url: str, folder: Path, n: int) -> None:
    """Ask everything and write the table; what a killed client had answered is in the ledger."""
    with Ledger(folder / "ledger.sqlite") as ledger:
        endpoint = Endpoint(base_url=url, name="offline")
        teacher = Teacher("textbook", endpoint=endpoint, ledger=ledger, in_flight=IN_FLIGHT, timeout=3.0, backoff=0.05)
        table = teacher.ask(asked(n), parse=prompts.read_json)
    table["value"] = table["value"].map(lambda value: json.dumps(value, sort_keys=True))
    table.to_parquet(folder / "table.parquet")


def start(url: str, folder: Path, n: int) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, __file__, "--client", url, str(folder), str(n)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2,000 requests and 3 kills, under 50 s")
    parser.add_argument("--client", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        url, folder, n = arguments.client
        return client(url, Path(folder), int(n))

    n, kills = (2_000, 3) if arguments.quick else (20_000, 20)
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as temporary:
        calm, rough = Path(temporary) / "calm", Path(temporary) / "rough"
        for folder in (calm, rough):
            folder.mkdir()
        with local_teacher(WORLD) as url:
            begun = time.perf_counter()
            assert start(url, calm, n).wait() == 0
            whole = time.perf_counter() - begun
        log, done = rough / "server.jsonl", 0
        with local_teacher(WORLD, faults=FAULTS, log=log) as url:
            while done < kills:
                process = start(url, rough, n)
                time.sleep(2.0 + rng.uniform(0, whole / kills))
                done += process.poll() is None
                process.kill()
                process.wait()
                if (rough / "table.parquet").exists():
                    break
            assert start(url, rough, n).wait() == 0
        tables = [pd.read_parquet(folder / "table.parquet") for folder in (calm, rough)]
        said = pd.DataFrame(json.loads(line) for line in log.read_text().splitlines())
        with Ledger(rough / "ledger.sqlite") as ledger:
            attempts = ledger.attempts()
    outcomes = tables[1]["outcome"].value_counts().to_dict()
    both = (tables[0]["outcome"] == "ok") & (tables[1]["outcome"] == "ok")
    ours = attempts[attempts["outcome"].isin(ANSWERED)]
    lost = len(said) - len(ours)  # answered while the client was being killed
    whole_ones = said[~said["fate"].isin(["empty", "truncated"])]  # these are asked for once more on purpose
    twice = int(whole_ones["request"].duplicated().sum())
    tokens = pd.json_normalize(said["usage"])["total_tokens"].sum()
    recorded = int((ours["prompt_tokens"] + ours["completion_tokens"]).sum())
    told = f"{n:,} requests, {done} kills with up to {IN_FLIGHT} in flight each; outcomes {outcomes}"
    print(f"{told}; attempts {attempts['outcome'].value_counts().to_dict()}")
    print(f"server: {len(said):,} answers, {tokens:,} tokens; ledger: {len(ours):,}, {recorded:,}")
    ratios = {
        "rows_with_an_outcome": len(tables[1]) / n,
        "same_answers_as_without_faults": float((tables[0]["value"] == tables[1]["value"])[both].mean()),
        "answered_or_rejected_with_a_reason": float(
            ((tables[1]["outcome"] == "ok") | tables[1]["error"].notna()).mean()
        ),
        "ledger_per_server_answer": len(ours) / len(said),
        "ledger_per_server_token": float(recorded / tokens),
    }
    counts = {"kills": done, "answered_twice": twice, "answered_but_killed": lost}
    assert 0 <= lost <= done * IN_FLIGHT, f"ledger and server disagree by {lost} answers: more than in flight"
    assert twice <= done * IN_FLIGHT, f"{twice} requests were answered twice: more than in flight"
    print(json.dumps({"benchmark": "teacher_faults", "ratios": ratios, **counts, "outcomes": outcomes}))


if __name__ == "__main__":
    main()
