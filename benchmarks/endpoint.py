"""How near `qcrd sample` comes to what a rate limit allows, and whether anything is lost or asked twice.

    python -m benchmarks.endpoint
    python -m benchmarks.endpoint --requests 2000 --rate 50 --latency 1 --errors 0.02 --dropped 0.01 --nonsense 0.005

The endpoint is a process of its own on this machine. It answers after a latency that varies (log-normal), lets `rate`
requests a second through (a token bucket of one second; the others are a 429 with Retry-After), and of those it answers
some with a 500, some with a lost connection and some with a 200 that is no JSON. At best all tokens are used:

    ideal seconds = requests / (1 - failures) / rate + latency
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from aiohttp import web

from benchmarks import loopback
from models.processor import detect_processor
from storage.store import Store

N = 5
SIGMA = 0.3
"""Of the latency's logarithm."""


def serve(told: Connection, options: argparse.Namespace) -> None:
    """The endpoint: sends its port, and at a word of the other side what it did."""
    asyncio.run(_serve(told, options))


async def _serve(told: Connection, options: argparse.Namespace) -> None:
    answered: Counter[int] = Counter()
    did: Counter[str] = Counter()
    luck = random.Random(options.seed)
    tokens, filled = float(options.rate), time.monotonic()

    async def completions(request: web.Request) -> web.StreamResponse:
        nonlocal tokens, filled
        body: dict[str, Any] = await request.json()
        now = time.monotonic()
        tokens, filled = min(float(options.rate), tokens + (now - filled) * options.rate), now
        if tokens < 1:
            did["429"] += 1
            return web.json_response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "1"})
        tokens -= 1
        await asyncio.sleep(options.latency * luck.lognormvariate(0.0, SIGMA))
        chance = luck.random()
        if chance < options.errors:
            did["500"] += 1
            return web.json_response({"error": {"message": "oops"}}, status=500)
        if chance < options.errors + options.dropped:
            did["dropped"] += 1
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if chance < options.errors + options.dropped + options.nonsense:
            did["nonsense"] += 1
            return web.Response(text="<html>", content_type="text/html")
        answered[body["seed"]] += 1
        choices = [{"index": i, "text": f"So the answer is {i}.", "finish_reason": "stop"} for i in range(body["n"])]
        return web.json_response({"choices": choices, "usage": {"prompt_tokens": 9, "completion_tokens": 9}})

    await loopback.serve(told, "completions", completions, lambda: (dict(did), len(answered), sum(answered.values())))


def measure(options: argparse.Namespace) -> float:
    """One run; prints it and returns the ratio of the ideal seconds to its own."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there, options), daemon=True)
    server.start()
    port = here.recv()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = ({"question": f"Ann has {i} nuts and eats one. How many are left?"} for i in range(options.requests))
        (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        command = [
            sys.executable, "-c", "from flows.cli import main; main()", "sample", "--home", name, "--dataset", "svamp",
            "--path", str(folder / "questions.jsonl"), "--url", f"http://127.0.0.1:{port}/v1", "--model", "loopback",
            "--api", "completions", "--n", str(N), "--json",
        ]  # fmt: skip
        if options.in_flight:
            command += ["--in-flight", str(options.in_flight)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        [counts] = (
            Store(folder / "store")
            .query("SELECT count(*) AS samples, count(DISTINCT sample_id) AS ids FROM rationales")
            .to_pylist()
        )
    here.send("done")
    did, questions, answers = here.recv()
    server.join()
    seconds = json.loads(done.stdout)["seconds"]
    ideal = options.requests / (1 - options.errors - options.dropped - options.nonsense) / options.rate
    ratio = float((ideal + options.latency) / seconds)
    told = ", ".join(f"{count} x {what}" for what, count in sorted(did.items()))
    print(
        f"{options.requests / seconds:.1f} requests/s of {options.rate:g}, {seconds:.1f} s, ideal "
        f"{ideal + options.latency:.1f} s: {ratio:.3f}; {told}; questions answered {questions}, twice "
        f"{answers - questions}; samples stored {counts['samples']} of {options.requests * N}, ids {counts['ids']}",
        flush=True,
    )
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=50, help="requests a second (%(default)s)")
    parser.add_argument("--latency", type=float, default=1.0, help="its median, seconds (%(default)s)")
    parser.add_argument("--errors", type=float, default=0.02, help="share of 500s (%(default)s)")
    parser.add_argument("--dropped", type=float, default=0.01, help="share of lost connections (%(default)s)")
    parser.add_argument("--nonsense", type=float, default=0.005, help="share of 200s that are no JSON (%(default)s)")
    parser.add_argument("--in-flight", type=int, help="a fixed number of requests under way; it adapts by default")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(detect_processor())
    ratios = []
    for run in range(options.runs):
        options.seed += run
        ratios.append(measure(options))
    print(f"median {median(ratios):.3f} of the ideal")


if __name__ == "__main__":
    main()
