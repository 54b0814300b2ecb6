"""How sampling in shards scales with the number of workers, and what a shard costs beside its samples.

    python -m benchmarks.shards
    python -m benchmarks.shards --latency 0.5 --seconds 30         # here the processors are the limit

The endpoint is a process on loopback that takes `latency` seconds for a request and `places` requests at a time for
each worker, as if each had a server of its own. So it gives at most

    samples/s = N * places * n / latency

Each of N workers has one shard, of questions for so many seconds. Efficiency is samples/s over that, while
all shards sample (from the last one's first request to the first one's last reply), and over all from the first request
to the last reply. "Start" is a shard's time from when its run was created to its first request, "end" from its last
reply to the end of its run: medians over the shards.
"""

import argparse
import asyncio
import json
import math
import multiprocessing
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from aiohttp import web

from benchmarks import loopback

N = 5
DATASET = """
name: sums
answers: number
question: "{body}"
fields: {label: total}
splits: {train: train.jsonl}
instruction: Add up. Finish with "So the answer is NUMBER."
exemplars: []
"""


def serve(told: Connection, latency: float, places: int) -> None:
    """The endpoint: sends its port; at a word of the other side, when each question came and was answered."""
    asyncio.run(_serve(told, latency, places))


async def _serve(told: Connection, latency: float, places: int) -> None:
    times: dict[str, tuple[float, float]] = {}
    free = asyncio.Semaphore(places)

    async def chat(request: web.Request) -> web.StreamResponse:
        body: dict[str, Any] = await request.json()
        came = time.time()
        async with free:
            await asyncio.sleep(latency)
        message = {"role": "assistant", "content": "3 + 4 = 7. So the answer is 7."}
        choices = [{"index": i, "message": message, "finish_reason": "stop"} for i in range(body["n"])]
        times[body["messages"][-1]["content"].splitlines()[-1].strip()] = came, time.time()
        return web.json_response({"choices": choices, "usage": {"prompt_tokens": 40, "completion_tokens": 100}})

    await loopback.serve(told, "chat/completions", chat, lambda: times)


def sample(home: Path, workers: int, options: argparse.Namespace) -> dict[str, float]:
    """Samples in as many shards as there are workers, in this process and below it; the figures."""
    from flows.prefect.embedded import prepare_prefect
    from flows.prefect.own_server import start_own_server

    prepare_prefect(home)
    server = start_own_server(home / "logs")
    from prefect import flow
    from prefect.client.orchestration import get_client

    from flows.prefect.workers import own_workers
    from flows.shards import ask_in_shards, sample_shard
    from storage.datasets.registry import get_dataset
    from storage.shards import Shard
    from storage.store import Store
    from tasks.questions.sets import DatasetConfig
    from tasks.questions.stored import store_examples
    from tasks.running.workspace import Workspace
    from tasks.teacher.settings import TeacherSettings

    questions = int(workers * options.seconds * options.places / options.latency)
    (home / "sums.yaml").write_text(DATASET, encoding="utf-8")
    lines = (json.dumps({"body": f"What is {i} + 4 - {i - 3}?", "total": 7}) for i in range(questions))
    (home / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    workspace = Workspace(home=home, store=str(home / "store"), run_id="benchmark")
    config = DatasetConfig(name=str(home / "sums.yaml"), validation_split=None, test_split=None)
    dataset, store = get_dataset(config.name), Store(workspace.store)
    store_examples(store, dataset, "train", dataset.load("train", None, None))
    here, there = multiprocessing.Pipe()
    endpoint = multiprocessing.get_context("spawn").Process(
        target=serve, args=(there, options.latency, options.places * workers), daemon=True
    )
    endpoint.start()
    teacher = TeacherSettings(
        url=f"http://127.0.0.1:{here.recv()}/v1", model="loopback", n=N, in_flight=options.places, shards=workers,
        shards_on="benchmark" if workers > 1 else None, split_s=None,  # one worker is what there is without a name
    )  # fmt: skip
    if server:
        server.wait()
    with own_workers(sample_shard, "benchmark", home / "logs", [(1, {})] * workers):
        asked: Any = flow(name="benchmark")(ask_in_shards.fn)
        asked(workspace, config, teacher)
        with get_client(sync_client=True) as client:
            runs = [run for run in client.read_flow_runs(limit=200) if (run.name or "").startswith("shard ")]
    here.send("over")
    times: dict[str, tuple[float, float]] = here.recv()
    stored = store.query("SELECT count(*) AS n, count(DISTINCT sample_id) AS ids FROM rationales").to_pylist()
    assert stored == [{"n": questions * N, "ids": questions * N}], stored
    first, last, starts, ends = [], [], [], []
    for number in range(workers):
        held = store.query(f"SELECT question FROM examples WHERE {Shard(number=number, of=workers).condition}")
        its = [times[question] for question in held["question"].to_pylist()]
        [run] = [run for run in runs if run.name == f"shard {number + 1} of {workers}"]
        first.append(min(came for came, _ in its))
        last.append(max(answered for _, answered in its))
        assert run.created
        assert run.end_time
        starts.append(first[-1] - run.created.timestamp())
        ends.append(run.end_time.timestamp() - last[-1])
    together = max(first), min(last)
    answered = sum(together[0] < at <= together[1] for _, at in times.values())
    best = workers * N * options.places / options.latency
    return {
        "best": best,
        # Not a number where the first shard was done before the last one had begun.
        "together": N * answered / length / best if (length := together[1] - together[0]) > 0 else math.nan,
        "in all": N * questions / (max(last) - min(first)) / best,
        "start": median(starts),
        "end": median(ends),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--latency", type=float, default=4.0, help="seconds a request takes (%(default)s)")
    parser.add_argument("--places", type=int, default=16, help="requests at a time for each worker (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="of sampling for each worker (%(default)s)")
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        print(json.dumps(sample(options.folder, options.workers[0], options)))
        return
    from models.processor import detect_processor

    print(detect_processor())
    print("workers  endpoints' samples/s  reached  of them  in all  start s  end s")
    shared = ["--latency", str(options.latency), "--places", str(options.places), "--seconds", str(options.seconds)]
    for workers in options.workers:  # each in a process of its own, with servers of its own
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "benchmarks.shards", "--in", folder, "--workers", str(workers), *shared]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        got: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{workers:7}  {got['best']:20.1f}  {got['best'] * got['together']:7.1f}  {got['together']:7.3f}"
            f"  {got['in all']:6.3f}  {got['start']:7.1f}  {got['end']:5.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
