"""What a question, a sample and a part file cost: the slopes that docs/scale.md reckons with.

    python -m benchmarks.scale                       # about three minutes
    python -m benchmarks.scale --questions 20000 40000

Each row is a process of its own at two sizes, and what the larger one takes more, for each question: processor time and
peak memory. Requests are counted by a loopback object store (moto's).
"""

import argparse
import json
import logging
import os
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from moto.server import ThreadedMotoServer
from rich.console import Console
from rich.table import Table

from benchmarks.months import DATASET, SAMPLING, SEED, SPLIT, TEACHER, questions, run_nights
from models.processor import detect_processor
from storage.shards import Shard
from storage.store import Store
from tasks.questions.sets import QuestionSet
from tasks.questions.stored import store_examples
from tasks.teacher.planning import plan_sampling

SHARDS = 64
PARTS = 20


def store_questions(root: Path, count: int) -> None:
    """All questions of a split, as a run stores them."""
    store_examples(Store(root), DATASET, SPLIT, list(questions(0, count)))


def find_shard(root: Path, count: int) -> None:
    """The ids of one shard's questions among all that are stored."""
    del count
    QuestionSet(dataset=DATASET.name, split=SPLIT, part="train").ids(Store(root), Shard(number=0, of=SHARDS))


def plan_all(root: Path, count: int) -> None:
    """What a teacher is still to be asked, all questions at once."""
    del count
    store = Store(root)
    ids = QuestionSet(dataset=DATASET.name, split=SPLIT, part="train").ids(store)
    plan_sampling(store, DATASET, SPLIT, ids, TEACHER, SAMPLING, SEED)


STEPS: dict[str, Callable[[Path, int], None]] = {
    "store a question": store_questions,
    f"find a shard's questions, 1 of {SHARDS}, for each question of all": find_shard,
    "plan a question (5 samples)": plan_all,
}


def measure(step: str, root: Path, count: int) -> tuple[float, float]:
    """Processor seconds and peak MiB of one step, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale", "--one", step, "--root", str(root), "--questions", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    seconds, mebibytes = json.loads(done.stdout)
    return seconds, mebibytes


def count_requests() -> Counter[str]:
    """Requests to an object store of writing part files of samples and of reading them again, for each file."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ.setdefault(name, "local")
    told: Counter[str] = Counter()

    class Counting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said = re.sub(r"\x1b\[\d+m", "", record.getMessage())  # werkzeug colours its lines
            told[said.split('"')[1].split()[0]] += 1

    log = logging.getLogger("werkzeug")
    log.handlers, log.propagate = [Counting()], False
    log.setLevel(logging.INFO)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    os.environ["AWS_ENDPOINT_URL"] = f"http://{host}:{port}"
    import boto3

    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="scale")
    store = Store("s3://scale/store")
    with store.connect():
        told.clear()
    run_nights(store, range(1), PARTS * 10, PARTS)
    written = Counter({f"write: {kind}": count for kind, count in told.items()})
    told.clear()
    store.query("SELECT count(*) FROM rationales WHERE answer = '0'")
    server.stop()
    return written + Counter({f"read: {kind}": count for kind, count in told.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, nargs="+", default=[100_000, 300_000], help="two sizes")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        began = time.process_time()
        STEPS[given.one](given.root, given.questions[0])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps([time.process_time() - began, peak]))
        return
    table = Table("step", *(f"{count:,}: s, MiB" for count in given.questions), "each more: us", "bytes")
    with TemporaryDirectory() as folder:
        found: dict[str, list[tuple[float, float]]] = {step: [] for step in STEPS}
        for count in given.questions:
            for step in STEPS:
                found[step].append(measure(step, Path(folder) / str(count), count))
        more = given.questions[-1] - given.questions[0]
        for step, ((seconds, peak), (seconds_, peak_)) in found.items():
            table.add_row(
                step, f"{seconds:.1f}, {peak:,.0f}", f"{seconds_:.1f}, {peak_:,.0f}",
                f"{(seconds_ - seconds) / more * 1e6:.1f}", f"{(peak_ - peak) / more * 2**20:,.0f}",
            )  # fmt: skip
    console = Console(width=150)
    console.print(f"{detect_processor().describe}; questions:", table)
    console.print(f"Requests of {PARTS} part files of samples (and one of questions, figures and votes each):")
    console.print(dict(sorted(count_requests().items())))


if __name__ == "__main__":
    main()
