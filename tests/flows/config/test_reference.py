"""The text of every key: there is one, it stands once, and it is found wherever people read."""

import inspect
from typing import Any

import pytest
import typer
from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel

from flows.cli import app
from flows.config.distill import DistillConfig
from flows.config.reference import HEADING, Key, Section, keys_at, page, sections
from flows.distill import distill
from storage.datasets.custom import CustomDataset
from storage.errors import UsageError
from storage.votes import VotesConfig
from tasks.questions.sets import DatasetConfig
from tasks.teacher.settings import Price, RecordedFile, TeacherSettings

NAMES = ("svamp", "package.module:function", "qcrd")  # a text may begin with a name that is written small
KEYS = [key for root in (DistillConfig, CustomDataset) for section in sections(root) for key in section.keys]


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.path)
def test_a_key_has_a_text_that_says_more_than_its_name(key: Key) -> None:
    assert len(key.text.split()) > 1
    assert key.text.endswith(".")
    assert key.text[0].isupper() or key.text.startswith(("`", *NAMES))
    name = key.path.rpartition(".")[2].replace("_", " ")
    assert key.text.lower().strip(".").removeprefix("the ") != name


def test_no_section_of_the_configuration_is_left_out() -> None:
    paths = [section.path for section in sections()]
    assert len(paths) == len(set(paths))
    assert {"", *DistillConfig.model_fields} - {"compare", "compare_rounds"} <= set(paths)
    assert {"teacher.files", "teacher.price", "student.new", "student.lora", "discriminator.new"} <= set(paths)
    assert [section.same_as for section in sections() if section.path == "discriminator.new"] == ["student.new"]


def test_a_comment_above_a_field_heads_it_and_those_that_follow() -> None:
    groups = {key.path: key.group for key in keys_at("method")}
    assert groups["method.name"] == groups["method.labels"] == "The method"
    assert groups["method.label_weight"] == groups["method.mi_weight"] == "The loss"
    assert groups["method.contrast"] == groups["method.beta"] == "The contrast"
    assert {key.group for key in keys_at("votes")} == {""}


@pytest.mark.parametrize("section", list(sections()), ids=lambda section: section.path)
def test_every_heading_stands_above_a_field(section: Section) -> None:
    assert {name for _, name in HEADING.findall(inspect.getsource(section.kind))} <= section.kind.model_fields.keys()


def test_a_key_tells_what_is_allowed_and_its_default_as_yaml_has_it() -> None:
    told = {key.path: (key.value, key.default) for key in KEYS}
    assert told["rounds.rounds"] == ("whole number at least 1", "20")
    assert told["rounds.patience"] == ("whole number at least 1, or null", "null")
    assert told["negatives.lag"] == ("whole number at least 1, or `fixed`, `none`", "5")
    assert told["student.model"] == ("text", "required")
    assert told["dataset.paths"] == ("mapping of text to text", "{}")
    assert told["teacher.files"] == ("list of section", "[]")
    assert told["teacher.price"] == ("section", "its own")
    assert told["optimisation.learning_rate"] == ("number above 0", "0.0003")
    assert told["compare"][0].startswith("list of any of `finetune`, ")


def test_a_section_or_a_key_is_found_by_its_path() -> None:
    assert [key.path for key in keys_at("")] == list(DistillConfig.model_fields)
    assert [key.path for key in keys_at("teacher.price")] == [
        "teacher.price.per_million_prompt",
        "teacher.price.per_million_completion",
        "teacher.price.per_million_reasoning",
    ]
    [patience] = keys_at("rounds.patience")
    assert patience.text.startswith("Stop after this many rounds")
    assert keys_at("discriminator.new")[0].path == "discriminator.new.architecture"


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("round", "Did you mean 'rounds'? "),
        ("rounds.patiense", "Did you mean 'rounds.patience'? "),
        ("patience", "Did you mean 'rounds.patience'? "),
        ("zzzz", ""),
    ],
)
def test_a_path_that_is_none(path: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        keys_at(path)
    assert str(caught.value) == (
        f"Unknown key {path!r}. {hint}`qcrd keys` lists the sections, `qcrd keys SECTION` its keys."
    )


# ---- where people read it ----


def test_the_page_has_every_text() -> None:
    lines = page().replace("\\", "").splitlines()
    for key in KEYS:
        if not key.path.startswith("discriminator.new."):  # explained as student.new
            assert any(f"`{key.path.rpartition('.')[2]}`" in line and key.text in line for line in lines), key.path


def test_the_form_on_prefects_pages_has_every_text() -> None:
    schema = parameter_schema(distill).model_dump()
    models: dict[str, Any] = schema["definitions"]
    for kind in {section.kind for section in sections()}:
        for name, its in kind.model_fields.items():
            shown = models[kind.__name__]["properties"][name]
            # pydantic leaves out a section's text where it is the section's own docstring, word for word.
            section = models.get(shown.get("$ref", "").rpartition("/")[2], {})
            assert shown.get("description", section.get("description")) == its.description, f"{kind.__name__}.{name}"
    assert all(shown["description"] for shown in schema["properties"].values())


def options_of(command: str) -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return {option.name: option for option in group.commands[command].params}


# Options of the command line that set a key of a configuration, too.
TOLD: list[tuple[str, str, type[BaseModel], str]] = [
    *(("sample", name, TeacherSettings, name) for name in (
        "model", "url", "name", "n", "temperature", "top_p", "max_tokens", "seed", "logprobs", "api", "in_flight",
        "retries", "port", "rationale", "instruction", "doubt", "batch",
    )),
    ("sample", "timeout", TeacherSettings, "timeout_s"),
    ("sample", "price_prompt", Price, "per_million_prompt"),
    ("sample", "price_completion", Price, "per_million_completion"),
    ("sample", "price_reasoning", Price, "per_million_reasoning"),
    ("import", "rationale", TeacherSettings, "rationale"),
    *(("vote", name, VotesConfig, name) for name in ("n", "seed", "positives", "check_arithmetic")),
    ("import", "file", RecordedFile, "path"),
    ("import", "answers", RecordedFile, "answers"),
    ("import", "mapping", RecordedFile, "columns"),
    *((command, "dataset", DatasetConfig, "name") for command in ("sample", "vote", "import", "evaluate")),
]  # fmt: skip


@pytest.mark.parametrize(("command", "option", "section", "key"), TOLD)
def test_an_option_that_sets_a_key_has_its_text_and_its_default(
    command: str, option: str, section: type[BaseModel], key: str
) -> None:
    its = section.model_fields[key]
    shown = options_of(command)[option]
    assert its.description in shown.help
    if not its.is_required() and key != "columns":
        assert str(shown.default) == str(its.default)


def test_the_help_of_distill_names_every_section() -> None:
    text = typer.main.get_command(app).commands["distill"].help  # type: ignore[attr-defined]
    assert [name for name in DistillConfig.model_fields if name not in text] == []
