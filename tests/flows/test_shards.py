"""A teacher sampled in shards: the store is that of one run, whatever happens to the shards on the way."""

import asyncio
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from hashlib import md5
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest
from aiohttp import web
from prefect import flow
from prefect.client.orchestration import get_client

from flows.prefect.workers import own_workers
from flows.shards import sample_shard, vote_in_shards
from storage.datasets.registry import get_dataset
from storage.ids import example_id
from storage.store import Store
from storage.vote_summary import VoteSummary
from storage.votes import VoteRule, vote
from tasks.questions.sets import DatasetConfig
from tasks.running.workspace import Workspace
from tasks.teacher.settings import TeacherSettings
from tests.conftest import qcrd_command
from tests.flows.own_data import SHORT_TRAINING, family, still_running, write_own_data
from tests.flows.prefect_server import prefect_server
from tests.flows.test_planted_secret import endpoint
from tests.models.endpoint import Endpoint, good
from tests.storage.test_many_votes import few, voted

CONFIG = (
    """
dataset: {name: sums.yaml, validation_split: null}
teacher: {url: URL, model: big, n: 3, in_flight: 2, split_s: SPLIT, shards: SHARDS}
method: {name: finetune}
registry: {register_model: false}
"""
    + SHORT_TRAINING
)
SAMPLES = (
    "SELECT * EXCLUDE (created_at, run_id) FROM rationales ORDER BY sample_id",
    "SELECT * EXCLUDE (created_at) FROM votes ORDER BY example_id",
)


@pytest.fixture
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """60 questions for training, 10 for test; the working directory."""
    write_own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def adds_up(_: Endpoint, body: dict[str, Any]) -> web.StreamResponse:
    """A teacher that is right, except in its second sample of some questions."""
    a, b = map(int, re.findall(r"(\d+) nuts and gets (\d+)", body["messages"][-1]["content"])[-1])
    reply = good(body)
    for choice in reply["choices"]:
        total = a + b + (choice["index"] == 1 and a % 3 == 0)
        choice["message"]["content"] = f"{a} + {b} = {total}. So the answer is {total}."
    return web.json_response(reply)


async def never(_: Endpoint, __: dict[str, Any]) -> web.StreamResponse:
    """Hangs until whoever asked is gone."""
    await asyncio.sleep(3600)
    raise AssertionError


async def no_key(_: Endpoint, __: dict[str, Any]) -> web.StreamResponse:
    return web.json_response({"error": {"message": "Invalid API key"}}, status=401)


@contextmanager
def teacher(answer: Callable[..., Any] = adds_up) -> Iterator[Endpoint]:
    """An endpoint that always answers so."""
    with endpoint(*[answer] * 1000) as served:
        yield served


def configure(served: Endpoint, shards: int, split_s: str = "null", more: str = "") -> None:
    text = CONFIG.replace("URL", f'"{served.url}"').replace("SPLIT", split_s).replace("SHARDS", f"{shards}{more}")
    Path("small.yaml").write_text(text, encoding="utf-8")


def begin(home: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        qcrd_command(home, "distill", "small.yaml"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def shards_below(run: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The processes of shards."""
    return [process for process in family(run.pid) if command_of(process)[-1:] == ["prefect.engine"]]


def command_of(process: psutil.Process) -> list[str]:
    """Its command line; empty once it is gone."""
    try:
        line: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return line


def stored(home: Path) -> list[list[dict[str, Any]]]:
    store = Store(home / "store")
    return [store.query(sql).to_pylist() for sql in SAMPLES]


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_data")]


def test_the_store_is_that_of_one_run_though_a_shard_was_killed() -> None:
    with teacher() as served:
        configure(served, shards=1)
        subprocess.run(qcrd_command(Path("alone"), "distill", "small.yaml"), check=True, capture_output=True)
        assert len(served.bodies) == 60
        asked = len(served.bodies)

        served.script[:] = [adds_up] * 20 + [never] * 2 + [adds_up] * 1000
        configure(served, shards=3)
        with begin(Path("shared")) as run:
            while len(served.bodies) < asked + 24:
                assert run.poll() is None, run.communicate()
                time.sleep(0.1)
            below = family(run.pid)[1:]
            for process in shards_below(run):
                process.send_signal(signal.SIGKILL)
            _, told = run.communicate(timeout=900)
            assert run.returncode == 0, told
        assert "is started again" in told
        assert still_running(below) == [], "the workers end with the run"
    assert stored(Path("shared")) == stored(Path("alone"))
    assert len({body["seed"] for body in served.bodies}) == 60


def test_a_straggler_is_split() -> None:
    """Of two shards one is answered slowly, until it is split: until a question that was under way is asked again."""
    asked: Counter[int] = Counter()

    async def slow_for_one(served: Endpoint, body: dict[str, Any]) -> web.StreamResponse:
        asked[body["seed"]] += 1
        question = re.findall(r"Ann has \d+ nuts and gets \d+. How many\?", body["messages"][-1]["content"])[-1]
        hashed = md5(example_id("sums", "train", question, ()).encode(), usedforsecurity=False).hexdigest()
        if int(hashed[16:24], 16) % 2 == 0 and max(asked.values()) == 1:
            await asyncio.sleep(5)
        return await adds_up(served, body)

    with teacher(slow_for_one) as served:
        configure(served, shards=2, split_s="1.0")
        done = subprocess.run(
            qcrd_command(Path("home"), "distill", "small.yaml"), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert "is split in two" in done.stderr
    [samples, _] = stored(Path("home"))
    assert len({row["sample_id"] for row in samples}) == len(samples) == 180
    assert len(asked) == 60
    assert asked.total() <= 60 + 2, "only what was under way is asked for again"


def test_a_shard_whose_vllm_is_killed_goes_on(tiny_llama: Path) -> None:
    text = CONFIG.replace("url: URL, model: big", f"model: {tiny_llama}, api: completions, max_tokens: 200")
    Path("small.yaml").write_text(text.replace("in_flight: 2, split_s: SPLIT", "in_flight: 1").replace("SHARDS", "2"))
    with begin(Path("home")) as run:
        while not list(Path("home/store/rationales").rglob("*.parquet")):
            assert run.poll() is None, run.communicate()
            time.sleep(0.1)
        servers = [
            process for process in family(run.pid) if "vllm.entrypoints.openai.api_server" in command_of(process)
        ]
        assert servers, "each shard has a server of its own"
        for process in servers:
            process.kill()
        _, told = run.communicate(timeout=900)
        assert run.returncode == 0, told
    [samples, _] = stored(Path("home"))
    assert Counter(row["example_id"] for row in samples).total() == len({row["sample_id"] for row in samples}) == 180


def test_a_teacher_that_refuses_the_key_ends_all_shards_in_one_line() -> None:
    with teacher(no_key) as served:
        configure(served, shards=2)
        done = subprocess.run(
            qcrd_command(Path("home"), "distill", "small.yaml"), capture_output=True, text=True, check=False
        )
    assert done.returncode == 2
    assert "Invalid API key" in done.stderr.splitlines()[-1]
    assert "is started again" not in done.stderr


def test_a_deployment_that_is_not_there_is_named() -> None:
    with teacher() as served:
        configure(served, shards=2, more=", shards_on: nowhere")
        done = subprocess.run(
            qcrd_command(Path("home"), "distill", "small.yaml"), capture_output=True, text=True, check=False
        )
        assert served.bodies == []
    assert done.returncode == 2
    assert "no deployment 'nowhere'" in done.stderr.splitlines()[-1]


# ---- votes ----


def test_votes_in_shards_are_those_of_one_process_though_a_shard_was_killed(
    prefect_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a pool with two workers; and what nobody changed is not stored again."""
    monkeypatch.setattr("flows.shards.SAMPLES_A_RUN", 70)  # 200 samples: three shards, of the four that would sample
    rule, config = VoteRule(dataset="svamp"), DatasetConfig(name="svamp")
    alone = vote(few(tmp_path / "alone" / "store"), get_dataset("svamp"), rule, "train")
    store = few(tmp_path / "home" / "store")
    workspace = Workspace(home=tmp_path / "home", store=store.files.given, run_id="votes")
    settings = TeacherSettings(url="http://127.0.0.1:9/v1", model="m", shards=4, shards_on="machines")

    @flow
    def votes() -> tuple[VoteSummary, VoteSummary]:
        first = vote_in_shards(workspace, rule, config, settings)
        return first, vote_in_shards(workspace, rule, config, settings)

    def kill_one() -> None:
        while not (found := [one for one in family(os.getpid()) if command_of(one)[-1:] == ["prefect.engine"]]):
            time.sleep(0.05)
        found[0].kill()

    (tmp_path / "prefect").mkdir()
    with (
        prefect_server(prefect_database, tmp_path / "prefect"),
        own_workers(sample_shard, "machines", tmp_path / "logs", [(1, {})] * 2),
        ThreadPoolExecutor() as pool,
        get_client(sync_client=True) as client,
    ):
        killed = pool.submit(kill_one)
        first, again = votes()
        killed.result()
        runs = Counter(run.name for run in client.read_flow_runs() if run.name.startswith("votes of shard"))
    assert sorted(runs) == [f"votes of shard {number} of 3" for number in (1, 2, 3)]
    assert runs.total() == 3 + 3 + 1
    assert first == alone
    assert again == replace(alone, added=0, unchanged=40)
    assert voted(store) == voted(Store(tmp_path / "alone" / "store"))
