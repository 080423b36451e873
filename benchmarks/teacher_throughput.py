"""Requests per second on one core: the teacher client with its ledger, against raw aiohttp and the OpenAI SDK.

    python benchmarks/teacher_throughput.py [--quick]

A server with a fixed latency answers from a second process on another core; every contender is a fresh process on one
core and sends distinct prompts. Rounds alternate between contenders and the median is reported. bespokelabs-curator
takes part if `CURATOR_PYTHON` names the Python of an environment in which it is installed. The last line is one JSON
object.
"""

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONTENDERS = ("ours", "raw", "openai", "openai_aiohttp", "curator")
REPLY = {
    "id": "x",
    "object": "chat.completion",
    "created": 0,
    "model": "textbook",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "An answer. " * 20}}],
    "usage": {"prompt_tokens": 20, "completion_tokens": 60, "total_tokens": 80},
}


def serve(latency: float) -> None:
    from aiohttp import web

    text = json.dumps(REPLY)

    async def answer(request):
        await request.read()
        if latency:
            await asyncio.sleep(latency)
        return web.Response(text=text, content_type="application/json")

    serve_until_closed([web.post("/v1/chat/completions", answer)])


def serve_until_closed(routes: list) -> None:
    """Serve on a port, which is printed, until the parent process closes standard input."""
    from aiohttp import web

    async def main():
        app = web.Application()
        app.router.add_routes(routes)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=2048).start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.to_thread(sys.stdin.read)

    asyncio.run(main())


def prompts(n: int) -> list[str]:
    return [f"What is the answer to question number {i}? {'It has some length. ' * 10}" for i in range(n)]


def bodies(n: int) -> list[dict]:
    return [
        {"model": "textbook", "messages": [{"role": "user", "content": p}], "temperature": 0.6, "max_tokens": 4096}
        for p in prompts(n)
    ]


def ours(url: str, n: int, in_flight: int) -> None:
    from qatoolkit.teacher.client import Endpoint, Teacher
    from qatoolkit.teacher.ledger import Ledger

    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        teacher = Teacher("textbook", endpoint=Endpoint(base_url=url), ledger=ledger, in_flight=in_flight)
        table = teacher.ask(prompts(n))
        assert (table["outcome"] == "ok").all()
        assert not table["cached"].any()


def raw(url: str, n: int, in_flight: int) -> None:
    import aiohttp

    async def main():
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight)) as session:
            todo = iter(bodies(n))

            async def worker():
                for body in todo:
                    async with session.post(f"{url}/chat/completions", json=body) as response:
                        answer = await response.json()
                        assert answer["choices"][0]["message"]["content"]

            await asyncio.gather(*(worker() for _ in range(in_flight)))

    asyncio.run(main())


def openai(url: str, n: int, in_flight: int, aiohttp: bool = False) -> None:
    from openai import AsyncOpenAI, DefaultAioHttpClient

    async def main():
        transport = {"http_client": DefaultAioHttpClient()} if aiohttp else {}
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=600, **transport) as client:
            todo = iter(bodies(n))

            async def worker():
                for body in todo:
                    answer = await client.chat.completions.create(**body)
                    assert answer.choices[0].message.content

            await asyncio.gather(*(worker() for _ in range(in_flight)))

    asyncio.run(main())


def openai_aiohttp(url: str, n: int, in_flight: int) -> None:
    openai(url, n, in_flight, aiohttp=True)


def curator(url: str, n: int, in_flight: int) -> None:
    from bespokelabs import curator as curated

    os.environ["CURATOR_DISABLE_RICH_DISPLAY"] = os.environ["TELEMETRY_ENABLED"] = "0"
    os.environ["OPENAI_API_KEY"] = "none"
    model = curated.LLM(
        model_name="openai/textbook",
        backend="litellm",
        backend_params={
            "base_url": url,
            "api_key": "none",
            "max_concurrent_requests": in_flight,
            "max_requests_per_minute": 10_000_000,
            "max_tokens_per_minute": 10_000_000_000,
        },
    )
    with tempfile.TemporaryDirectory() as folder:  # a cache from an earlier round would answer for it
        os.environ["CURATOR_CACHE_DIR"] = folder
        answers = model(prompts(n))
    assert len(getattr(answers, "dataset", answers)) == n


def contend(name: str, url: str, n: int, in_flight: int) -> None:
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
    warm = time.perf_counter()
    globals()[name](url, 50, min(8, in_flight))  # imports, connections, first file
    started = time.perf_counter()
    globals()[name](url, n, in_flight)
    seconds = time.perf_counter() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rate": n / seconds, "mib": memory, "warm": started - warm}))


def measure(name: str, url: str, n: int, in_flight: int) -> dict | None:
    python = os.environ.get("CURATOR_PYTHON") if name == "curator" else sys.executable
    if not python:
        return None
    command = [python, __file__, "--contender", name, url, str(n), str(in_flight)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one latency, one round, under 50 s")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--contender", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        return serve(arguments.serve)
    if arguments.contender:
        name, url, n, in_flight = arguments.contender
        return contend(name, url, int(n), int(in_flight))

    quick = arguments.quick
    cells = [(0.2, 512)] if quick else [(latency, flight) for latency in (0.0, 0.2) for flight in (64, 512)]
    rounds, rates, memory = (1 if quick else 3), {}, None
    cores = sorted(os.sched_getaffinity(0))
    for latency, in_flight in cells:
        server = subprocess.Popen(
            ["taskset", "-c", str(cores[-1]), sys.executable, __file__, "--serve", str(latency)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
            ceiling = in_flight / latency if latency else 2000
            for _ in range(rounds):
                for name in CONTENDERS:
                    slow = 8 if name.startswith(("openai", "curator")) else 1
                    n = max(2 * in_flight, int(min(ceiling, 1600) * (4 if quick else 6)) // slow)
                    if (got := measure(name, url, n, in_flight)) is not None:
                        rates.setdefault((latency, in_flight), {}).setdefault(name, []).append(got["rate"])
            if not quick and (latency, in_flight) == (0.0, 512):
                memory = measure("ours", url, 100_000, in_flight)["mib"]
        finally:
            server.stdin.close()
            server.wait()
    medians = {cell: {name: statistics.median(r) for name, r in by.items()} for cell, by in rates.items()}
    for (latency, in_flight), by in medians.items():
        shown = ", ".join(f"{name} {rate:,.0f}/s" for name, rate in by.items())
        print(f"latency {latency * 1000:.0f} ms, {in_flight} in flight: {shown}")
    if memory:
        print(f"100,000 requests: {memory:.0f} MiB at the most")

    def worst(peer: str, wanted) -> float | None:
        found = [by["ours"] / by[peer] for cell, by in medians.items() if peer in by and wanted(cell)]
        return round(min(found), 3) if found else None

    ratios = {
        "vs_raw_aiohttp": worst("raw", lambda cell: True),
        "vs_openai_default": worst("openai", lambda cell: cell[1] == 512),
        "vs_openai_aiohttp": worst("openai_aiohttp", lambda cell: cell[1] == 512),
        "vs_curator": worst("curator", lambda cell: cell[1] == 512),
    }
    details = {
        f"{latency:g}s/{flight}": {k: round(v) for k, v in by.items()} for (latency, flight), by in medians.items()
    }
    print(json.dumps({"benchmark": "teacher_throughput", "ratios": ratios, "rates": details, "mib_100k": memory}))


if __name__ == "__main__":
    main()
