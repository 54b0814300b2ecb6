"""Two runs of one configuration on one state folder, started together: one trains, the other takes what it has made."""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from storage.locks import file_lock
from tests.conftest import Qcrd, figures
from tests.flows.own_data import weights, without_clock, write_own_data
from tests.warm_start import WarmStart

pytestmark = pytest.mark.slow

WAITING = "another run trains it; waiting, then taking what it has made"


def test_both_end_with_the_result_of_one_alone(
    tmp_path: Path, home: Path, qcrd: Qcrd, warm_start: WarmStart, new_databases: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    write_own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    alone = new_databases(tmp_path / "alone")  # the two make theirs themselves
    expected = figures(qcrd("distill", "small.yaml", "--json", home=alone))
    said = [tmp_path / f"{number}.err" for number in range(2)]

    # However busy the machine is, they are in each other's way: neither can train before both have come to train.
    with ExitStack() as held:
        for method in expected["methods"]:
            folder = home / "trainings" / method["training_id"]
            folder.mkdir(parents=True)
            held.enter_context(file_lock(folder / ".run.lock"))
        runs = []
        for number in range(2):
            with (tmp_path / f"{number}.out").open("w") as out, said[number].open("w") as err:
                runs.append(warm_start.start(home, "distill", "small.yaml", "--json", stdout=out, stderr=err))
        deadline = time.monotonic() + 300
        while not all(WAITING in file.read_text(encoding="utf-8") for file in said):
            so_far = [file.read_text(encoding="utf-8") for file in said]
            assert all(run.poll() is None for run in runs), f"one ended without having waited: {so_far}"
            assert time.monotonic() < deadline, f"one never came to train: {so_far}"
            time.sleep(0.05)
    told = []
    for number, run in enumerate(runs):
        run.wait(timeout=600)
        errors = said[number].read_text(encoding="utf-8")
        assert run.returncode == 0, errors
        assert "Traceback" not in errors
        told.append((tmp_path / f"{number}.out").read_text(encoding="utf-8"))
    results = [json.loads(printed) for printed in told]
    assert without_clock(results[0]) == without_clock(results[1]) == without_clock(expected)
    assert weights(home, results[0]) == weights(home, results[1]) == weights(alone, expected)
    assert results[0]["registered"]["version"] == results[1]["registered"]["version"] == "1"
