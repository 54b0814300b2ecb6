"""Finds the source files and the installed packages that a Python file needs, by reading the imports.

A registered student carries its code with it. Whole packages would include the supervision of vLLM's server, and would
not tell what has to be installed. A list kept by hand would be wrong after the next change.
"""

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path


def needed_files(entries: Iterable[Path], root: Path, packages: Iterable[str] | None = None) -> list[Path]:
    """Some files, and the files under `root` that they import, directly or indirectly.

    Args:
        entries: files below root.
        root: the folder that absolute imports are looked up in.
        packages: only these top-level names are followed; None follows all that lie there.

    Returns:
        Sorted paths, with the `__init__.py` of every package on the way.
    """
    allowed = None if packages is None else set(packages)
    found: set[Path] = set()
    todo = list(entries)
    while todo:
        file = todo.pop()
        if file in found:
            continue
        found.add(file)
        for name in _imported(file, root, everywhere=True):
            if allowed is None or name.partition(".")[0] in allowed:
                todo += _files_of(name, root)
    return sorted(found)


def needed_packages(files: Iterable[Path], root: Path, *, everywhere: bool = False) -> list[str]:
    """The installed packages that some files import, as pinned requirements ("torch==2.13.0"), sorted.

    Args:
        files: from `needed_files`.
        root: as there; what lies in it is not an installed package.
        everywhere: also read imports inside functions, which are not needed to load a file.
    """
    names = {name.partition(".")[0] for file in files for name in _imported(file, root, everywhere=everywhere)}
    by_import = _distributions()
    local = {path.stem for path in root.iterdir()}
    found = (by_import[name] for name in names - local - sys.stdlib_module_names if name in by_import)
    # Several distributions may share a package, as mlflow and mlflow-skinny do; the one with its name is complete.
    return sorted({pinned(min(several, key=len)) for several in found})


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Import name -> the installed distributions it belongs to; reading all their records takes a second."""
    return metadata.packages_distributions()


def pinned(distribution: str) -> str:
    """A requirement for exactly the installed version.

    The local part of a version such as "2.13.0+cpu" is left out, because no public index has that build. An ordinary
    machine installs the plain version, and a local build meets the plain requirement, too (PEP 440).
    """
    return f"{distribution}=={metadata.version(distribution).partition('+')[0]}"


def _imported(file: Path, root: Path, *, everywhere: bool) -> Iterator[str]:
    """Dotted names that a file imports; for `from a import b` both a and a.b, since b may be a module."""
    tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    for node in ast.walk(tree) if everywhere else _outside_functions(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = file.relative_to(root).parent.parts
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (above, node.module) if part)
            yield from ([module] if module else [])
            yield from (".".join(part for part in (module, alias.name) if part) for alias in node.names)


def _outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node
            yield from _outside_functions(node)


def _files_of(name: str, root: Path) -> list[Path]:
    """The files of a dotted name and of the packages it lies in; none if it is not a module below root."""
    found: list[Path] = []
    folder = root
    for part in name.split("."):
        module, package = folder / f"{part}.py", folder / part / "__init__.py"
        if package.is_file():
            found.append(package)
        elif module.is_file():
            return [*found, module]
        elif not (folder / part).is_dir():  # a folder without __init__.py is a package, too
            return found
        folder = folder / part
    return found
