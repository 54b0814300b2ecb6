"""Ten million stored samples voted: ours (DuckDB) against the same in polars and in pandas.

    python -m benchmarks.votes                      # 10 million samples, 3 runs of each, in turn
    python -m benchmarks.votes --samples 1000000 --runs 1

Every run is a process of its own that reads the same Parquet files and writes a Parquet file with the same columns;
the figures are wall seconds from its start to its end without imports, and the peak of its resident memory. The
winners are compared before anything is printed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from storage.datasets.registry import get_dataset
from storage.ids import ALPHABET, LENGTH
from storage.schemas import EXAMPLES, RATIONALES, VOTES
from storage.store import Store, now
from storage.votes import VoteRule, vote

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


def run_one(way: str, root: Path, result: Path) -> None:
    """Runs in a process of its own; prints seconds and MiB as JSON."""
    run = WAYS[way](root, result)
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    sys.stdout.write(json.dumps({"seconds": seconds, "mib": peak_mib()}) + "\n")


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments.one, arguments.root, arguments.result)
        return
    console = Console()
    with TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        console.print(f"storing {arguments.samples:,} samples ...")
        fill(root, arguments.samples)
        figures: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        expected = None
        for number in range(arguments.runs):
            for way in WAYS:
                result = Path(folder) / f"{way}.parquet"
                for part in Store(root).parts(VOTES):  # ours would find nothing to change the second time
                    (root / part).unlink()
                command = [sys.executable, "-m", "benchmarks.votes", "--one", way]
                command += ["--root", str(root), "--result", str(result)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    console.print(f"{way} failed: {done.stderr.strip().splitlines()[-1]}")
                    continue
                figures[way].append(json.loads(done.stdout))
                console.print(f"run {number + 1}: {way} {figures[way][-1]}")
                got = winners(root / "votes" if way == "qcrd" else result)
                expected = got if expected is None else expected
                if not got.equals(expected):
                    raise SystemExit(f"{way} has other winners than the rest")
        table = Table("", "seconds (median)", "peak MiB (median)", "times ours", box=None)
        ours = statistics.median(run["seconds"] for run in figures["qcrd"])
        for way, runs in figures.items():
            if not runs:
                table.add_row(way, "failed", "", "")
                continue
            seconds = statistics.median(run["seconds"] for run in runs)
            mib = statistics.median(run["mib"] for run in runs)
            table.add_row(way, f"{seconds:.1f}", f"{mib:,.0f}", f"{seconds / ours:.2f}")
        console.print(table)


if __name__ == "__main__":
    main()
