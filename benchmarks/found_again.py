"""A run that finds everything done, as most scheduled ones do: ours against another checkout of this project.

    qcrd distill lab                                           # once, so that there is something to find
    python -m benchmarks.found_again --other ../older          # 3 runs of each, in turn
    python -m benchmarks.found_again --config mine.yaml --home .qcrd

Each checkout gets a copy of the state folder, and one run that does not count, in which it makes what its own version
caches. A run is a process from its start to its end; memory is the largest resident size of one of its processes.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "from flows.cli import main; main()"
ONCE = "--once"
HOME = ".qcrd"


def once(words: list[str]) -> None:
    """Runs `qcrd` with some arguments, and prints its figures.

    In a process of its own for each run: of all children of a process only the largest size is known.
    """
    started = time.monotonic()
    command = [sys.executable, "-c", COMMAND, *words]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {
        "seconds": time.monotonic() - started,
        "processor seconds": used.ru_utime + used.ru_stime,
        "memory, MB": used.ru_maxrss / 1024,
    }
    print(json.dumps(figures))


def measure(checkout: Path, place: Path, config: str) -> dict[str, float]:
    """One run of a checkout, in the folder that holds its state folder."""
    env = os.environ | {"QCRD_HOME": HOME, "PYTHONPATH": str(checkout)}  # relative: older versions stored it as given
    command = [sys.executable, str(Path(__file__).resolve()), ONCE, "distill", config]
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{checkout}: {done.stderr.strip()}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> None:
    """Measures, and prints a table."""
    if sys.argv[1:2] == [ONCE]:
        once(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, help="another checkout; left out, only this one is measured")
    parser.add_argument("--home", type=Path, default=ROOT / HOME, help="a state folder in which the run is done")
    parser.add_argument("--config", default="lab")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    if not options.home.is_dir():
        parser.error(f"{options.home} is not there; run `qcrd distill {options.config}` first")
    config = str(Path(options.config).resolve()) if Path(options.config).is_file() else options.config
    checkouts = {"this checkout": ROOT} | ({"the other": options.other.resolve()} if options.other else {})
    found: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    with TemporaryDirectory() as folder:
        for number in range(options.runs + 1):
            for name, checkout in checkouts.items():
                place = Path(folder, name)
                if number == 0:
                    shutil.copytree(options.home, place / HOME, ignore=shutil.ignore_patterns("prefect"))
                figures = measure(checkout, place, config)
                if number:
                    found[name].append(figures)
                    print(f"run {number} of {options.runs}, {name}: {figures['seconds']:.1f} s", file=sys.stderr)
    table = Table(
        "median of", *(f"{name} (lowest-highest)" for name in checkouts), title=f"qcrd distill {options.config}"
    )
    for figure in found["this checkout"][0]:
        values = [[run[figure] for run in runs] for runs in found.values()]
        table.add_row(figure, *(f"{statistics.median(one):.1f} ({min(one):.1f}-{max(one):.1f})" for one in values))
    Console().print(table)


if __name__ == "__main__":
    main()
