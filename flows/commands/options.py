"""Options that several commands share, and checks of their values."""

import re
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from flows.home import HOME_VARIABLE, Home
from storage.errors import UnknownName, UsageError
from storage.store import Store
from tasks.questions.sets import DatasetConfig

DEFAULT_HOME = Path(".qcrd")
UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def key_option(section: type[BaseModel], key: str, name: str = "", more: str = "") -> Any:
    """An option that sets a key of a configuration, with the key's own text as its help.

    Args:
        name: how it is written; by default like the key, --top-p for top_p.
        more: what the help says besides.
    """
    text = section.model_fields[key].description
    return typer.Option(name or f"--{key.replace('_', '-')}", help=f"{text} {more}".strip())


HomeOption = Annotated[
    Path,
    typer.Option("--home", envvar=HOME_VARIABLE, help="State folder (store, lab teacher, logs).", show_default=True),
]
DatasetOption = Annotated[str, key_option(DatasetConfig, "name", "--dataset")]
SplitOption = Annotated[str | None, typer.Option("--split", help="Only this split; by default all that are stored.")]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="Registered model; may be left out if there is only one.")
]
VoteOption = Annotated[str | None, typer.Option("--vote", help="Id of the vote; by default the newest.")]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Replace the file if it exists.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def one_of(option: str, value: str, allowed: Iterable[str]) -> str:
    """The value, if it is allowed.

    Raises:
        UnknownName: it is not; names the nearest one.
    """
    names = list(allowed)
    if value not in names:
        raise UnknownName(f"value of {option}", value, names)
    return value


def at_least(option: str, value: int | None, least: int) -> int | None:
    """The value, if it is large enough or None.

    Raises:
        UsageError: it is too small.
    """
    if value is not None and value < least:
        raise UsageError(f"{option} must be at least {least}, not {value}.")
    return value


def time_span(option: str, value: str) -> timedelta:
    """A number with its unit: 30m, 6h, 1d.

    Raises:
        UsageError: it is none, or longer than a thousand years.
    """
    found = re.fullmatch(r"(\d{1,6})([mhd])", value.strip())
    if not found or int(found[1]) == 0 or (span := timedelta(**{UNITS[found[2]]: int(found[1])})).days > 365_000:
        raise UsageError(f"{option} takes a number and m, h or d, such as 30m, 6h or 1d, not {value!r}.")
    return span


def split_named(value: str) -> str:
    """The name of a split, if it can be one.

    Raises:
        UsageError: it is empty or holds control characters.
    """
    if not value.strip() or not value.isprintable():
        raise UsageError(f"--split takes a name such as train, not {value!r}.")
    return value


def pairs(option: str, values: Iterable[str]) -> dict[str, str]:
    """`["text=completion"]` as a mapping.

    Raises:
        UsageError: one of them has no `=`.
    """
    found = {}
    for value in values:
        name, sign, column = value.partition("=")
        if not sign or not name or not column:
            raise UsageError(f"{option} takes field=column, such as text=completion; got {value!r}.")
        found[name] = column
    return found


def home_at(path: Path) -> Home:
    """The state folder; an existing file of that name is refused.

    Raises:
        UsageError: it is a file.
    """
    try:
        if path.exists() and not path.is_dir():
            raise UsageError(f"--home {path} is a file; give a folder (it is made where missing).")
    except OSError as error:  # a name that is too long, for one
        raise UsageError(f"--home {str(path)[:60]!r}... cannot be a folder: {error.strerror}.") from error
    return Home(path)


def new_file(option: str, file: Path, suffixes: Iterable[str], store: Store, *, replace: bool) -> None:
    """Checks that a file may be written.

    Args:
        option: what names it.
        suffixes: what its name may end in.
        replace: whether it may exist.

    Raises:
        UsageError: it exists, is a folder, lies in the store, or its name ends in something else.
    """
    allowed = tuple(suffixes)
    if not file.name.endswith(allowed):
        raise UsageError(f"{option} {file} must end in {' or '.join(allowed)}.")
    if file.is_dir():
        raise UsageError(f"{option} {file} is a folder; give a file.")
    if store.files.local and file.resolve().is_relative_to(Path(store.files.root).resolve()):
        raise UsageError(
            f"{option} {file} lies in the store, where only qcrd's own files may be; choose another place."
        )
    if file.exists() and not replace:
        raise UsageError(f"{option} {file} exists; choose another name, or replace it with --replace.")


def only_model(home: Home) -> str:
    """The registered model, where there is just one.

    Raises:
        UsageError: there is none, or more than one.
    """
    from tasks.tracking.registry import registered_models

    names = registered_models(home.path)
    if not names:
        raise UsageError("No student is registered yet; `qcrd distill lab` makes one.")
    if len(names) > 1:
        raise UsageError(f"Several students are registered; name one with --model: {', '.join(names)}.")
    return names[0]
