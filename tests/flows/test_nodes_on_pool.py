"""A training on two nodes, the second started through a work pool: on this machine, with a real server and worker."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, StateType

from flows.nodes import train_node
from flows.prefect.workers import own_workers
from tasks.training.folder import Training
from tasks.training.outcomes import RoundTrained
from tests.conftest import qcrd_command
from tests.deploy.services import free_port
from tests.flows.own_data import write_own_data
from tests.flows.prefect_server import prefect_server

CONFIG = """
dataset: {name: sums.yaml, validation_split: null}
teacher: {source: import, files: [{path: samples.jsonl}]}
method: {name: finetune}
student:
  model: new
  new: {hidden: 16, layers: 1, heads: 2, intermediate: 24, vocab_size: 320}
  max_input_tokens: 80
  max_target_tokens: 40
optimisation: {batch_size: 16, device: cpu}
rounds:
  rounds: 2
  epochs_per_round: 1
  answer_tokens: 4
  threads: 1
  nodes: 2
  rendezvous: "127.0.0.1:PORT"
  nodes_on: NAME
registry: {register_model: false}
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def api(prefect_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prefect_server(prefect_database, tmp_path_factory.mktemp("prefect")) as api:
        yield api


@pytest.fixture(autouse=True)
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_own_data(tmp_path)
    monkeypatch.chdir(tmp_path)


def distill(api: str, name: str) -> "subprocess.CompletedProcess[str]":
    Path("two.yaml").write_text(CONFIG.replace("PORT", str(free_port())).replace("NAME", name))
    env = {**os.environ, "PREFECT_API_URL": api, "GLOO_SOCKET_IFNAME": "lo"}
    command = qcrd_command(Path("home"), "distill", "two.yaml")
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def runs_of_nodes() -> list[FlowRun]:
    with get_client(sync_client=True) as client:
        return [run for run in client.read_flow_runs() if run.name.startswith("node ")]


def test_the_other_node_is_started_and_both_train_every_round(api: str) -> None:
    with own_workers(train_node, "other-machines", Path("logs"), [(1, {"GLOO_SOCKET_IFNAME": "lo"})]):
        done = distill(api, "other-machines")
    assert done.returncode == 0, done.stderr
    [folder] = [path for path in Path("home/trainings").iterdir() if path.is_dir()]
    assert [Training(folder).outcome(RoundTrained, t) is not None for t in (0, 1)] == [True, True]
    [run] = runs_of_nodes()
    assert run.parameters["node"] == 1
    assert run.state is not None
    assert run.state.type in (StateType.COMPLETED, StateType.CANCELLING, StateType.CANCELLED)
    assert run.start_time is not None, "a worker took it"


def test_a_deployment_that_is_not_there_is_named(api: str) -> None:
    done = distill(api, "nowhere")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "qcrd: rounds.nodes_on: the flow train-node has no deployment 'nowhere'. Make it with `prefect"
    )
