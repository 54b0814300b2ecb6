"""The drawing of all exceptions against those that there are."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import flows
import models
import storage
import tasks
from tasks import errors

ROOT = Path(__file__).parents[2]
PACKAGES = (flows, tasks, models, storage)
NODE = re.compile(r"^(?P<before>[│ ]*)[├└]── (?P<name>\w+) +(?P<told>.+)$")
FILE = re.compile(r"\b(?:flows|tasks|models|storage)/[\w/]+\.py")


def subclasses(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    for one in kind.__subclasses__():
        yield one
        yield from subclasses(one)


def ours() -> dict[str, type[BaseException]]:
    """Every exception class of the project, by name."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    names = {package.__name__ for package in PACKAGES}
    found = {kind for kind in subclasses(BaseException) if kind.__module__.split(".")[0] in names}
    assert len({kind.__name__ for kind in found}) == len(found), "two of one name cannot be told apart in a drawing"
    return {kind.__name__: kind for kind in found}


def drawn() -> dict[str, tuple[str, str]]:
    """name -> (name of its base, file that defines it), as the docstring draws them."""
    path: list[tuple[str, str]] = [("Exception", "")]
    found = {}
    for line in (errors.__doc__ or "").splitlines():
        if node := NODE.match(line.removeprefix("    ")):
            depth = len(node["before"]) // 4 + 1
            file = FILE.search(node["told"])
            base, folder = path[depth - 1]
            path[depth:] = [(node["name"], file[0] if file else folder)]
            assert node["name"] not in found
            found[node["name"]] = (base, path[depth][1])
    return found


def test_the_drawing_has_every_exception_at_its_place() -> None:
    there = {
        name: (kind.__bases__[0].__name__, str(Path(inspect.getfile(kind)).relative_to(ROOT)))
        for name, kind in ours().items()
    }
    assert drawn() == there


def test_what_people_are_told_of_is_what_each_layer_calls_its_errors() -> None:
    roots = [name for name, (base, file) in drawn().items() if base == "Exception" and file.endswith("/errors.py")]
    assert [kind.__name__ for kind in errors.ONE_LINE] == roots
