"""bfloat16 where the processor only emulates it: said once in a run, honoured, and kept by the training."""

from pathlib import Path

import pytest

from tasks.training.folder import Training
from tests.conftest import Qcrd, figures
from tests.flows.own_data import write_own_data

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("databases")]

SHORT = ("--json", "--set", "rounds.rounds=1", "--set", "registry.register_model=false")
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2"}  # whatever this machine has


def test_it_is_said_once_and_a_later_auto_goes_on_in_it(
    tmp_path: Path, home: Path, qcrd: Qcrd, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    asked = qcrd("distill", "small.yaml", *SHORT, "--set", "optimisation.precision=bfloat16", **AVX2)
    said = [line for line in asked.stderr.splitlines() if "emulates" in line]
    assert len(said) == 1, "once, for two methods"
    assert "optimisation.precision is bfloat16, which this processor (AVX2) only emulates" in said[0]
    assert said[0].endswith("times as long as in float32. Set it to float32.")

    auto = qcrd("distill", "small.yaml", *SHORT, **AVX2)
    trainings = [one["training_id"] for one in figures(asked)["methods"]]
    assert [one["training_id"] for one in figures(auto)["methods"]] == trainings, "nothing is trained again"
    assert auto.stderr.count("goes on in bfloat16, in which another machine began it") == len(trainings) == 2
    assert "emulates" not in auto.stderr
    for training in trainings:
        assert Training(home / "trainings" / training).spec.config.optimisation.precision == "bfloat16"
