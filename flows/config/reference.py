"""The reference of a configuration, made from the code: every key with its value, its default and its text.

    python -m flows.config.reference > docs/configuration.md

`tests/flows/test_docs.py` fails where the page is not what this prints; `qcrd keys` prints the same in a terminal.

A key's text is the `description` of its pydantic field, which Prefect's form and the help of `qcrd` show as well.
pydantic would also read it from a docstring below the field (`use_attribute_docstrings`). That parses source code
whenever a class is made: 8 to 10 ms a class in a process that has many modules loaded, for 16 classes in every process
of a run; and where the source is out of reach it drops the texts without a word.

A comment that stands between an empty line and a field is the heading of that field and those that follow.
"""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import groupby
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from flows.config.distill import SHIPPED, DistillConfig, model_in, shipped_configs
from storage.datasets.custom import CustomDataset
from storage.errors import UsageError

PAGE = """\
# Configuration

Made from the code by `python -m flows.config.reference`; do not edit it. `qcrd keys` shows the same in a terminal.

A configuration is a YAML file with the sections below. `qcrd distill` takes its path, or the name of a shipped one, and
`--set section.key=value` wins over the file:

```sh
qcrd distill lab --set rounds.rounds=6 --set method.scheme=mean --set "compare=[dss, finetune]"
```

An unknown key or a value that is not allowed is answered with one line that says what is. `null` leaves a key out. A
configuration of your own needs `dataset.name`, `teacher` and `student.model`; the rest has defaults, which are the
paper's where the text says so. What the terms mean is in [distillation.md](distillation.md).
"""
DEFINITION = "A dataset of your own"
DOCS = re.compile(r"docs/(\w+\.md)")
HEADING = re.compile(r"\n\n    # (.+)\n    (\w+):")
SCALARS = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any value"}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


@dataclass(frozen=True)
class Key:
    """One key of a section.

    Attributes:
        path: "rounds.patience".
        group: heading that it stands under; empty where its section has none.
        value: what is allowed, in words.
        default: as YAML has it; "required" where there is none, "its own" for a section that may be left out.
        text: what it means.
        section: the model that its value is, or holds; None for any other value.
    """

    path: str
    group: str
    value: str
    default: str
    text: str
    section: type[BaseModel] | None = None


@dataclass(frozen=True)
class Section:
    """One model of a configuration.

    Attributes:
        path: "teacher.files"; empty for the configuration itself.
        kind: the model.
        same_as: path of an earlier section of the same model, which has its keys.
    """

    path: str
    kind: type[BaseModel]
    same_as: str | None = None

    @property
    def summary(self) -> str:
        """What it is about, in a sentence."""
        return " ".join((self.kind.__doc__ or "").partition("\n\n")[0].split())

    @property
    def keys(self) -> list[Key]:
        """Its keys, in the order of the code."""
        headings = {name: heading for heading, name in HEADING.findall(inspect.getsource(self.kind))}
        found, group = [], ""
        for name, its in self.kind.model_fields.items():
            group = headings.get(name, group)
            inner = model_in(its.annotation)
            value, text = type_text(its.annotation, its.metadata), its.description or ""
            found.append(Key(f"{self.path}.{name}".lstrip("."), group, value, default_text(its), text, inner))
        return found


def sections(root: type[BaseModel] = DistillConfig) -> Iterator[Section]:
    """A configuration's models, each before those inside it."""
    known: dict[type[BaseModel], str] = {}

    def walk(kind: type[BaseModel], path: str) -> Iterator[Section]:
        section = Section(path, kind, known.get(kind))
        yield section
        if section.same_as is None:
            known[kind] = path
            for key in section.keys:
                if key.section is not None:
                    yield from walk(key.section, key.path)

    yield from walk(root, "")


def keys_at(path: str) -> list[Key]:
    """The keys of a section of a distillation's configuration, or the one key of that path.

    Raises:
        UsageError: there is no such section or key; names the nearest one.
    """
    found = {section.path: section.keys for section in sections()}
    if path in found:
        return found[path]
    every = {key.path: key for keys in found.values() for key in keys}
    if path in every:
        return [every[path]]
    # "patience" alone is taken for the end of a path.
    ends = [name for name in every if name.endswith(f".{path}")] or get_close_matches(path, every, n=1, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, ends))}?" if ends else ""
    raise UsageError(f"Unknown key {path!r}.{hint} `qcrd keys` lists the sections, `qcrd keys SECTION` its keys.")


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
    if origin in (dict, Mapping):
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
        return f"{value:g}"
    return value if isinstance(value, str) and value else json.dumps(value)


def page() -> str:
    """The whole page, as Markdown."""
    lines = [PAGE, "## Shipped configurations", "", "| name | what it is |", "|---|---|"]
    for name in shipped_configs():
        first = (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
        lines.append(f"| `{name}` | {_cell(first.removeprefix('#').strip())} |")
    lines += ["", *_chapter(DistillConfig, "All sections", 2), *_chapter(CustomDataset, DEFINITION, 3)]
    return "\n".join(lines).rstrip() + "\n"


def _chapter(root: type[BaseModel], title: str, depth: int) -> Iterator[str]:
    """Every section: a heading, what it is about, and a table for each group of keys.

    Args:
        title: of the root, whose heading has two signs.
        depth: signs of the headings of the sections in it.
    """
    for section in sections(root):
        signs = depth + section.path.count(".") if section.path else 2
        yield from ("#" * signs + f" {section.path or title}", "")
        if section.same_as is not None:
            yield from (f"The keys are those of {_link(section.same_as)}.", "")
            continue
        yield from (DOCS.sub(r"[\1](\1)", _cell(section.summary)), "")
        for group, keys in groupby(section.keys, lambda key: key.group):
            if group:
                yield from (f"*{group}*", "")
            yield from ("| key | value | default | meaning |", "|---|---|---|---|")
            for key in keys:
                value = re.sub("section", _link(key.path, "section"), key.value) if key.section else _cell(key.value)
                default = key.default if key.default in ("its own", "required") else f"`{key.default}`"
                yield f"| `{key.path.rpartition('.')[2]}` | {value} | {default} | {_cell(key.text)} |"
            yield ""


def _link(path: str, text: str = "") -> str:
    return f"[{text or path}](#{path.replace('.', '')})"


def _cell(text: str) -> str:
    """Text as a table's cell shows it: nothing in it is markup but code."""
    return re.sub(r"(?<!`)([|*<])", r"\\\1", text)


if __name__ == "__main__":
    print(page(), end="")
