"""The whole of deploy/compose.yaml on this machine: its commands and environments, with other addresses."""

import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from models.configs import LabTeacherConfig
from tasks.teacher.lab import build_lab
from tests.deploy import compose
from tests.deploy.services import LOOPBACK, Services, answers, free_port, start_postgres

ROOT = Path(__file__).resolve().parents[2]
# Trained for a fifth of the usual steps, it is right less often; this stack does not care how often.
TEACHER = LabTeacherConfig(steps=150)
BUCKET = "qcrd"
PATIENCE_S = 400  # a quarter of that is usual; other work on the machine makes it longer


@dataclass
class Stack:
    """A running stack.

    Attributes:
        services: its processes.
        home: the worker's state folder.
        teacher: the lab teacher's folder; its endpoint is `teacher_url`.
        prefect: a client of Prefect's API.
        mlflow: MLflow's address; `client_env` has its user.
        client_env: the worker's environment: what any command needs to use the stack.
    """

    services: Services
    home: Path
    teacher: Path
    teacher_url: str
    prefect: httpx.Client
    mlflow: str
    client_env: dict[str, str]

    def api(self, path: str, body: Any = None) -> Any:
        """Asks Prefect's API; POST where there is a body."""
        answer = self.prefect.get(path) if body is None else self.prefect.post(path, json=body)
        answer.raise_for_status()
        return answer.json()

    def command(self, *words: object) -> str:
        """Runs `prefect` or `qcrd` as somebody beside the worker would; returns what it printed."""
        name, *rest = words
        start = [sys.executable, "-m", "prefect", "--no-prompt"]
        if name == "qcrd":
            start = [sys.executable, "-c", "from flows.cli import main; main()"]
        return self.services.run(*start, *rest, env=self.client_env)

    def wait_for(self, path: str, states: set[str]) -> Any:
        """A flow run, once it is in one of the states."""
        deadline = time.monotonic() + PATIENCE_S
        while (run := self.api(path))["state"]["type"] not in states:
            assert time.monotonic() < deadline, f"still {run['state']}:\n{self.services.log('worker').read_text()}"
            time.sleep(1)
        return run


@contextmanager
def running_stack(folder: Path, database: Path) -> Iterator[Stack]:
    """Starts PostgreSQL, the object store, Prefect, MLflow, a teacher and a worker; ends them after the block.

    Args:
        folder: for logs and state.
        database: for PostgreSQL's data; other users may enter it.
    """
    # Told to end, pytest would leave the services behind; interrupted, it ends them.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _started(folder, database) as stack:
            yield stack
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _started(folder: Path, database: Path) -> Iterator[Stack]:
    home, user = folder / "state", folder / "user"
    home.mkdir()
    user.mkdir()
    services = Services(folder, clean_environment(user))
    variables = {name: secrets.token_hex(16) for name in compose.required_variables()}
    variables["QCRD_PREFECT_AUTH"] = f"admin:{secrets.token_hex(16)}"
    ports = {name: free_port() for name in ("objects", "prefect", "mlflow", "teacher", "worker")}
    with services:
        postgres = start_postgres(services, database, variables["QCRD_POSTGRES_PASSWORD"])
        objects = f"http://{LOOPBACK}:{ports['objects']}"
        auth_file = folder / "mlflow-auth.ini"
        told = (ROOT / "deploy" / auth_file.name).read_text(encoding="utf-8")
        auth_file.write_text(told.replace("qcrd@postgres:5432", postgres), encoding="utf-8")
        replaced = {
            "qcrd@postgres:5432": postgres,
            "http://objects:7070": objects,
            "http://prefect:4200": f"http://{LOOPBACK}:{ports['prefect']}",
            "http://127.0.0.1:4200": f"http://{LOOPBACK}:{ports['prefect']}",
            "http://mlflow:5000": f"http://{LOOPBACK}:{ports['mlflow']}",
            "mlflow:5000": f"{LOOPBACK}:{ports['mlflow']}",
            "/app/deploy/mlflow-auth.ini": str(auth_file),
            "0.0.0.0": LOOPBACK,  # noqa: S104 - what the file says; here it is the loopback address
            "4200": str(ports["prefect"]),
            "=5000": f"={ports['mlflow']}",
            "=8000": f"={ports['teacher']}",
        }

        def start(name: str, env: dict[str, str] | None = None) -> dict[str, str]:
            said = compose.service(name, variables, replaced)
            services.start(name, *_installed(said.command), env=said.env | (env or {}))
            return said.env

        services.start("objects", sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", ports["objects"])
        look = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5"}  # for new schedules; every minute otherwise
        start("prefect", {"PREFECT_SERVER_API_PORT": str(ports["prefect"])} | look)
        services.wait("objects", lambda: answers(f"{objects}/moto-api/"))
        bucket = compose.service("bucket", variables, replaced)
        services.run(*_installed(bucket.command), env=bucket.env)
        start("mlflow")
        teacher = build_lab(home, TEACHER).folder  # while the two databases are set up
        variables |= {"QCRD_TEACHER_MODEL": str(teacher), "QCRD_TEACHER_LENGTH": "256"}
        start("teacher")
        services.wait("prefect", lambda: answers(f"http://{LOOPBACK}:{ports['prefect']}/api/health"))
        services.wait("mlflow", lambda: answers(f"http://{LOOPBACK}:{ports['mlflow']}/health"))
        own = {
            "QCRD_CODE": str(ROOT),
            "QCRD_HOME": str(home),
            "PREFECT_LOCAL_STORAGE_PATH": str(home / "prefect" / "storage"),
            "PREFECT_WORKER_WEBSERVER_HOST": LOOPBACK,
            "PREFECT_WORKER_WEBSERVER_PORT": str(ports["worker"]),
        }
        client_env = start("worker", own) | own
        services.wait("worker", lambda: answers(f"http://{LOOPBACK}:{ports['worker']}/health"))
        services.wait("teacher", lambda: answers(f"http://{LOOPBACK}:{ports['teacher']}/health"))
        auth = tuple(variables["QCRD_PREFECT_AUTH"].split(":"))
        with httpx.Client(base_url=client_env["PREFECT_API_URL"], auth=(auth[0], auth[1]), timeout=120) as prefect:
            url = f"http://{LOOPBACK}:{ports['teacher']}/v1"
            yield Stack(services, home, teacher, url, prefect, client_env["MLFLOW_TRACKING_URI"], client_env)


def clean_environment(user: Path) -> dict[str, str]:
    """This process's environment without settings of anybody's servers, and with a home folder of its own."""
    ours = ("PREFECT_", "MLFLOW_", "QCRD_", "AWS_", "PG", "VLLM_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return env | {
        "HOME": str(user),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PREFECT_HOME": str(user / "prefect"),
        "PREFECT_MEMO_STORE_PATH": str(user / "prefect" / "memo_store.toml"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


def figures(printed: str) -> Any:
    """What a command printed with --json."""
    return json.loads(printed)


def _installed(command: list[str]) -> list[str]:
    """The command with this environment's Python; programs are found on the path."""
    return [sys.executable, *command[1:]] if command[0].startswith("python") else command
