"""Millions of stored samples voted: ours (DuckDB) against the same in polars and in pandas.

    python -m benchmarks.votes                      # 10 million samples, 3 runs of each, in turn
    python -m benchmarks.votes --samples 1000000 --runs 1
    python -m benchmarks.votes --samples 1000000 10000000 100000000 --runs 1 --ways qcrd polars --plot votes.svg
    python -m benchmarks.votes --samples 1000000 10000000 --ways qcrd --shards 4       # as workers share it

Every run is a process of its own that reads the same Parquet files and writes a Parquet file with the same columns;
the figures are wall seconds from its start to its end without imports, its CPU seconds, and the peak of its resident
memory. A process that holds more than --memory GB is ended, so that the machine never swaps, and its way left out from
there on. With --shards, ours also runs in so many processes, two at a time: then seconds are from the first one's start
to the last one's end, imports with them, CPU seconds those of all, and memory that of the largest. The winners are
compared before anything is printed. The samples are generated, 36 bytes each on the disk (their texts are all alike),
and removed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from storage.datasets.registry import get_dataset
from storage.ids import ALPHABET, LENGTH
from storage.schemas import EXAMPLES, RATIONALES, VOTES
from storage.shards import Shard
from storage.store import Store, now
from storage.votes import VoteRule, vote, vote_on_split

PER_EXAMPLE = 5
EXAMPLES_A_PART = 100_000
COLUMNS = ["sample_id", "example_id", "sample_index", "answer", "rationale_hash", "logprob"]


def fill(root: Path, samples: int) -> None:
    """Stores random samples: 5 a question, two in three right, one in fifty unparsed, one in ten with a text that
    another sample of its question has too."""
    rng = np.random.default_rng(0)
    store = Store(root)
    letters = np.frombuffer(ALPHABET.encode(), dtype=np.uint8)

    def ids(count: int) -> pa.Array:
        characters = letters[rng.integers(0, len(ALPHABET), size=(count, LENGTH))]
        offsets = np.arange(0, LENGTH * (count + 1), LENGTH, dtype=np.int32)
        return pa.Array.from_buffers(
            pa.utf8(), count, [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(characters.tobytes())]
        )

    def constant(value: Any, count: int, kind: pa.DataType) -> pa.Array:
        return pa.repeat(pa.scalar(value, kind), count)

    left = samples // PER_EXAMPLE
    while left > 0:
        questions = min(left, EXAMPLES_A_PART)
        left -= questions
        count = questions * PER_EXAMPLE
        example_ids = ids(questions)
        gold = rng.integers(0, 200, questions)
        right = rng.random(count) < 0.67
        answers = np.where(right, np.repeat(gold, PER_EXAMPLE), rng.integers(0, 200, count)).astype(str)
        hashes = rng.integers(-(2**62), 2**62, count)
        again = (rng.random(count) < 0.1) & (np.arange(count) % PER_EXAMPLE > 0)
        hashes[again] = hashes[np.flatnonzero(again) - 1]
        given = {
            "sample_id": ids(count),
            "example_id": example_ids.take(pa.array(np.repeat(np.arange(questions), PER_EXAMPLE))),
            "sample_index": pa.array(np.tile(np.arange(PER_EXAMPLE, dtype=np.int32), questions)),
            "answer": pa.array(answers, mask=rng.random(count) < 0.02),
            "rationale_hash": pa.array(hashes),
            "logprob": pa.array(-rng.random(count)),
        }
        texts = pa.array([f"First there are {n % 97}, then {n % 89} more; in all {n % 1009}." for n in range(count)])
        words = {"dataset": "svamp", "split": "train", "source": "teacher", "model": "made-up", "created_at": now()}
        columns = [
            given.get(field.name)
            if field.name in given
            else texts
            if field.name in ("text", "rationale")
            else constant(words.get(field.name), count, field.type)
            for field in RATIONALES.schema
        ]
        store.append(RATIONALES, pa.table(columns, RATIONALES.schema))
        known = {"example_id": example_ids, "label": pa.array(gold.astype(str))}
        words = {"dataset": "svamp", "split": "train", "question": "q", "choices": [], "extra": "{}"}
        rows = [
            known[field.name]
            if field.name in known
            else constant(now() if field.name == "created_at" else words[field.name], questions, field.type)
            for field in EXAMPLES.schema
        ]
        store.append(EXAMPLES, pa.table(rows, EXAMPLES.schema))


def with_ours(root: Path, _: Path) -> Callable[[], object]:
    dataset, rule = get_dataset("svamp"), VoteRule(dataset="svamp")
    return lambda: vote(Store(root), dataset, rule)


def with_polars(root: Path, result: Path) -> Callable[[], object]:
    import polars as pl

    def run() -> None:
        samples = pl.scan_parquet(f"{root}/rationales/**/*.parquet").select(COLUMNS)
        labels = pl.scan_parquet(f"{root}/examples/**/*.parquet").select("example_id", "label")
        texts = samples.group_by("example_id", "answer", "rationale_hash").agg(
            count=pl.len(),
            sample_id=pl.col("sample_id").min(),
            first_index=pl.col("sample_index").min(),
            logprob=pl.col("logprob").sum(),
        )
        answers = texts.group_by("example_id", "answer").agg(
            votes=pl.col("count").sum(),
            first_index=pl.col("first_index").min(),
            logprob=pl.col("logprob").sum() / pl.col("count").sum(),
        )
        parsed = pl.col("answer").is_not_null()
        ranked = answers.join(labels, on="example_id", how="left").sort(
            ["votes", "logprob", "first_index"], descending=[True, True, False]
        )
        winners = ranked.group_by("example_id", maintain_order=True).agg(
            winner=pl.col("answer").filter(parsed).first(),
            n_sampled=pl.col("votes").sum(),
            n_parsed=pl.col("votes").filter(parsed).sum(),
            n_votes=pl.col("votes").filter(parsed).first(),
            share=pl.col("votes").filter(parsed).first() / pl.col("votes").filter(parsed).sum(),
            entropy=pl.col("votes").filter(parsed).entropy(),
            tie=(pl.col("votes").filter(parsed) == pl.col("votes").filter(parsed).max()).sum() > 1,
            correct=(pl.col("answer") == pl.col("label")).filter(parsed).first(),
            n_correct=pl.col("votes").filter(pl.col("answer") == pl.col("label")).sum(),
        )
        won = pl.col("answer") == pl.col("winner")
        targets = (
            texts.filter(parsed)
            .join(winners.select("example_id", "winner"), on="example_id")
            .group_by("example_id", "rationale_hash")
            .agg(
                is_positive=won.any(),
                sample_id=pl.when(won.any())
                .then(pl.col("sample_id").filter(won).min())
                .otherwise(pl.col("sample_id").min()),
                count=pl.when(won.any()).then(pl.col("count").filter(won).sum()).otherwise(pl.col("count").sum()),
            )
        )
        target = pl.struct("sample_id", "count")
        lists = targets.group_by("example_id").agg(
            positives=target.filter(pl.col("is_positive")), negatives=target.filter(~pl.col("is_positive"))
        )
        votes = winners.join(lists, on="example_id", how="left")
        votes.sink_parquet(result, engine="streaming")

    return run


def with_pandas(root: Path, result: Path) -> Callable[[], object]:
    import pandas as pd

    def run() -> None:
        samples = pd.read_parquet(root / "rationales", columns=COLUMNS, dtype_backend="pyarrow", partitioning=None)
        labels = pd.read_parquet(
            root / "examples", columns=["example_id", "label"], dtype_backend="pyarrow", partitioning=None
        )
        texts = (
            samples.groupby(["example_id", "answer", "rationale_hash"], dropna=False, sort=False)
            .agg(
                count=("sample_id", "size"),
                sample_id=("sample_id", "min"),
                first_index=("sample_index", "min"),
                logprob=("logprob", "sum"),
            )
            .reset_index()
        )
        del samples
        answers = (
            texts.groupby(["example_id", "answer"], dropna=False, sort=False)
            .agg(votes=("count", "sum"), first_index=("first_index", "min"), logprob=("logprob", "sum"))
            .reset_index()
        )
        answers["logprob"] /= answers["votes"]
        sampled = answers.groupby("example_id", sort=False)["votes"].sum().rename("n_sampled")
        parsed = answers[answers["answer"].notna()].sort_values(
            ["votes", "logprob", "first_index"], ascending=[False, False, True]
        )
        del answers
        parsed = parsed.merge(labels, on="example_id", how="left")
        parsed["right"] = parsed["votes"].where(parsed["answer"] == parsed["label"], 0)
        groups = parsed.groupby("example_id", sort=False)
        share = (parsed["votes"] / groups["votes"].transform("sum")).astype("float64")
        parsed["information"] = -share * np.log(share)
        parsed["at_top"] = parsed["votes"] == groups["votes"].transform("max")
        votes = parsed.drop_duplicates("example_id").set_index("example_id")[["answer", "votes", "label"]]
        votes.columns = pd.Index(["winner", "n_votes", "label"])
        votes["correct"] = votes["winner"] == votes["label"]
        sums = groups.agg(
            n_parsed=("votes", "sum"),
            entropy=("information", "sum"),
            top=("at_top", "sum"),
            n_correct=("right", "sum"),
        )
        del parsed, groups
        votes = votes.join(sums).join(sampled, how="right")
        votes["share"] = votes["n_votes"] / votes["n_parsed"]
        votes["tie"] = votes["top"] > 1
        texts = texts[texts["answer"].notna()].merge(votes["winner"], left_on="example_id", right_index=True)
        texts["won"] = texts["answer"] == texts["winner"]
        text = ["example_id", "rationale_hash"]
        texts["positive"] = texts.groupby(text, sort=False)["won"].transform("any")
        kept = texts[texts["won"] | ~texts["positive"]]  # a text the winner was drawn from is no negative
        targets = kept.groupby([*text, "positive"], sort=False).agg(
            sample_id=("sample_id", "min"), count=("count", "sum")
        )
        targets = targets.reset_index()
        del texts, kept
        for side, chosen in (("positive", targets[targets["positive"]]), ("negative", targets[~targets["positive"]])):
            lists = chosen.groupby("example_id", sort=False).agg(ids=("sample_id", list), counts=("count", list))
            lists.columns = pd.Index([f"{side}s", f"{side}_counts"])
            votes = votes.join(lists)
        votes.reset_index().to_parquet(result)

    return run


WAYS = {"qcrd": with_ours, "polars": with_polars, "pandas": with_pandas}
SHARDED, AT_ONCE = "qcrd in shards", 2


def shard_of(root: Path, shard: Shard) -> Callable[[], object]:
    dataset, rule = get_dataset("svamp"), VoteRule(dataset="svamp")
    return lambda: vote_on_split(Store(root), dataset, rule, "train", shard)


def run_one(way: str, root: Path, result: Path, shard: Shard | None) -> None:
    """Runs in a process of its own; prints seconds and MiB as JSON."""
    run = shard_of(root, shard) if shard else WAYS[way](root, result)
    start, used = time.perf_counter(), time.process_time()
    run()
    seconds, cpu = time.perf_counter() - start, time.process_time() - used
    sys.stdout.write(json.dumps({"seconds": seconds, "cpu": cpu, "mib": peak_mib()}) + "\n")


def watched(command: list[str], most: int) -> dict[str, float] | str:
    """The figures of a process, or why it has none: it failed, or held more than so many bytes."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        seen = psutil.Process(process.pid)
        while process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                if seen.memory_info().rss > most:
                    process.kill()
                    return f"more than {most / 1e9:g} GB"
            time.sleep(0.1)
        told, errors = process.communicate()
    if process.returncode:
        return f"failed: {errors.strip().splitlines()[-1]}"
    figures: dict[str, float] = json.loads(told)
    return figures


def in_shards(command: list[str], shards: int, most: int, console: Console) -> dict[str, float] | str:
    """The figures of all shards together, or why one of them has none."""
    commands = [[*command, "--shard", str(shard.number), str(shard.of)] for shard in Shard.all(shards)]
    start = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda command: watched(command, most), commands))
    seconds = time.perf_counter() - start
    for one in found:
        console.print(f"    a shard: {one}")
        if isinstance(one, str):
            return one
    each = [one for one in found if not isinstance(one, str)]
    return {"seconds": seconds, "cpu": sum(one["cpu"] for one in each), "mib": max(one["mib"] for one in each)}


def peak_mib() -> float:
    """The peak of this process's resident memory. Not getrusage's: that one begins with the parent's."""
    status = Path("/proc/self/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024  # kB


def winners(path: Path) -> pa.Table:
    """(example_id, winner, n_votes) of a result, sorted."""
    table = pq.read_table(path, columns=["example_id", "winner", "n_votes"], partitioning=None)
    table = table.cast(pa.schema([("example_id", pa.string()), ("winner", pa.string()), ("n_votes", pa.int64())]))
    return table.filter(pa.compute.is_valid(table["winner"])).sort_by("example_id")


Figures = dict[str, list[dict[str, float]]]
"""Of each way, those of its runs."""


def measured(samples: int, ways: list[str], runs: int, most: int, console: Console, shards: int = 0) -> Figures:
    """Each way's runs on so many generated samples; none for one that failed or held more than `most` bytes.

    Args:
        shards: of the way SHARDED.
    """
    figures: Figures = {way: [] for way in ways}
    failed: set[str] = set()
    with TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        console.print(f"storing {samples:,} samples ...")
        fill(root, samples)
        expected = None
        for number in range(runs):
            for way in ways:
                if way in failed:
                    continue
                result = Path(folder) / f"{way}.parquet"
                for part in Store(root).parts(VOTES):  # ours would find nothing to change the second time
                    (root / part).unlink()
                command = [sys.executable, "-m", "benchmarks.votes", "--root", str(root), "--result", str(result)]
                if way == SHARDED:
                    found = in_shards([*command, "--one", "qcrd"], shards, most, console)
                else:
                    found = watched([*command, "--one", way], most)
                console.print(f"run {number + 1}: {way} {found}")
                if isinstance(found, str):
                    failed.add(way)
                    figures[way] = []
                    continue
                figures[way].append(found)
                if len(ways) == 1:
                    continue
                got = winners(root / "votes" if way in ("qcrd", SHARDED) else result)
                expected = got if expected is None else expected
                if not got.equals(expected):
                    raise SystemExit(f"{way} has other winners than the rest")
    return figures


def plot(medians: dict[str, dict[int, dict[str, float]]], file: Path) -> None:
    """CPU seconds and peak memory by samples, a line a way."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.5))
    for panel, name, title in zip(panels, ("cpu", "mib"), ("CPU seconds", "Peak memory, MiB"), strict=True):
        for way, found in medians.items():
            panel.plot(list(found), [one[name] for one in found.values()], marker="o", label=way)
        panel.set(xscale="log", yscale="log", xlabel="Samples", title=title)
        panel.grid(alpha=0.3)
        panel.legend()
    figure.tight_layout()
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[10_000_000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--memory", type=float, default=16, help="GB that a process may hold")
    parser.add_argument("--shards", type=int, default=0, help="also run ours in so many processes, two at a time")
    parser.add_argument("--plot", type=Path, help="write a plot to this file")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--shard", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        shard = Shard(number=arguments.shard[0], of=arguments.shard[1]) if arguments.shard else None
        run_one(arguments.one, arguments.root, arguments.result, shard)
        return
    console = Console()
    table = Table("", "samples", "seconds (median)", "CPU seconds", "peak MiB", "times the first", box=None)
    every_way = [*arguments.ways, SHARDED] if arguments.shards else list(arguments.ways)
    ways = list(every_way)
    medians: dict[str, dict[int, dict[str, float]]] = {way: {} for way in ways}
    for samples in sorted(arguments.samples):
        figures = measured(samples, ways, arguments.runs, int(arguments.memory * 1e9), console, arguments.shards)
        for way in every_way:
            if not figures.get(way):
                table.add_row(way, f"{samples:,}", "none")
                continue
            found = {name: statistics.median(run[name] for run in figures[way]) for name in ("seconds", "cpu", "mib")}
            medians[way][samples] = found
            times = found["seconds"] / medians[ways[0]][samples]["seconds"]
            table.add_row(
                way, f"{samples:,}", f"{found['seconds']:.1f}", f"{found['cpu']:.1f}", f"{found['mib']:,.0f}",
                f"{times:.2f}",
            )  # fmt: skip
        ways = [way for way in ways if figures[way]]
    console.print(table)
    if arguments.plot:
        plot(medians, arguments.plot)


if __name__ == "__main__":
    main()
