"""A round trained on two nodes: two network namespaces that a cable joins, or this machine twice where it cannot make
any."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from models.checkpoints import latest, read_position
from models.folders import MODEL
from storage.errors import UsageError
from tasks.training.folder import Training
from tasks.training.nodes import follow
from tasks.training.outcomes import Prepared, RoundTrained
from tasks.training.spec import INITIAL
from tasks.training.student import train_round
from tests.deploy.services import free_port
from tests.models.tiny_round import end_state
from tests.tasks.training.test_student import NO_DROPOUT, ready
from tests.tasks.training.world import small_world, tiny_training

FIRST = """
import sys
from pathlib import Path
from tasks.errors import ONE_LINE
from tasks.training.student import train_round
try:
    train_round(Path(sys.argv[1]), 0)
except ONE_LINE as error:
    sys.exit(str(error))
"""


@dataclass
class Nodes:
    """Two nodes.

    Attributes:
        commands: what goes before a command that runs on each.
        networks: the network that each uses.
        meet: where they meet, an address of the first.
    """

    commands: tuple[list[str], list[str]]
    networks: tuple[str, str]
    meet: str

    def start(self, node: int, *command: object) -> "subprocess.Popen[str]":
        env = {**os.environ, "GLOO_SOCKET_IFNAME": self.networks[node]}
        return subprocess.Popen(
            [*self.commands[node], sys.executable, *map(str, command)], stderr=subprocess.PIPE, text=True, env=env
        )

    def first(self, prepared: Prepared) -> "subprocess.Popen[str]":
        return self.start(0, "-c", FIRST, prepared.folder)

    def second(self, prepared: Prepared, *more: object) -> "subprocess.Popen[str]":
        return self.start(1, "-m", "tasks.training.nodes", prepared.folder, 1, *more)


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    names = [f"qcrd-{os.getpid()}-{node}" for node in range(2)]
    cables = [f"qcrd{os.getpid()}{end}" for end in "ab"]
    addresses = ["10.231.7.1", "10.231.7.2"]

    def ip(*words: str) -> bool:
        return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0  # noqa: S607

    try:
        made = shutil.which("ip") is not None and all(ip("netns", "add", name) for name in names)
        made = made and ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
        for name, cable, address in zip(names, cables, addresses, strict=True):
            made = made and ip("link", "set", cable, "netns", name)
            for command in (f"addr add {address}/24 dev {cable}", f"link set {cable} up", "link set lo up"):
                made = made and ip("-n", name, *command.split())
        if made:
            inside = [["ip", "netns", "exec", name] for name in names]
            yield Nodes((inside[0], inside[1]), (cables[0], cables[1]), f"{addresses[0]}:29400")
        else:
            yield Nodes(([], []), ("lo", "lo"), f"127.0.0.1:{free_port()}")
    finally:
        for name in names:
            ip("netns", "del", name)


def together(nodes: Nodes, **rounds: object) -> dict[str, object]:
    return {"nodes": 2, "rendezvous": nodes.meet, "rounds": 1, **rounds}


@pytest.mark.slow
def test_two_nodes_end_like_one_process(tmp_path: Path, nodes: Nodes) -> None:
    alone, several = (small_world(tmp_path / name) for name in ("alone", "several"))
    before = ready(alone, tiny_training(**NO_DROPOUT, method={"name": "dss"}, rounds={"rounds": 1}))
    prepared = ready(several, tiny_training(**NO_DROPOUT, method={"name": "dss"}, rounds=together(nodes)))
    assert prepared.training_id == before.training_id
    expected = train_round(before.folder, 0)
    with nodes.first(prepared) as first, nodes.second(prepared) as second:
        told = [process.communicate(timeout=200)[1] for process in (first, second)]
        assert (first.returncode, second.returncode) == (0, 0), told
    trained = Training(prepared.folder).outcome(RoundTrained, 0)
    assert trained
    assert trained.means == pytest.approx(expected.means, rel=1e-4)
    start = load_file(Training(prepared.folder).checkpoint(INITIAL) / MODEL / "model.safetensors")
    found, state = (end_state(Training(one.folder).checkpoint(0)) for one in (prepared, before))
    assert found["plain"] == state["plain"]
    for name, value in start.items():
        way = state[f"model {name}"] - value
        assert (found[f"model {name}"] - state[f"model {name}"]).norm() <= 1e-3 * way.norm(), name


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_node_ends_the_round_and_it_goes_on_exactly(tmp_path: Path, nodes: Nodes, victim: int) -> None:
    exact = {
        **NO_DROPOUT,
        "optimisation": {"batch_size": 1, "log_every": 1, "checkpoint_every_s": 1e-9, "device": "cpu"},
        "method": {"name": "dss"},
        "rounds": together(nodes, epochs_per_round=6),
    }
    whole, killed = (ready(small_world(tmp_path / name), tiny_training(**exact)) for name in ("whole", "killed"))
    for prepared, kill in ((whole, False), (killed, True), (killed, False)):
        with nodes.first(prepared) as first, nodes.second(prepared) as second:
            pair = first, second
            if kill:
                place = Training(prepared.folder).round(0)
                while not (newest := latest(place) if place.exists() else None) or read_position(newest).step < 10:
                    assert first.poll() is None, first.communicate()
                    time.sleep(0.02)
                family = [psutil.Process(pair[victim].pid)]
                family += family[0].children(recursive=True)
                for process in family:
                    process.kill()
                _, told = pair[1 - victim].communicate(timeout=100)
                assert pair[1 - victim].returncode != 0
                [line] = told.splitlines()
                assert "Round 0 failed in 1 processes on each of 2 nodes" in line
                assert "another process is gone" in line
                assert Training(prepared.folder).outcome(RoundTrained, 0) is None
            else:
                told_by = [process.communicate(timeout=300)[1] for process in pair]
                assert [process.returncode for process in pair] == [0, 0], told_by
    states = [end_state(Training(one.folder).checkpoint(0)) for one in (whole, killed)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert value.equal(states[1][name]) if hasattr(value, "equal") else value == states[1][name], name


@pytest.mark.slow
def test_a_node_that_nobody_meets_says_so(tmp_path: Path, nodes: Nodes) -> None:
    prepared = ready(small_world(tmp_path), tiny_training(method={"name": "dss"}, rounds=together(nodes)))
    with nodes.second(prepared, "--wait", 5) as second:
        _, told = second.communicate(timeout=100)
    assert second.returncode == 2
    [line] = told.splitlines()
    assert f"not all 2 nodes met at {nodes.meet} within 5 s" in line


def test_a_node_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is no training on this machine\. Every node needs the state folder"):
        follow(tmp_path / "trainings" / "abc", 1)


def test_nodes_need_a_place_to_meet() -> None:
    with pytest.raises(ValueError, match="nodes above 1 need a rendezvous: HOST:PORT"):
        tiny_training(rounds={"nodes": 2})
