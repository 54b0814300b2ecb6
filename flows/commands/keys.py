"""`qcrd keys`: what can be set in a configuration."""

from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer
from rich.padding import Padding

from flows.commands.options import JsonOption
from flows.terminal import notice, out, plain, print_json

if TYPE_CHECKING:
    from flows.config.reference import Key


def keys_command(
    path: Annotated[
        str | None,
        typer.Argument(help="A section or a key, such as student.lora or rounds.patience; by default all sections."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Explain the keys of a configuration.

    Each with the values that are allowed, its default, and what it means.

    Example: qcrd keys rounds
    """
    from flows.config.reference import keys_at  # all configurations

    keys = keys_at(path or "")
    if as_json:
        print_json([asdict(key) | {"section": key.section is not None} for key in keys])
        return
    for number, (group, listed) in enumerate(groupby(keys, lambda key: key.group)):
        if group:
            out.print(plain("\n" * (number > 0) + group, "italic"))
        for key in listed:
            out.print(plain(key.path, "bold"), plain(_allowed(key), "dim"))
            out.print(Padding(plain(key.text), (0, 0, 0, 4), expand=False))
    if not path:
        notice("qcrd keys SECTION explains the keys of a section.")


def _allowed(key: "Key") -> str:
    """What may stand at a key, and what stands there if it is left out."""
    value = key.value.replace("`", "")
    if key.default == "its own":
        return f"({value})"
    return f"({value}; {key.default})" if key.default == "required" else f"({value}; default: {key.default})"
