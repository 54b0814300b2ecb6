"""The votes benchmark at a small size: all three ways run and agree on every winner (it stops where they do not)."""

import subprocess
import sys


def test_all_three_ways_agree() -> None:
    command = [sys.executable, "-m", "benchmarks.votes", "--samples", "20000", "--runs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stdout
    assert "none" not in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()[-3:]] == ["qcrd", "polars", "pandas"]
