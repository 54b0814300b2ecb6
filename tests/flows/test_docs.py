"""What README.md and docs/ say exists: commands with their options, configuration keys, links, make targets."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from flows.cli import app
from flows.config.distill import checked, load_config, shipped_configs
from flows.config.reference import page
from tasks.training.spec import _NO_PART_OF_THE_ID

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def each_page() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))


def blocks(file: Path, *languages: str) -> Iterator[str]:
    for match in FENCE.finditer(file.read_text(encoding="utf-8")):
        if match[1] in languages:
            yield match[2]


def prose(file: Path) -> str:
    return FENCE.sub("", file.read_text(encoding="utf-8"))


def shell_lines(file: Path) -> Iterator[str]:
    """Lines that a reader would type, and code within sentences."""
    for text in blocks(file, "sh"):
        yield from text.replace("\\\n", " ").splitlines()
    for text in blocks(file, "console"):
        yield from (line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ "))
    yield from re.findall(r"`([^`\n]+)`", prose(file))


def words(line: str) -> list[str]:
    """A line's words up to a comment, a pipe or the next command."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    found: list[str] = []
    for word in lexer:
        if set(word) <= set("|&;<>"):
            break
        found.append(word)
    return found


def commands(file: Path, program: str) -> Iterator[list[str]]:
    """The words after `program` wherever it is run, variables set before it left out."""
    for line in shell_lines(file):
        stripped = re.sub(r"^ *(?:\w+=\S+ +)*", "", line)
        if re.match(rf"{program}(?: |$)", stripped) and "NAME_OR_FILE" not in stripped:
            yield words(stripped)[1:]


def command_named(names: list[str]) -> tuple[Any, list[str]]:
    """The command that some words begin with, and the words after its name."""
    command: Any = typer.main.get_command(app)
    while names and names[0] in getattr(command, "commands", {}):
        command, names = command.commands[names[0]], names[1:]
    return command, names


def options_of(command: Any) -> dict[str, Any]:
    return {name: option for option in command.params for name in option.opts if name.startswith("-")}


def test_configuration_page_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == page(), (
        "run: python -m flows.config.reference > docs/configuration.md"
    )


@each_page()
def test_every_qcrd_command_exists_with_its_options(file: Path) -> None:
    for given in commands(file, "qcrd"):
        command, rest = command_named(given)
        assert not getattr(command, "commands", None) or not rest or rest[0].isupper() or rest[0].startswith("-"), (
            f"no such command: qcrd {' '.join(given)}"
        )
        known = {*options_of(command), "--help", "-h"}
        for word in rest:
            option = word.partition("=")[0]
            if re.fullmatch(r"--?[a-z][a-z-]*", option):
                assert option in known, f"qcrd {' '.join(given)}: no {option}; there are {sorted(known)}"


@each_page()
def test_every_setting_and_shipped_configuration_exists(file: Path) -> None:
    for given in commands(file, "qcrd"):
        command, rest = command_named(given)
        if command.name != "distill":
            continue
        if rest and not rest[0].startswith("-") and not rest[0].endswith(".yaml") and not rest[0].isupper():
            assert rest[0] in shipped_configs(), f"qcrd {' '.join(given)}"
        settings = [rest[place + 1] for place, word in enumerate(rest) if word == "--set"]
        for setting in settings:
            key, _, value = setting.partition("=")
            # A fold needs its number of folds; a shell variable is any number.
            more = ["dataset.folds=9"] if key == "dataset.fold" else []
            load_config("lab", [*more, f"{key}={'1' if value.startswith('$') else value}"])


@each_page()
def test_every_key_in_a_sentence_exists(file: Path) -> None:
    """`section.key` and `section.key: value`, with a section's name."""
    sections = set(load_config("lab").model_dump())
    for code in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?:: [^`]*|=[^`]*)?`", prose(file)):
        section, *keys = code.split(".")
        place: Any = load_config("lab", ["student.lora={}"] if "lora" in keys else []).model_dump()
        if section not in sections or keys == ["py"]:  # registry.py is a file
            continue
        for key in code.split("."):
            assert isinstance(place, dict), code
            assert key in place, f"{file.name}: no key {code}"
            place = place[key]


@each_page()
def test_every_yaml_block_is_a_configuration(file: Path) -> None:
    """Blocks that hold sections of a configuration are allowed as they stand; alternatives stand one a line."""
    sections = set(load_config("lab").model_dump())
    least = {"dataset": {"name": "lab"}, "teacher": {"model": "lab"}, "student": {"model": "new"}}
    for text in blocks(file, "yaml"):
        lines = text.splitlines()
        several = len({line.partition(":")[0] for line in lines}) == 1 < len(lines)
        for one in lines if several else [text]:
            content = yaml.safe_load(one)
            if content.keys() <= sections:
                checked(least | content)


@each_page()
def test_every_relative_link_resolves(file: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(file)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (file.parent / path).resolve() if path else file
        assert linked.exists(), f"{file.name}: {target}"
        if anchor:
            assert anchor in anchors(linked), f"{file.name}: {target}"


def anchors(file: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(file), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page()
def test_every_make_target_exists(file: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for given in commands(file, "make"):
        for word in given:
            assert word in targets or "=" in word, f"{file.name}: make {word}"


@each_page()
def test_every_module_that_is_run_exists(file: Path) -> None:
    for given in commands(file, "python"):
        if given[:1] == ["-m"]:
            module = ROOT.joinpath(*given[1].split("."))
            assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file(), f"{file.name}: {given[1]}"


@pytest.mark.parametrize(("section", "keys"), _NO_PART_OF_THE_ID.items())
def test_settings_that_change_only_speed_are_listed(section: str, keys: set[str]) -> None:
    text = (ROOT / "docs" / "distillation.md").read_text(encoding="utf-8")
    told = text.partition("These keys change only speed")[2].partition("\n\n")[0]
    assert set(re.findall(rf"`{section}\.(\w+)`", told)) == keys
