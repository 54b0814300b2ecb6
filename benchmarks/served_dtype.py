"""vLLM's CPU server in bfloat16 against float32: what `models.server_settings.served_dtype` chooses by.

    python -m benchmarks.served_dtype --model FOLDER            # with all that the processor has
    python -m benchmarks.served_dtype --model FOLDER --capped   # as on a processor with AVX2 only

Both servers are up at once, and `qcrd sample` asks them in turn. Processor time is that of the server; other processes
disturb it less than the clock.
"""

import argparse
import os
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import psutil  # type: ignore[import-untyped,unused-ignore]
from rich.console import Console
from rich.table import Table

from benchmarks.capped import AVX2
from benchmarks.sampling import ours
from models.processor import detect_processor
from models.server import VllmServer
from models.server_settings import ServerConfig
from storage.datasets.registry import get_dataset
from storage.store import Store
from tasks.questions.stored import store_examples

DTYPES: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")


def processor_seconds(server: VllmServer) -> float:
    """Of a server's processes, since they began."""
    assert server.watchdog_pid is not None
    root = psutil.Process(server.watchdog_pid)
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return sum(float(one.user + one.system) for one in times)


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="model folder")
    parser.add_argument("--capped", action="store_true", help="to AVX2")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--n", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    if options.capped:
        os.environ.update(AVX2)  # the servers'; nothing is computed in this process
    found: dict[str, list[tuple[float, float]]] = {}
    with TemporaryDirectory() as temporary, ExitStack() as stack:
        folder, dataset = Path(temporary), get_dataset("lab")
        servers = {
            dtype: stack.enter_context(
                VllmServer(ServerConfig(model=options.model, dtype=dtype), folder / f"{dtype}.log")
            )
            for dtype in DTYPES
        }
        for dtype in DTYPES:
            store_examples(
                Store(folder / dtype / "store"), dataset, "train", dataset.load("train", None, options.questions)
            )
        for number in range(options.runs + 1):
            for dtype, server in servers.items():
                before = processor_seconds(server)
                done = ours(server, folder / dtype, number, options)
                used = processor_seconds(server) - before
                if number:  # the first run warms up
                    tokens = done["completion_tokens"]
                    found.setdefault(dtype, []).append((tokens / done["seconds"], 1000 * used / tokens))
                    print(dtype, f"{found[dtype][-1][0]:,.0f} tokens/s", file=sys.stderr)
    table = Table("median of", *DTYPES, "bfloat16 / float32", title=detect_processor().describe, box=None)
    for place, what in enumerate(("tokens/s", "processor seconds per 1,000 tokens")):
        plain, half = ([one[place] for one in found[dtype]] for dtype in DTYPES)
        ratio = statistics.median(b / a for a, b in zip(plain, half, strict=True))
        table.add_row(what, *(f"{statistics.median(values):,.2f}" for values in (plain, half)), f"{ratio:.2f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
