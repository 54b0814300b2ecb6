"""The reference of a distillation's configuration, made from the code: every section and key with its type, its
default, what is allowed, and the explanation from the docstring of the model that holds it.

    python -m flows.config.reference > docs/configuration.md

`tests/flows/test_docs.py` fails where the page is not what this prints.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from inspect import cleandoc
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from flows.config.distill import SHIPPED, DistillConfig, model_in, shipped_configs

PAGE = """\
# Configuration

Made from the code by `python -m flows.config.reference`; do not edit it.

A configuration is a YAML file with the sections below. `qcrd distill` takes its path, or the name of a shipped one, and
`--set section.key=value` wins over the file:

```sh
qcrd distill lab --set rounds.rounds=6 --set method.scheme=mean --set "compare=[dss, finetune]"
```

An unknown key or a value that is not allowed is answered with one line that says what is. `null` leaves a key out. A
configuration of your own needs `dataset.name`, `teacher` and `student.model`; the rest has defaults, which are the
paper's where the explanation says so. What the terms mean is in [distillation.md](distillation.md).
"""
GROUP = re.compile(r"(?:Attributes|Parameters that (?P<what>.+)):")
ENTRY = re.compile(r"(?P<names>\w+(?:, \w+)*): +(?P<text>.+)")
SOURCE = re.compile(r" \(docs/distillation\.md\)")  # the page links there once, at its head
SHORT = 45
"""Characters of an explanation that is told again for each of the keys that share it."""
SCALARS = {str: "text", int: "whole number", float: "number", bool: "true or false"}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


@dataclass
class Group:
    """Keys that a docstring explains together.

    Attributes:
        title: what they control; empty for a block of attributes.
        keys: key -> explanation; keys explained in one breath share it.
    """

    title: str
    keys: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """One model of the configuration.

    Attributes:
        path: "teacher.files", empty for the configuration itself.
        kind: the model.
        same_as: path of an earlier section of the same model, which explains it.
    """

    path: str
    kind: type[BaseModel]
    same_as: str | None = None


def explained(kind: type[BaseModel]) -> tuple[str, list[Group]]:
    """A model's summary, and its keys with what its docstring says of each.

    Raises:
        ValueError: the docstring explains a key that there is not, or some keys but not all.
    """
    summary: list[str] = []
    groups: list[Group] = []
    names: list[str] = []  # of the entry that the next indented line goes on with
    for line in cleandoc(kind.__doc__ or "").splitlines():
        text, depth = line.strip(), len(line) - len(line.lstrip())
        if heading := GROUP.fullmatch(text):
            groups.append(Group(_title(heading["what"] or "")))
            names = []
        elif depth <= 4 and (groups or depth) and (entry := ENTRY.fullmatch(text)):
            if not depth:  # an entry that stands alone, after the groups
                groups.append(Group("Besides"))
            names = entry["names"].split(", ")
            groups[-1].keys.update(dict.fromkeys(names, entry["text"]))
        elif names:
            groups[-1].keys.update({name: f"{groups[-1].keys[name]} {text}".strip() for name in names})
        elif text and not groups:
            summary.append(text)
    groups = groups or [Group("", dict.fromkeys(kind.model_fields, ""))]  # the summary says it all
    known = {name for group in groups for name in group.keys}
    for name in kind.model_fields.keys() - known:  # a section explains itself
        if inner := model_in(kind.model_fields[name].annotation):
            groups[-1].keys[name] = explained(inner)[0]
            known.add(name)
    if known != kind.model_fields.keys():
        raise ValueError(
            f"The docstring of {kind.__name__} and its fields differ in {known ^ kind.model_fields.keys()}"
        )
    places = list(kind.model_fields)
    for group in groups:
        group.keys = dict(sorted(group.keys.items(), key=lambda item: places.index(item[0])))
    return SOURCE.sub("", " ".join(summary)), groups


def _title(what: str) -> str:
    """What a heading says after "Parameters that", as a title: "The splits" of "control the splits"."""
    what = what.removeprefix("control ")
    return what[:1].upper() + what[1:]


def sections() -> Iterator[Section]:
    """The configuration's models, each before those inside it."""
    known: dict[type[BaseModel], str] = {}

    def walk(kind: type[BaseModel], path: str) -> Iterator[Section]:
        yield Section(path, kind, known.get(kind))
        if kind in known:
            return
        known[kind] = path
        for name, its in kind.model_fields.items():
            if inner := model_in(its.annotation):
                yield from walk(inner, f"{path}.{name}".lstrip("."))

    yield from walk(DistillConfig, "")


def type_text(annotation: Any, metadata: list[Any]) -> str:
    """What may stand at a key, in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(inner[0], _bounds_of(inner[1:]))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        kinds = [type_text(one, metadata) for one in inner if one is not NoneType]
        return ", or ".join(kinds) + (", or null" if NoneType in inner else "")
    if origin is tuple:
        listed = type_text(inner[0], metadata)
        return f"list of any of {listed}" if get_origin(inner[0]) is Literal else f"list of {listed}"
    if origin is dict:
        return f"mapping of {type_text(inner[0], [])} to {type_text(inner[1], [])}"
    if model_in(annotation):
        return "section"
    bounds = [f"{word} {getattr(one, key):g}" for one in metadata for key, word in BOUNDS.items() if hasattr(one, key)]
    return " ".join([SCALARS[annotation], *filter(None, [" and ".join(bounds)])])


def _bounds_of(metadata: tuple[Any, ...]) -> list[Any]:
    return [bound for one in metadata for bound in (one.metadata if isinstance(one, FieldInfo) else [one])]


def default_text(its: FieldInfo) -> str:
    """A key's default, as YAML has it."""
    if its.is_required():
        return "required"
    value = its.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its own"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def page() -> str:
    """The whole page, as Markdown."""
    lines = [PAGE, "## Shipped configurations", "", "| name | what it is |", "|---|---|"]
    for name in shipped_configs():
        first = (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
        lines.append(f"| `{name}` | {_cell(first.removeprefix('#').strip())} |")
    lines.append("")
    for section in sections():
        lines += _section(section)
    return "\n".join(lines).rstrip() + "\n"


def _section(section: Section) -> list[str]:
    """A heading, the summary, and a table for each group of keys."""
    depth = section.path.count(".")
    lines = ["#" * (2 + depth) + f" {section.path or 'All sections'}", ""]
    if section.same_as is not None:
        return [*lines, f"The keys are those of {_link(section.same_as)}.", ""]
    summary, groups = explained(section.kind)
    lines += [_cell(summary), ""]
    for group in groups:
        if group.title:
            lines += [f"*{group.title}*", ""]
        lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
        first: dict[str, str] = {}
        for name, text in group.keys.items():
            if len(text) > SHORT and first.setdefault(text, name) != name:
                text = f"see `{first[text]}`"
            its = section.kind.model_fields[name]
            value = type_text(its.annotation, its.metadata)
            if model_in(its.annotation):
                value = value.replace("section", _link(f"{section.path}.{name}".lstrip("."), "section"))
            lines.append(f"| `{name}` | {_cell(value)} | {default_text(its)} | {_cell(text)} |")
        lines.append("")
    return lines


def _link(path: str, text: str = "") -> str:
    return f"[{text or path}](#{path.replace('.', '')})"


def _cell(text: str) -> str:
    """Text as a table's cell shows it: nothing in it is markup but code, and None is what YAML calls it."""
    return re.sub(r"\bNone\b", "`null`", re.sub(r"(?<!`)([|*<])", r"\\\1", text))


if __name__ == "__main__":
    print(page(), end="")
