"""Keys and passwords are planted, `qcrd distill` runs with a teacher that gives its key away, and then everything that
was written or printed is searched for them."""

import asyncio
import base64
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from storage.store import Store
from tests.conftest import Qcrd, figures
from tests.models.endpoint import Endpoint, good, serving
from tests.planted import places_of

pytestmark = pytest.mark.slow

QUESTIONS = 24
CONFIG = """
dataset: {name: sums.yaml, validation_split: null, test_split: null}
teacher: {model: lab, url: "URL", n: 2, retries: 2, api: chat}
student:
  model: new
  new: {hidden: 16, layers: 1, heads: 2, intermediate: 24, vocab_size: 300}
  max_input_tokens: 80
  max_target_tokens: 40
negatives: {lag: 1, max_tokens: 8}
discriminator: {pretrain_steps: 2, update_steps: 2, batch_size: 4}
optimisation: {batch_size: 4, device: cpu}
rounds: {rounds: 1, epochs_per_round: 1, answer_tokens: 4, threads: 1}
"""
DATASET = """
name: sums
answers: number
question: "{body}"
fields: {label: total}
splits: {train: train.jsonl}
instruction: Add up. Finish with "So the answer is NUMBER."
"""


def secret(name: str) -> str:
    return f"{name}-Planted-{random.SystemRandom().getrandbits(64):016x}"


@dataclass
class Planted:
    """Every secret, by what it is."""

    teacher: str = field(default_factory=lambda: secret("sk-teacher"))
    block: str = field(default_factory=lambda: secret("sk-block"))
    prefect: str = field(default_factory=lambda: secret("prefect"))
    mlflow: str = field(default_factory=lambda: secret("mlflow"))
    aws: str = field(default_factory=lambda: secret("aws"))
    hub: str = field(default_factory=lambda: secret("hf"))

    def environment(self) -> dict[str, str]:
        return {
            "QCRD_TEACHER_API_KEY": self.teacher,
            "PREFECT_API_AUTH_STRING": f"qcrd:{self.prefect}",
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": self.mlflow,
            "AWS_ACCESS_KEY_ID": "AKIAPLANTED",
            "AWS_SECRET_ACCESS_KEY": self.aws,
            "HF_TOKEN": self.hub,
            # As talkative as it gets.
            "PREFECT_LOGGING_LEVEL": "DEBUG",
            "PREFECT_LOGGING_EXTRA_LOGGERS": "models,tasks,openai,httpx2,aiohttp,urllib3,mlflow",
        }

    def found(self, folder: Path, printed: str) -> dict[str, list[str]]:
        """Which of them the files of a folder hold, and a text, which becomes one of them."""
        (folder / "printed.txt").write_text(printed, encoding="utf-8")
        return places_of(vars(self), folder)


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planted:
    """The secrets; the working directory holds a dataset."""
    rows = [{"body": f"Ann has {a} nuts and gets {a + 1}. How many?", "total": 2 * a + 1} for a in range(QUESTIONS)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "sums.yaml").write_text(DATASET, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return Planted()


def gives_away(status: int) -> Any:
    """An error whose body repeats the key, in every way that was ever seen."""

    async def answer(endpoint: Endpoint, _: dict[str, Any]) -> web.StreamResponse:
        key = endpoint.keys[-1]
        bare = key.removeprefix("Bearer ")
        said = f"bad header {key!r}, key {bare}, {base64.b64encode(bare.encode()).decode()}"
        return web.json_response({"error": {"message": said, "code": bare}}, status=status, headers={"X-Key": bare})

    return answer


async def adds_up(_: Endpoint, body: dict[str, Any]) -> web.StreamResponse:
    """A teacher that is right, and sometimes not."""
    reply = good(body)
    words = body["messages"][-1]["content"].split()
    a = int(words[words.index("nuts") - 1])
    for choice in reply["choices"]:
        total = 2 * a + 1 + (choice["index"] == 1 and a % 3 == 0)
        choice["message"]["content"] = f"{a} + {a + 1} = {total}. So the answer is {total}."
    return web.json_response(reply)


@contextmanager
def endpoint(*script: Any) -> Iterator[Endpoint]:
    """An endpoint that serves from a thread, so that a `qcrd` process may ask it."""
    up, ready = threading.Event(), []
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        async with serving(*script) as served:
            ready.append(served)
            up.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert up.wait(timeout=30)
        yield ready[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(timeout=30)
        loop.close()


def configure(url: str, **teacher: str) -> None:
    more = "".join(f", {key}: {value}" for key, value in teacher.items())
    Path("small.yaml").write_text(CONFIG.replace('"URL"', f'"{url}"{more}'), encoding="utf-8")


@contextmanager
def locked_servers(folder: Path, planted: Planted) -> Iterator[dict[str, str]]:
    """Prefect's and MLflow's servers, both with a password; yields the variables that lead to them."""
    folder.mkdir()
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    api, tracking = f"http://127.0.0.1:{ports[0]}/api", f"http://127.0.0.1:{ports[1]}"
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\nadmin_username = admin\n"
    )
    settings = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # MLflow starts `uvicorn` by name
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_API_AUTH_STRING": f"qcrd:{planted.prefect}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": planted.mlflow,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secret("flask"),
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/mlflow.db",
    }
    where = ["--host", "127.0.0.1", "--port"]
    commands = {
        "prefect": ["prefect", "server", "start", *where, str(ports[0])],
        "mlflow": ["mlflow", "server", *where, str(ports[1]), "--workers", "1", "--app-name", "basic-auth",
                   "--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")],
    }  # fmt: skip
    running: list[subprocess.Popen[bytes]] = []
    try:
        for name, command in commands.items():
            with (folder / f"{name}.log").open("wb") as log:
                running.append(
                    subprocess.Popen([sys.executable, "-m", *command], cwd=folder, env=settings, stdout=log,
                                     stderr=log, start_new_session=True)
                )  # fmt: skip
        deadline = time.monotonic() + 180
        for address in (f"{api}/health", f"{tracking}/health"):
            while True:
                with suppress(OSError), urllib.request.urlopen(address, timeout=5):  # noqa: S310 - our own
                    break
                logs = [(folder / f"{name}.log").read_text()[-2000:] for name in commands]
                assert all(process.poll() is None for process in running), logs
                assert time.monotonic() < deadline, logs
                time.sleep(0.3)
        yield {"PREFECT_API_URL": api, "MLFLOW_TRACKING_URI": tracking}
    finally:
        for process in running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def last_line(done: "subprocess.CompletedProcess[str]") -> str:
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_a_key_from_a_secret_block_that_the_endpoint_gives_away_is_nowhere(
    planted: Planted, tmp_path: Path, home: Path, qcrd: Qcrd
) -> None:
    environment = planted.environment()
    with endpoint(gives_away(500), gives_away(401)) as teacher:
        configure(teacher.url, key_secret="endpoint-key", in_flight="1")  # pragma: allowlist secret
        unknown = qcrd("distill", "small.yaml", code=2, **environment)
        assert last_line(unknown).startswith(
            "qcrd: teacher.key_secret: Prefect knows no Secret block 'endpoint-key'. Make it on Prefect's pages "
            "(`qcrd ui`, or the server's own: Blocks, +, Secret), or in Python"
        )
        subprocess.run(
            [sys.executable, "-c", "import os, sys\nfrom flows.prefect.embedded import prepare_prefect\n"
             "from pathlib import Path\nprepare_prefect(Path(sys.argv[1]))\nfrom prefect.blocks.system import Secret\n"
             "Secret(value=os.environ['PLANTED']).save('endpoint-key')", str(home)],
            env={**os.environ, "PLANTED": planted.block}, check=True, capture_output=True,
        )  # fmt: skip
        refused = qcrd("distill", "small.yaml", "--json", code=2, **environment)
    assert teacher.keys == [f"Bearer {planted.block}"] * 2, "the block's, not the environment's"
    assert last_line(refused).startswith(f"qcrd: {teacher.url} refused the API key (401): bad header 'Bearer ***', ")
    assert last_line(refused).endswith(" - put a key it accepts into Prefect's Secret block 'endpoint-key'")
    printed = "".join(done.stdout + done.stderr for done in (unknown, refused))
    assert (home / "prefect" / "prefect.db").is_file()
    assert planted.found(tmp_path, printed) == {}


def test_passwords_of_servers_open_them_and_are_nowhere(
    planted: Planted, tmp_path: Path, home: Path, qcrd: Qcrd
) -> None:
    right = planted.environment()
    printed = ""
    with (
        locked_servers(tmp_path / "servers", planted) as addresses,
        endpoint(gives_away(500), gives_away(429), *[adds_up] * QUESTIONS) as teacher,
    ):
        configure(teacher.url)
        wrong = {
            "PREFECT_API_AUTH_STRING": ("qcrd:wrong", "Prefect's server at {} asks who this is (401): set "
             "PREFECT_API_AUTH_STRING to its USER:PASSWORD, or PREFECT_API_KEY to a key of Prefect Cloud."),
            "MLFLOW_TRACKING_PASSWORD": ("wrong", "MLflow's server at {} does not let us in (401): set "
             "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN) to what it accepts."),
        }  # fmt: skip
        for (name, (value, line)), address in zip(wrong.items(), addresses.values(), strict=True):
            done = qcrd("distill", "small.yaml", code=2, **{**addresses, **right, name: value})
            assert last_line(done) == f"qcrd: {line.format(address)}"
            printed += done.stdout + done.stderr
        assert teacher.keys == [], "nothing was paid for"

        trained = qcrd("distill", "small.yaml", "--json", **addresses, **right)
        assert set(teacher.keys) == {f"Bearer {planted.teacher}"}
        [method] = figures(trained)["methods"]
        assert method["mlflow_url"].startswith(addresses["MLFLOW_TRACKING_URI"])
        printed += trained.stdout + trained.stderr
        assert (
            figures(trained)["run_id"] in Store(home / "store").query("SELECT run_id FROM runs")["run_id"].to_pylist()
        )
    stored = [path.name for path in (tmp_path / "servers" / "artifacts").rglob("*") if path.is_file()]
    assert {"config.yaml", "MLmodel", "model.safetensors", "served_model.py"} <= set(stored)
    assert not [name for name in stored if name.endswith((".pkl", ".pickle", ".bin", ".pt", ".pth"))]
    assert (tmp_path / "servers" / "prefect" / "prefect.db").stat().st_size > 100_000
    assert planted.found(tmp_path, printed) == {}
