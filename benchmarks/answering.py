"""What `qcrd answer --serve` adds to the champion: requests/s and latency under load, against the champion alone.

    python -m benchmarks.answering --home .qcrd                      # after `make quickstart`
    python -m benchmarks.answering --home .qcrd --below 0.9 --latency 1

Each request asks one question of the lab's training split, of which the champion may know some: this is about time.
"alone" is the registered champion in one process, without a service: one question at a time, and in batches of as many
as there are clients. Service and champion take turns, `--runs` times, and the table shows medians. With `--below`, what
the champion is less sure of is passed on to a teacher: an endpoint on this machine that answers after `--latency`
seconds, a process of its own. Each run asks other questions, so nothing is known from before; what is passed on goes
into a copy of the state folder, which is removed.
"""

import argparse
import asyncio
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import aiohttp
from aiohttp import web
from rich.console import Console
from rich.table import Table

from benchmarks import loopback
from models.processor import detect_processor
from storage.datasets.registry import get_dataset
from tasks.tracking.registry import load_registered

MODEL = "qcrd-lab"


def teacher(told: Connection, latency_s: float) -> None:
    """The endpoint; all of its samples say 7."""

    async def completions(request: web.Request) -> web.StreamResponse:
        body: dict[str, Any] = await request.json()
        await asyncio.sleep(latency_s)
        choices = [{"index": i, "text": "3 + 4 = 7. So the answer is 7.", "finish_reason": "stop"}
                   for i in range(body["n"])]  # fmt: skip
        return web.json_response({"choices": choices, "usage": {"prompt_tokens": 9, "completion_tokens": 9}})

    asyncio.run(loopback.serve(told, "completions", completions, lambda: None))


@contextmanager
def service(home: Path, url: str, below: float) -> Iterator[str]:
    """Starts `qcrd answer --serve`; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = (f"teacher.url={url}", "teacher.model=loopback", "teacher.api=completions", f"cascade.below={below}",
                "cascade.questions_a_day=null")  # fmt: skip
    command = [sys.executable, "-c", "from flows.cli import main; main()", "answer", "quickstart", "--serve",
               "--port", str(port), "--home", str(home)]  # fmt: skip
    command += [part for setting in settings for part in ("--set", setting)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit("The service did not start; try its command by hand.") from None
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/answer"
    finally:
        process.terminate()
        process.wait()


async def load(address: str, questions: list[str], clients: int) -> tuple[float, list[float], int]:
    """Asks all questions from so many clients at once.

    Returns:
        Seconds in all, seconds of each request, and how many the teacher answered.
    """
    seconds: list[float] = []
    passed_on = 0
    waiting = iter(questions)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=clients)) as session:

        async def client() -> None:
            nonlocal passed_on
            for question in waiting:
                start = time.monotonic()
                async with session.post(address, json={"questions": [{"question": question}]}) as reply:
                    assert reply.status == 200, await reply.text()
                    [answer] = (await reply.json())["answers"]
                seconds.append(time.monotonic() - start)
                passed_on += answer["by"] == "teacher"

        start = time.monotonic()
        await asyncio.gather(*(client() for _ in range(clients)))
    return time.monotonic() - start, seconds, passed_on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="state folder with a champion of the lab")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--requests", type=int, default=400, help="of each run")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--below", type=float, default=0.0)
    parser.add_argument("--latency", type=float, default=0.5, help="of the teacher, seconds")
    options = parser.parse_args()
    os.environ.pop("QCRD_ANSWER_API_KEY", None)
    examples = get_dataset("lab").load("train", None, 2 * options.requests * options.runs * len(options.clients))
    fresh = iter([one.question for one in examples])
    student = load_registered(options.home, MODEL)
    here, there = multiprocessing.Pipe()
    endpoint = multiprocessing.get_context("spawn").Process(target=teacher, args=(there, options.latency), daemon=True)
    endpoint.start()
    table = Table(title=f"{detect_processor().name}; medians of {options.runs} runs", box=None)
    columns = ("clients", "requests/s", "p50 ms", "p99 ms", "passed on", "alone, 1 at a time /s", "alone, batches /s",
               "of alone")  # fmt: skip
    for name in columns:
        table.add_column(name, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        shutil.copytree(options.home, home)
        with service(home, f"http://127.0.0.1:{here.recv()}/v1", options.below) as address:
            for clients in options.clients:
                found = []
                for _ in range(options.runs):
                    asked = [next(fresh) for _ in range(options.requests)]
                    in_all, seconds, passed_on = asyncio.run(load(address, asked, clients))
                    cuts = quantiles(seconds, n=100)
                    few = [next(fresh) for _ in range(options.requests)]
                    rates = []
                    for batch in (1, clients):
                        part = few if batch > 1 else few[: max(20, options.requests // 8)]
                        start = time.monotonic()
                        for first in range(0, len(part), batch):
                            student.predict(part[first : first + batch])
                        rates.append(len(part) / (time.monotonic() - start))
                    found.append(
                        (len(asked) / in_all, 1000 * cuts[49], 1000 * cuts[98], passed_on / len(asked), *rates)
                    )
                rate, middle, slow, share, single, batches = (median(column) for column in zip(*found, strict=True))
                table.add_row(
                    str(clients), f"{rate:,.1f}", f"{middle:,.0f}", f"{slow:,.0f}", f"{share:.0%}", f"{single:,.1f}",
                    f"{batches:,.1f}", f"{rate / batches:.2f}",
                )  # fmt: skip
    here.send("end")
    endpoint.join()
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
