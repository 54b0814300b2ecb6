"""What passing one question on costs `qcrd answer` as the small files of earlier ones pile up, and what copying them
together on the way is worth.

    python -m benchmarks.desk --groups 500

Two desks take turns, one question at a time: one copies its files together every so many questions, as the service
does, the other never. Their teacher is an endpoint on this machine that answers at once, a process of its own, so what
is left is the desk's own work: storing the question, reading what is known, storing samples, voting. A line has the
medians of the last 20 questions.
"""

import argparse
import asyncio
import multiprocessing
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.answering import teacher
from flows.config.distill import load_config
from models.processor import detect_processor
from storage.datasets.registry import get_dataset
from storage.schemas import EXAMPLES
from storage.store import Store
from tasks.cascade.desk import COMPACT_EVERY, Desk
from tasks.questions.sets import PASSED_ON
from tasks.serving.settings import Question
from tasks.teacher.session import choose_teacher, endpoint

LAST = 20


class Untidy(Desk):
    """A desk that leaves its small files as they are."""

    def _compact(self) -> None:
        pass


DESKS = {"copied together": Desk, "left alone": Untidy}


async def measure(url: str, home: Path, groups: int) -> None:
    """Passes questions on to both desks, and prints what one takes."""
    dataset, times = get_dataset("lab"), {name: list[float]() for name in DESKS}
    settings = (f"teacher.url={url}", "teacher.model=loopback", "teacher.api=completions",
                "cascade.questions_a_day=null")  # fmt: skip
    config = load_config("quickstart", settings)
    choice = choose_teacher(config.teacher, home)
    stores = {name: Store(home / name.replace(" ", "-")) for name in DESKS}
    with endpoint(choice, home / "logs", print) as (address, recover):
        async with AsyncExitStack() as stack:
            desks = {}
            for name, kind in DESKS.items():
                desk = kind(stores[name], dataset, config.votes, config.cascade, config.teacher, choice, address, print,
                            recover)  # fmt: skip
                desks[name] = await stack.enter_async_context(desk)
            for number in range(1, groups + 1):
                for name, desk in desks.items():
                    start = time.monotonic()
                    await desk.pass_on(Question(f"Ann has {number} apples. How many?"))
                    times[name].append(time.monotonic() - start)
                if number % 100 == 0 or number == groups:
                    told = []
                    for name, store in stores.items():
                        parts = len(store.parts(EXAMPLES, {"dataset": "lab", "split": PASSED_ON}))
                        told.append(f"{name} {1000 * median(times[name][-LAST:]):.0f} ms ({parts} files a table)")
                    print(f"after {number} questions: {', '.join(told)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=500)
    groups = parser.parse_args().groups
    print(f"{detect_processor().name}; files are copied together every {COMPACT_EVERY} questions", file=sys.stderr)
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=teacher, args=(there, 0.0), daemon=True)
    process.start()
    with TemporaryDirectory(prefix="qcrd-desk-") as home:
        asyncio.run(measure(f"http://127.0.0.1:{here.recv()}/v1", Path(home), groups))
    here.send("end")
    process.join()


if __name__ == "__main__":
    main()
