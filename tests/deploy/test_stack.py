"""A scheduled distillation through the services of deploy/compose.yaml: the run is killed, retried, and finished."""

import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

from tests.deploy.stack import BUCKET, PATIENCE_S, ROOT, Stack, figures, running_stack

pytestmark = pytest.mark.slow

QUESTIONS, N = 80, 3
TERMINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def configuration(stack: Stack) -> dict[str, Any]:
    """The lab, small, with its teacher behind an address."""
    return {
        "dataset": {"name": "lab", "limit": QUESTIONS, "validation_limit": 20, "test_limit": 20},
        "teacher": {"model": "teacher", "url": stack.teacher_url, "api": "completions", "n": N, "max_tokens": 128},
        "student": {"model": "new", "tokenizer": str(stack.teacher), "max_target_tokens": 96, "dropout": 0.0},
        "negatives": {"lag": 1, "max_tokens": 16},
        "discriminator": {"encoder": "new", "loss": "bce", "pretrain_steps": 10, "update_steps": 4},
        "optimisation": {"device": "cpu", "learning_rate": 1.0e-3, "checkpoint_every_s": 1},
        "rounds": {"rounds": 2, "epochs_per_round": 2, "threads": 1},
    }


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The running stack, with the three pools and the deployments of deploy/prefect.yaml."""
    with (
        tempfile.TemporaryDirectory(prefix="qcrd-postgres-") as database,
        running_stack(tmp_path_factory.mktemp("stack"), Path(database)) as running,
    ):
        # The process pool was made by its worker.
        running.command("prefect", "work-pool", "create", "qcrd-docker", "--type", "docker")
        template = ROOT / "deploy" / "kubernetes-job-template.json"
        kubernetes = ["qcrd-kubernetes", "--type", "kubernetes", "--base-job-template", template]
        running.command("prefect", "work-pool", "create", *kubernetes)
        deploy = ["prefect", "--no-prompt", "deploy", "--prefect-file", "deploy/prefect.yaml", "--all"]
        running.services.run(*deploy, cwd=ROOT, env=running.client_env)
        yield running


@pytest.fixture(scope="module")
def finished(stack: Stack) -> dict[str, Any]:
    """The flow run that the schedule started, as Prefect tells of it: killed once, retried, and finished."""
    checkout = checked_out()
    deployment = stack.api("/deployments/name/distill/process")
    schedules = f"/deployments/{deployment['id']}/schedules"
    parameters = {"config": configuration(stack), "home": str(stack.home)}
    every_minute = {"schedule": {"interval": 60, "timezone": "UTC"}, "parameters": parameters, "active": True}
    [schedule] = stack.api(schedules, [every_minute])  # what the UI's form sends
    [run] = wait_for_runs(stack)
    stack.prefect.patch(f"{schedules}/{schedule['id']}", json={"active": False}).raise_for_status()
    assert run["auto_scheduled"]
    wait_until(stack, lambda: list(stack.home.glob("trainings/*/round-000/steps.jsonl")))
    kill_run(stack, run["id"])
    stack.wait_for(f"/flow_runs/{run['id']}", {"CRASHED"})

    stack.command("prefect", "flow-run", "retry", run["id"])
    ended: dict[str, Any] = stack.wait_for(f"/flow_runs/{run['id']}", TERMINAL)
    assert ended["state"]["type"] == "COMPLETED", stack.services.log("worker").read_text()[-5000:]
    assert checked_out() == checkout, "something was written into the checkout"
    return ended


def checked_out() -> list[Path]:
    """What lies in the checkout, but for caches, which tests beside this one may be making."""
    return sorted(path for path in ROOT.iterdir() if not path.name.startswith("."))


def wait_for_runs(stack: Stack) -> list[dict[str, Any]]:
    """The runs that the worker has started."""
    body = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
    deadline = time.monotonic() + PATIENCE_S
    while not (runs := stack.api("/flow_runs/filter", body)):
        assert time.monotonic() < deadline, stack.services.log("worker").read_text()[-5000:]
        time.sleep(0.5)
    return list(runs)


def wait_until(stack: Stack, ready: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        assert time.monotonic() < deadline, stack.services.log("worker").read_text()[-5000:]
        time.sleep(0.2)


def kill_run(stack: Stack, run_id: str) -> None:
    """kill -9 of the process that the worker started for a run; nothing else is touched."""
    [process] = [
        child
        for child in psutil.Process(stack.services.pid("worker")).children()
        if child.environ().get("PREFECT__FLOW_RUN_ID", "").replace("-", "") == run_id.replace("-", "")
    ]
    below = process.children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(below, timeout=30)
    assert not alive, f"left behind by the killed run: {alive}"


def test_the_deployments_are_as_the_file_says(stack: Stack) -> None:
    for kind in ("process", "docker", "kubernetes"):
        deployment = stack.api(f"/deployments/name/distill/{kind}")
        assert deployment["work_pool_name"] == f"qcrd-{kind}"
        assert deployment["entrypoint"] == "flows.distill.distill"
        assert deployment["global_concurrency_limit"]["limit"] == 1
        assert deployment["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
        nightly = deployment["schedules"][0]
        assert (nightly["schedule"]["cron"], nightly["active"]) == ("0 3 * * *", False)
        assert "student" in deployment["parameter_openapi_schema"]["definitions"]["DistillConfig"]["properties"]
    template = json.loads((ROOT / "deploy" / "kubernetes-job-template.json").read_text(encoding="utf-8"))
    assert stack.api("/work_pools/qcrd-kubernetes")["base_job_template"] == template


def test_prefect_shows_what_the_run_did(stack: Stack, finished: dict[str, Any]) -> None:
    artifacts = stack.api("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [finished["id"]]}}})
    assert {"votes", "rounds-qcrd", "rationales-qcrd", "result"} <= {artifact["key"] for artifact in artifacts}
    assert finished["run_count"] == 2


@pytest.mark.usefixtures("finished")
def test_the_champion_is_registered_and_its_files_are_in_the_bucket(stack: Stack) -> None:
    [version] = figures(stack.command("qcrd", "registry", "--json"))
    assert "champion" in version["aliases"]
    keys = objects(stack)
    assert any(key.startswith("mlflow/") and key.endswith("model.safetensors") for key in keys)
    [answer] = figures(stack.command("qcrd", "predict", "Ann has 3 apples. She finds 4 more. How many?", "--json"))
    assert set(answer) == {"question", "answer", "rationale", "quality", "confidence", "abstained"}


def test_the_rationales_are_in_the_bucket_and_can_be_queried(stack: Stack, finished: dict[str, Any]) -> None:
    sql = "SELECT source, model, count(*) AS n FROM rationales WHERE source = 'teacher' GROUP BY ALL"
    rows = figures(stack.command("qcrd", "sql", sql, "--json"))
    assert rows == [{"source": "teacher", "model": "teacher", "n": QUESTIONS * N}]
    states = figures(
        stack.command("qcrd", "sql", "SELECT state, prefect_run_id FROM runs ORDER BY created_at", "--json")
    )
    assert states == [{"state": "finished", "prefect_run_id": finished["id"]}], "the retry went on with the same run"
    assert any(key.startswith("store/rationales/") for key in objects(stack))


@pytest.mark.usefixtures("finished")
def test_the_state_folder_holds_no_store_and_no_mlflow(stack: Stack) -> None:
    assert not (stack.home / "store").exists()
    assert not list((stack.home / "mlflow").glob("*.db"))
    assert not (stack.home / "mlflow" / "artifacts").exists()


def test_without_the_password_nothing_is_told(stack: Stack) -> None:
    prefect, mlflow = (
        f"{stack.client_env['PREFECT_API_URL']}/flow_runs/count",
        f"{stack.mlflow}/api/2.0/mlflow/runs/search",
    )
    for address in (prefect, mlflow):
        assert stack.prefect.post(address, json={}, auth=("admin", "wrong")).status_code == 401


def objects(stack: Stack) -> list[str]:
    """Names of everything in the bucket."""
    env = stack.client_env
    client = boto3.client(
        "s3", endpoint_url=env["AWS_ENDPOINT_URL"], region_name="us-east-1",
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"], aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return [found["Key"] for page in pages for found in page.get("Contents", [])]
