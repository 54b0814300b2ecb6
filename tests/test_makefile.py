"""Which Python `make` takes, and what it says where there is none."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A folder to be the whole PATH: what the Makefile calls, and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("make", "sh", "echo", "test", "grep"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return folder


def command(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def python(folder: Path, name: str, version: tuple[int, int]) -> None:
    """A Python that answers what it is asked as if it were another version."""
    command(folder / name, f'exec {sys.executable} -c "import sys; sys.version_info = {version}; $2"')


def make(commands: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [commands / "make", "ACCELERATOR=cpu", f"VENV={commands.parent}/environment", *arguments],
        cwd=ROOT, env={"PATH": str(commands)}, capture_output=True, text=True,
    )  # fmt: skip


def taken(commands: Path) -> str:
    return make(commands, "--eval=taken: ; @echo $(PYTHON)", "taken").stdout.strip()


def test_make_takes_the_newest_supported_python(commands: Path) -> None:
    assert taken(commands) == ""
    python(commands, "python3.11", (3, 11))
    assert taken(commands) == "python3.11"
    python(commands, "python3.13", (3, 13))
    python(commands, "python3.14", (3, 14))
    assert taken(commands) == "python3.13"


def test_a_name_that_does_not_run_is_passed_over(commands: Path) -> None:
    command(commands / "python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")
    python(commands, "python3.12", (3, 12))
    assert taken(commands) == "python3.12"


def test_a_python_without_pip_is_passed_over(commands: Path) -> None:
    command(commands / "python3.13", f'exec {sys.executable} -c "import sys; sys.modules[\\"pip\\"] = None; $2"')
    python(commands, "python3.12", (3, 12))
    assert taken(commands) == "python3.12"


@pytest.mark.parametrize(("version", "expected"), [((3, 12), "python3"), ((3, 10), ""), ((3, 14), "")])
def test_python3_is_taken_where_it_is_a_supported_one(commands: Path, version: tuple[int, int], expected: str) -> None:
    python(commands, "python3", version)
    assert taken(commands) == expected


def test_without_one_a_line_says_what_to_do(commands: Path) -> None:
    done = make(commands, "--silent", "setup")
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == (
        "qcrd needs Python 3.11, 3.12 or 3.13, with pip (tried: python3.13 python3.12 python3.11 python3): "
        "install one, or name one: make PYTHON=/path/to/python3.13"
    )
    python(commands, "python3.10", (3, 10))
    assert "(tried: python3.10)" in make(commands, "setup", "PYTHON=python3.10").stderr


def test_an_environment_of_another_python_is_not_taken_for_the_one_asked_for(commands: Path) -> None:
    made = commands.parent / "environment"
    command(made / "bin" / "python", "echo Python 3.11.7")
    (made / "installed-cpu").touch()
    command(commands / "python3.13", "echo Python 3.13.5")
    assert make(commands, "setup").returncode == 0, "it is kept, whatever is newest"
    done = make(commands, "--silent", "setup", "PYTHON=python3.13")
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == (
        f"{made} holds Python 3.11.7, not the Python 3.13.5 of PYTHON=python3.13: run make clean first"
    )
    assert make(commands, "setup", f"PYTHON={made}/bin/python").returncode == 0
