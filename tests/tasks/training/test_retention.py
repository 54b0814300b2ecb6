"""Trainings' folders that may go, and how one goes."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tasks.training.folder import Training, trainings_in
from tasks.training.retention import old_trainings, remove_leftovers, remove_training
from tests.tasks.training.world import small_world


def age(folder: Path, days: int) -> None:
    moment = (datetime.now(UTC) - timedelta(days=days)).timestamp()
    for file in folder.rglob("*"):
        os.utime(file, (moment, moment))


def test_a_training_is_old_once_no_run_has_used_it_for_a_while(tmp_path: Path) -> None:
    prepared = small_world(tmp_path).prepare()
    before = datetime.now(UTC) - timedelta(days=30)
    assert old_trainings(tmp_path, before) == []
    age(prepared.folder, 31)
    [old] = old_trainings(tmp_path, before)
    assert old.folder == prepared.folder
    assert old.bytes > 1000
    with Training(prepared.folder).held(prepared.spec):  # a run that finds everything done
        pass
    assert old_trainings(tmp_path, before) == []


def test_nothing_of_a_training_is_removed_while_somebody_works_in_it(tmp_path: Path) -> None:
    prepared = small_world(tmp_path).prepare()
    files = sorted(prepared.folder.rglob("*"))
    with Training(prepared.folder).held(prepared.spec):
        assert not remove_training(prepared.folder)
    assert sorted(prepared.folder.rglob("*")) == files
    assert remove_training(prepared.folder)
    assert list((tmp_path / "trainings").iterdir()) == []


def test_what_a_killed_process_left_of_a_removed_training_is_none_and_goes(tmp_path: Path) -> None:
    prepared = small_world(tmp_path).prepare()
    left = prepared.folder.with_name(f".{prepared.folder.name}.removed-1")
    prepared.folder.rename(left)
    assert trainings_in(tmp_path) == []
    remove_leftovers(tmp_path)
    assert list((tmp_path / "trainings").iterdir()) == []
