"""Files and folders that appear whole or not at all."""

import multiprocessing
from pathlib import Path
from time import sleep

import pytest

from models.folders import whole_file


def test_a_file_is_replaced_whole_and_folders_above_it_are_made(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "outcome.json"
    for text in ("old", "new"):
        before = file.read_text() if file.exists() else None
        with whole_file(file) as partial:
            assert not partial.exists()
            partial.write_text(text)
            assert (file.read_text() if file.exists() else None) == before
    assert file.read_text() == "new"
    assert [*file.parent.iterdir()] == [file]


def test_a_file_that_fails_leaves_the_old_one_and_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "outcome.json"
    file.write_text("old")

    def write_and_fail() -> None:
        with whole_file(file) as partial:
            partial.write_text("ha")
            raise RuntimeError("the disk is full")

    def write_nothing() -> None:
        with whole_file(file):
            pass

    with pytest.raises(RuntimeError, match="disk is full"):
        write_and_fail()
    with pytest.raises(FileNotFoundError):
        write_nothing()
    assert file.read_text() == "old"
    assert [*tmp_path.iterdir()] == [file]


def write_slowly(file: Path, ready: Path) -> None:
    with whole_file(file) as partial:
        partial.write_text("ha")
        ready.touch()
        sleep(600)


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    file, ready = tmp_path / "outcome.json", tmp_path / "ready"
    file.write_text("old")
    process = multiprocessing.get_context("spawn").Process(target=write_slowly, args=(file, ready))
    process.start()
    while not ready.exists():
        assert process.is_alive()
        sleep(0.01)
    process.kill()
    process.join()
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [
        f".outcome.json.partial-{process.pid}"
    ]
