"""The sampler killed with -9 at 20 random moments, against a real vLLM server; and vLLM itself killed under it."""

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

from models.server import VllmServer
from storage.checking import check_store
from storage.store import Store
from tests.conftest import Qcrd, figures
from tests.warm_start import WarmStart

pytestmark = pytest.mark.slow

QUESTIONS, N, KILLS = 1200, 5, 20


def stored(home: Path) -> set[str]:
    """Ids of the stored samples; each is there once and every file can be read."""
    if not (home / "store").exists():
        return set()
    ids = Store(home / "store").query("SELECT sample_id FROM rationales")["sample_id"].to_pylist()
    assert len(ids) == len(set(ids))
    return set(ids)


def test_killed_20_times_every_sample_is_stored_once(
    home: Path, vllm_server: VllmServer, qcrd: Qcrd, warm_start: WarmStart
) -> None:
    arguments: list[Any] = [
        "sample", "--dataset", "lab", "--limit", QUESTIONS, "--url", vllm_server.base_url, "--model", "tiny",
        "--api", "completions", "--n", N, "--max-tokens", 16,
    ]  # fmt: skip
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed of the moments: {seed}")  # shown where the test fails
    moments = random.Random(seed)
    before: set[str] = set()
    unfinished_kills = 0
    for _ in range(KILLS):
        with warm_start.start(home, *arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as run:
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(timeout=moments.uniform(0.1, 2.5))  # it takes no second until it asks
            unfinished_kills += run.poll() is None
            run.kill()
        after = stored(home)
        assert after >= before  # nothing stored was lost
        before = after
    assert unfinished_kills > KILLS // 2  # most of them hit a process at work
    done = figures(qcrd(*arguments, "--json"))
    assert done["stored_before"] == len(before)
    assert done["stored_before"] + done["sampled"] == QUESTIONS * N
    assert len(stored(home)) == QUESTIONS * N

    store = Store(home / "store")
    per_example = store.query(
        "SELECT example_id, list_sort(list(sample_index)) AS indices FROM rationales GROUP BY ALL ORDER BY ALL"
    )["indices"].to_pylist()
    assert per_example == [list(range(N))] * QUESTIONS
    report = check_store(store, repair=True)
    assert report.damaged == []
    assert report.repeated == {}


def test_vllm_killed_mid_run_is_started_again_and_every_sample_is_stored_once(
    home: Path, tiny_llama: Path, warm_start: WarmStart
) -> None:
    arguments = [
        "sample", "--dataset", "lab", "--limit", 600, "--model", tiny_llama, "--n", N, "--max-tokens", 24,
        "--api", "completions", "--json",
    ]  # fmt: skip
    with warm_start.start(home, *arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        try:
            while not (parts := list((home / "store").glob("rationales/**/*.parquet"))):
                assert run.poll() is None, run.stderr.read() if run.stderr else ""
                time.sleep(0.1)
            family = psutil.Process(run.pid).children(recursive=True)
            servers = [process for process in family if "api_server" in " ".join(process.cmdline())]
            assert servers
            for process in servers:
                if "watchdog" not in " ".join(process.cmdline()):
                    process.send_signal(signal.SIGKILL)
            out, err = run.communicate(timeout=600)
        finally:
            run.kill()
    assert run.returncode == 0, err
    assert parts
    assert f'"sampled": {600 * N}' in out
    assert len(stored(home)) == 600 * N
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
