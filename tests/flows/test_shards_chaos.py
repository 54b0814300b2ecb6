"""Shards under fire: workers, shards, whole machines and the object store are killed with -9 at random moments, twenty
times in all; and a vLLM server is killed in the middle of its shard."""

import asyncio
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest
from aiohttp import web

from storage.store import Store
from tests.conftest import ROOT, qcrd_command
from tests.deploy.services import Services, answers, free_port
from tests.flows.own_data import family, write_own_data
from tests.flows.test_shards import SAMPLES, adds_up, configure, teacher
from tests.models.endpoint import Endpoint

pytestmark = pytest.mark.slow

SEED, KILLS, WORKERS, SHARDS, QUESTIONS = 14, 20, 4, 6, 240
KINDS = {"shard": 7, "worker": 4, "machine": 4, "objects": 5}
"""What is killed, and how often: a shard's process; a worker, whose shard goes on; a worker with all below it; the
object store's server, which starts again with what it has stored."""
PAUSE_S = 0.5, 3.0
AWAY_S = 0.0, 0.0, 9.0
"""How long the object store may be away; its client itself waits for six seconds."""
BUCKET = "bucket"
# A machine that dies is noticed when its shard has told nothing for so long; this test has no 90 seconds for each.
IMPATIENT = """
from prefect.client.schemas.objects import StateType
import flows.shards
import flows.sharing
flows.shards.SAMPLES_A_RUN = 150  # so that votes are in shards, too
flows.sharing.LOST_AFTER_S |= {StateType.RUNNING: 15.0, StateType.PENDING: 30.0}
from flows.cli import main
main()
"""


class Site:
    """A Prefect server, an object store and workers, each a process that can be killed and starts again.

    Args:
        folder: for logs and state.
        database: a new one of Prefect's.
    """

    def __init__(self, folder: Path, database: Path, stack: ExitStack) -> None:
        port, self._objects_port = free_port(), free_port()
        (folder / "prefect").mkdir()
        shutil.copyfile(database, folder / "prefect" / database.name)
        self.folder = folder
        self.env = {
            **os.environ,
            "PYTHONPATH": str(ROOT), "QCRD_CODE": str(folder), "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "PREFECT_SERVER_API_PORT": str(port),
            "PREFECT_WORKER_QUERY_SECONDS": "1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "QCRD_STORE": f"s3://{BUCKET}/store?endpoint_override=127.0.0.1:{self._objects_port}&scheme=http"
            "&region=us-east-1",
        }  # fmt: skip
        self._services = stack.enter_context(Services(folder, self.env))
        self.start("objects")
        prefect = [sys.executable, "-m", "prefect"]
        self._services.start("prefect", *prefect, "server", "start", "--host", "127.0.0.1", "--port", port)
        self._services.wait("prefect", lambda: answers(f"{self.env['PREFECT_API_URL']}/health"))
        self._services.run(*prefect, "work-pool", "create", "qcrd-shards-process", "--type", "process")
        deploy = ["--no-prompt", "deploy", "--prefect-file", ROOT / "deploy" / "shards.yaml", "--name", "process"]
        self._services.run(*prefect, *deploy, cwd=ROOT)
        for number in range(WORKERS):
            self.start(f"worker-{number}")

    def start(self, name: str) -> None:
        """Starts the object store or a worker."""
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "qcrd-shards-process",
                   "--limit", "1", "--name", name, "--install-policy", "never"]  # fmt: skip
        if name == "objects":
            command = [sys.executable, "-m", "tests.object_server", str(self.folder / "objects"),
                       str(self._objects_port), BUCKET]  # fmt: skip
        self._services.start(name, *command)
        if name == "objects":
            self._services.wait(name, lambda: answers(f"http://127.0.0.1:{self._objects_port}/moto-api/"))

    def kill(self, name: str, *, below: bool = False, away_s: float = 0.0) -> None:
        """Kills a service, alone or with all below it, and starts it again."""
        below_it = family(self._services.pid(name))[1:]
        self._services.kill(name)
        for process in below_it if below else []:
            process.kill()
        time.sleep(away_s)
        self.start(name)

    def shards(self) -> list[psutil.Process]:
        """The processes of shards, also those whose worker is gone."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("PREFECT_HOME") == self.env["PREFECT_HOME"]
                if ours and process.cmdline()[-1:] == ["prefect.engine"]:
                    found.append(process)
            except psutil.Error:
                continue
        return found


@pytest.fixture
def site(tmp_path: Path, prefect_database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.chdir(tmp_path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with ExitStack() as stack:
        site = Site(tmp_path, prefect_database, stack)
        stack.callback(lambda: [process.kill() for process in site.shards()])
        yield site


def stored(store: str | Path) -> list[list[dict[str, Any]]]:
    return [Store(store).query(sql).to_pylist() for sql in SAMPLES]


def test_every_sample_once_whatever_is_killed(site: Site) -> None:
    write_own_data(site.folder, QUESTIONS)
    quiet, asked = threading.Event(), Counter[int]()

    async def slow(served: Endpoint, body: dict[str, Any]) -> web.StreamResponse:
        """Takes a while as long as there are kills to come; the last questions wait for them."""
        asked[body["seed"]] += 1
        while not quiet.is_set() and len(asked) > 0.9 * QUESTIONS:
            await asyncio.sleep(0.2)
        await asyncio.sleep(0.0 if quiet.is_set() else 1.0)
        return await adds_up(served, body)

    with teacher() as served:
        configure(served, shards=1)
        calm = subprocess.run(qcrd_command(Path("calm"), "distill", "small.yaml"), capture_output=True, check=False)
        assert calm.returncode == 0, calm.stderr
    luck = random.Random(SEED)
    kinds = luck.sample(list(KINDS), counts=KINDS.values(), k=KILLS)
    with teacher(slow) as served:
        configure(served, shards=SHARDS, more=", shards_on: process")
        command = [sys.executable, "-c", IMPATIENT, "distill", "small.yaml", "--home", "home"]
        with (site.folder / "run.log").open("wb") as log, subprocess.Popen(command, env=site.env, stderr=log) as run:
            while len(asked) < 4:
                assert run.poll() is None, (site.folder / "run.log").read_text()
                time.sleep(0.1)
            for kind in kinds:
                time.sleep(luck.uniform(*PAUSE_S))
                assert run.poll() is None, (site.folder / "run.log").read_text()
                if kind == "shard":
                    while not (shards := site.shards()):
                        time.sleep(0.1)
                    luck.choice(shards).kill()
                elif kind == "objects":
                    site.kill(kind, away_s=luck.choice(AWAY_S))
                else:
                    site.kill(f"worker-{luck.randrange(WORKERS)}", below=kind == "machine")
            quiet.set()
            assert run.wait(timeout=300) == 0, (site.folder / "run.log").read_text()
    told = (site.folder / "run.log").read_text()
    assert "is started again" in told
    assert "it is lost" in told
    samples, votes = stored(site.env["QCRD_STORE"])
    assert (samples, votes) == tuple(stored("calm/store"))
    assert Counter((row["example_id"], row["sample_index"]) for row in samples).most_common(1)[0][1] == 1
    assert len(samples) == 3 * QUESTIONS
    assert len(asked) == QUESTIONS
