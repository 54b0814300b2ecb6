"""What deploy/compose.yaml says about a service, for running it as a plain process."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).resolve().parents[2] / "deploy" / "compose.yaml"
VARIABLE = re.compile(r"\$\{(\w+)(?::(-|\?)([^}]*))?\}")


@dataclass(frozen=True)
class ComposeService:
    """A service's command and environment, with secrets filled in and addresses replaced."""

    command: list[str]
    env: dict[str, str]


@cache
def compose() -> dict[str, Any]:
    """The whole file."""
    content: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return content


def required_variables() -> set[str]:
    """Names without which compose refuses to start anything."""
    return {name for name, kind, _ in VARIABLE.findall(FILE.read_text(encoding="utf-8")) if kind == "?"}


def service(name: str, variables: Mapping[str, str], replaced: Mapping[str, str]) -> ComposeService:
    """A service as it is to be started here.

    Args:
        name: of the service.
        variables: values of the file's ${...}.
        replaced: text -> text: addresses and paths within containers -> those on this machine.
    """

    def here(text: object) -> str:
        filled = VARIABLE.sub(lambda match: variables.get(match[1]) or _default(match), str(text))
        for old, new in replaced.items():
            filled = filled.replace(old, new)
        return filled

    said = compose()["services"][name]
    env = {key: here(value) for key, value in said.get("environment", {}).items()}
    return ComposeService([here(part) for part in said["command"]], env)


def _default(match: re.Match[str]) -> str:
    assert match[2] == "-", f"no value for {match[1]}"
    return match[3]
