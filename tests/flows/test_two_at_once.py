"""Two runs of one configuration on one state folder, started together: one trains, the other takes what it has made."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Qcrd, figures, qcrd_command
from tests.flows.own_data import weights, without_clock, write_own_data

pytestmark = pytest.mark.slow


def test_both_end_with_the_result_of_one_alone(
    tmp_path: Path, home: Path, qcrd: Qcrd, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    alone = tmp_path / "alone"
    expected = figures(qcrd("distill", "small.yaml", "--json", home=alone))

    command = qcrd_command(home, "distill", "small.yaml", "--json")
    pipe = subprocess.PIPE
    runs = [subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=os.environ) for _ in range(2)]
    told = [run.communicate(timeout=600) for run in runs]
    for run, (_, said) in zip(runs, told, strict=True):
        assert run.returncode == 0, said
        assert "Traceback" not in said
    results = [json.loads(printed) for printed, _ in told]
    assert without_clock(results[0]) == without_clock(results[1]) == without_clock(expected)
    assert weights(home, results[0]) == weights(home, results[1]) == weights(alone, expected)
    assert results[0]["registered"]["version"] == results[1]["registered"]["version"] == "1"
    waited = [said.count("another run trains it; waiting, then taking what it has made") for _, said in told]
    assert sum(waited) >= 1, "they were never in each other's way"
