"""requirements/*.lock: complete and consistent on every supported Python, as far as the packages installed here tell.

Whether each pin has a wheel for each Python is for an index to say: requirements/README.md has the commands.
"""

import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from flows.commands.doctor import PYTHONS

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# requirements/README.md says why: no build of them loads beside a `+cpu` torch; pycosat would have to be compiled.
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "pycosat"}


def environment(python: str, extra: str = "") -> dict[str, str]:
    """What markers are asked about, on this machine with another Python."""
    here = {name: str(value) for name, value in default_environment().items()}
    # The second patch release: Debian 12 has 3.11.2, and markers ask for more before 3.11.3.
    return here | {"python_version": python, "python_full_version": f"{python}.2", "extra": extra}


def applies(requirement: Requirement, python: str, extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate(environment(python, extra))


def pins(accelerator: str, python: str) -> dict[str, str]:
    """The versions that pip installs from a lock, by canonical name; a name that is pinned twice is a fault."""
    found: dict[str, str] = {}
    for line in (ROOT / "requirements" / f"{accelerator}.lock").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        requirement = Requirement(line)
        [specifier] = requirement.specifier
        assert specifier.operator == "==", line
        if applies(requirement, python):
            name = canonicalize_name(requirement.name)
            assert name not in found, f"{name} is pinned twice"
            found[name] = specifier.version
    return found


def unmet(needed: Iterator[Requirement], pinned: dict[str, str]) -> list[str]:
    return [
        f"{requirement} (pinned: {pinned.get(canonicalize_name(requirement.name), 'nothing')})"
        for requirement in needed
        if canonicalize_name(requirement.name) not in LEFT_OUT
        and not (
            (version := pinned.get(canonicalize_name(requirement.name)))
            and requirement.specifier.contains(version, prereleases=True)
        )
    ]


def needed_by_packages(pinned: dict[str, str], python: str) -> Iterator[Requirement]:
    """What the pinned packages need, extras included, as those say that are installed here at the pinned version."""
    todo = [(name, "") for name in pinned]
    seen = set(todo)
    while todo:
        name, extra = todo.pop()
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if package.version != pinned.get(name):
            continue
        for requirement in map(Requirement, package.requires or ()):
            if not applies(requirement, python, extra):
                continue
            yield requirement
            more = {(canonicalize_name(requirement.name), wanted) for wanted in requirement.extras} - seen
            seen |= more
            todo += more


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_a_lock_has_all_that_the_project_names(accelerator: str, python: str) -> None:
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *extras[accelerator], *extras["servers"], *extras["dev"]]
    assert unmet(map(Requirement, lines), pins(accelerator, python)) == []


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_a_lock_has_all_that_its_packages_need(accelerator: str, python: str) -> None:
    pinned = pins(accelerator, python)
    assert unmet(needed_by_packages(pinned, python), pinned) == []


@pytest.mark.parametrize("python", PYTHONS)
def test_every_package_runs_on_every_supported_python(python: str) -> None:
    pinned = pins("cpu", python)
    bounds = {
        name: package.metadata["Requires-Python"]
        for name in pinned
        for package in metadata.distributions(name=name)
        if "Requires-Python" in package.metadata
    }
    assert len(bounds) > 200, "this reads the installed packages"
    assert [f"{name} {bound}" for name, bound in bounds.items() if f"{python}.5" not in SpecifierSet(bound)] == []


def test_the_project_and_doctor_name_the_same_pythons() -> None:
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert tuple(python for python in (f"3.{minor}" for minor in range(30)) if python in allowed) == PYTHONS
