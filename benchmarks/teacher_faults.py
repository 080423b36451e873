"""The teacher client on a faulty server, killed at random moments: nothing lost, nothing invented, nothing paid twice.

    python benchmarks/teacher_faults.py [--quick]

Two measurements.

The offline teacher answers 20,000 requests (2,000 with --quick), of which 5% get a 429 (50 in a row), 2% a 500, 1% no
answer, 1% an empty one, 1% a truncated one, 2% broken JSON and 1% a refusal, and the client is killed (-9) at 20 (3)
random moments. Its table is compared with that of a run without faults, and the server's log with the ledger. The last
line is one JSON object; its ratios are shares of the requests.

`rate_under_429`: the client's answers per second over what the server admits, the lowest of four cases, with 512 in
flight and a latency of 200 ms: a server that gives 5% of its requests a 429 regardless of load (over the rate without
429s), and one that admits 400 requests per second and gives the others a 429 (over 400); both with Retry-After: 1 and
without. Counted by the server, from a tenth of its answers to nine tenths.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pandas as pd
from teacher_throughput import serve_until_closed

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
    """Send all requests and write the table; the answers that a killed client received are in the ledger."""
    with Ledger(folder / "ledger.sqlite") as ledger:
        endpoint = Endpoint(base_url=url, name="offline")
        teacher = Teacher("textbook", endpoint=endpoint, ledger=ledger, in_flight=IN_FLIGHT, timeout=3.0, backoff=0.05)
        table = teacher.ask(asked(n), parse=prompts.read_json)
    table["value"] = table["value"].map(lambda value: json.dumps(value, sort_keys=True))
    table.to_parquet(folder / "table.parquet")


def serve_429(share: float, rate: float, wait: int) -> None:
    """A server with 200 ms latency that gives a 429 to a `share` of requests and to those above `rate` per second (0:
    no limit), with Retry-After: `wait` unless it is 0."""
    from aiohttp import web

    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "An answer. " * 20}}
    text = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 20, "completion_tokens": 60}})
    rng, answered, bucket = random.Random(0), [], [rate / 10, time.monotonic()]

    async def answer(request):
        await request.read()
        now = time.monotonic()
        bucket[:] = min(rate / 10, bucket[0] + (now - bucket[1]) * rate), now
        if rng.random() < share or (rate and bucket[0] < 1):
            return web.Response(status=429, text="slow down", headers={"Retry-After": str(wait)} if wait else {})
        bucket[0] -= 1
        await asyncio.sleep(0.2)
        answered.append(time.monotonic())
        return web.Response(text=text, content_type="application/json")

    async def tell(request):
        first, last = len(answered) // 10, len(answered) * 9 // 10
        return web.json_response((last - first) / (answered[last] - answered[first]))

    serve_until_closed([web.post("/v1/chat/completions", answer), web.get("/rate", tell)])


def admitted(share: float, rate: float, wait: int, n: int) -> float:
    """Answers per second that a teacher with 512 in flight gets from such a server."""
    command = [sys.executable, __file__, "--server", str(share), str(rate), str(wait)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
            teacher = Teacher("textbook", endpoint=Endpoint(base_url=f"{url}/v1"), ledger=ledger, in_flight=512)
            table = teacher.ask([f"question {i}" for i in range(n)])
            assert (table["outcome"] == "ok").all(), table["outcome"].value_counts().to_dict()
        return json.loads(urllib.request.urlopen(f"{url}/rate").read())
    finally:
        server.stdin.close()
        server.wait()


def rates_under_429(quick: bool) -> dict[str, float]:
    n, limit = (2_500, 1_000) if quick else (20_000, 8_000)
    free = admitted(0, 0, 0, n)
    shares = {f"5% isolated, Retry-After {wait}": admitted(0.05, 0, wait, n) / free for wait in (0, 1)}
    shares |= {f"400 a second, Retry-After {wait}": admitted(0, 400, wait, limit) / 400 for wait in (0, 1)}
    print(
        f"without 429s {free:,.0f} answers/s; of what the server admits: { ({k: round(v, 3) for k, v in shares.items()}) }"
    )
    return shares


def start(url: str, folder: Path, n: int) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, __file__, "--client", url, str(folder), str(n)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2,000 requests and 3 kills, under 50 s")
    parser.add_argument("--client", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--server", nargs=3, type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.server:
        share, rate, wait = arguments.server
        return serve_429(share, rate, int(wait))
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
    ratios["rate_under_429"] = min(rates_under_429(arguments.quick).values())
    counts = {"kills": done, "answered_twice": twice, "answered_but_killed": lost}
    assert 0 <= lost <= done * IN_FLIGHT, f"ledger and server disagree by {lost} answers: more than in flight"
    assert twice <= done * IN_FLIGHT, f"{twice} requests were answered twice: more than in flight"
    print(json.dumps({"benchmark": "teacher_faults", "ratios": ratios, **counts, "outcomes": outcomes}))


if __name__ == "__main__":
    main()
