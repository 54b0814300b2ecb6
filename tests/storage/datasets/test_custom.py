"""A user's own dataset from a YAML file, and what is said when the file is wrong."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from storage.datasets.custom import RESERVED_FIELDS
from storage.datasets.definition import Dataset, Parsed
from storage.datasets.registry import BUILT_IN, get_dataset
from storage.errors import BadFile
from storage.recorded import read_recorded

TICKETS: dict[str, Any] = {
    "name": "tickets",
    "answers": "label",
    "labels": ["low", "high"],
    "synonyms": {"high": ["urgent", "asap"]},
    "question": "Ticket: {ticket}",
    "fields": {"label": "priority"},
    "splits": {"train": "tickets.csv"},
    "instruction": "Say how urgent the ticket is.",
    "exemplars": [{"question": "Ticket: shop down", "rationale": "Nobody can buy.", "answer": "high"}],
}


def dataset(folder: Path, **changes: Any) -> Dataset:
    (folder / "tickets.csv").write_text("ticket,priority,id\nprinter on fire,URGENT,7\nnew mouse please,0,8\n")
    settings = {key: value for key, value in (TICKETS | changes).items() if value is not None}
    path = folder / "tickets.yaml"
    path.write_text(yaml.safe_dump(settings))
    return get_dataset(str(path))


def complaint(folder: Path, **changes: Any) -> str:
    with pytest.raises(BadFile) as caught:
        dataset(folder, **changes)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{folder / 'tickets.yaml'}: ")


def test_labels(tmp_path: Path) -> None:
    tickets = dataset(tmp_path)
    first, second = tickets.load("train")
    assert (first.question, first.label, first.extra) == ("Ticket: printer on fire", "high", {"id": "7"})
    assert second.label == "low"
    assert tickets.name == "tickets"
    assert tickets.parse("It burns. So the answer is urgent.", ()).answer == "high"
    prompt = tickets.teacher_prompt(first.question, ())
    assert prompt.plain == (
        "Say how urgent the ticket is.\n\nQ: Ticket: shop down\nA: Nobody can buy. So the answer is high.\n\n"
        "Q: Ticket: printer on fire\nA:"
    )


def test_columns_may_be_in_objects_and_rows_without_a_label_lack_it(tmp_path: Path) -> None:
    lines = [
        '{"case": {"body": "lamp", "said": {"urgency": "asap"}}}',
        '{"case": {"body": "pump"}}',
        '{"case": {"body": "door", "said": null}}',
    ]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    fields = {"ticket": "case.body", "label": "case.said.urgency"}
    tickets = dataset(tmp_path, fields=fields, splits={"train": "c.jsonl"})
    assert [(one.question, one.label) for one in tickets.load("train")] == [
        ("Ticket: lamp", "high"), ("Ticket: pump", None), ("Ticket: door", None),
    ]  # fmt: skip
    (tmp_path / "c.jsonl").write_text('{"ticket": "lamp"}\n{"ticket": "pump"}\n')
    with pytest.raises(BadFile, match=r"no column 'urgency'\. .*It is the label\."):
        list(dataset(tmp_path, fields={"label": "urgency"}, splits={"train": "c.jsonl"}).load("train"))
    (tmp_path / "c.jsonl").write_text('{"ticket": "lamp", "Priority": "high"}\n')
    with pytest.raises(BadFile, match=r"row 1: no column 'priority'\. Did you mean 'Priority'\?"):
        list(dataset(tmp_path, splits={"train": "c.jsonl"}).load("train"))


def test_a_file_in_another_encoding(tmp_path: Path) -> None:
    text = "ticket,priority\nTür klemmt,urgent\n"
    tickets = dataset(tmp_path, encoding="cp1252")
    for written in ("cp1252", "utf-8"):
        (tmp_path / "tickets.csv").write_bytes(text.encode(written))
        (tmp_path / "more.csv").write_bytes(text.encode(written))
        assert [one.question for one in tickets.load("train")] == ["Ticket: Tür klemmt"]
        assert [one.question for one in tickets.load("train", str(tmp_path / "more.csv"))] == ["Ticket: Tür klemmt"]
    assert complaint(tmp_path, encoding="cp1225").startswith("encoding is 'cp1225', which is none; allowed: cp1252, ")


def test_a_number_is_a_synonym_only_as_a_whole_answer(tmp_path: Path) -> None:
    tickets = dataset(tmp_path, synonyms={"low": ["1"], "high": ["2"]})
    (tmp_path / "tickets.csv").write_text("ticket,priority\na,2\nb,1\nc,2.0\n")
    assert [one.label for one in tickets.load("train")] == ["high", "low", "high"]
    assert tickets.parse("So the answer is 2.", ()).answer == "high"
    assert tickets.parse("There are 2 of them, which is low.", ()).answer == "low"


def test_numbers_and_choices(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "q?", "choices": ["sea", "land"], "label": "b"}\n')
    plain = {"labels": None, "synonyms": None, "question": None, "fields": None, "exemplars": None}
    choice = dataset(tmp_path, **plain, answers="choice", splits={"test": "q.jsonl"})
    [example] = choice.load("test")
    assert (example.choices, example.label) == (("sea", "land"), "land")
    number = dataset(tmp_path, **plain, answers="number")
    assert number.parse("So the answer is (84 / 2).", ()).answer == "42"


def test_python_entry_points(tmp_path: Path) -> None:
    (tmp_path / "mine_for_test.py").write_text(
        "def read(text, choices):\n    if 'boom' in text:\n        raise KeyError(text)\n"
        "    head, mark, tail = text.partition('=>')\n    return (head, tail) if mark else None\n"
        "def tidy(answer, choices):\n    return answer.strip().upper() or None\n"
    )
    changes = {"answers": "custom", "labels": None, "synonyms": None, "exemplars": None}
    own = dataset(tmp_path, **changes, parser="mine_for_test:read", normaliser="mine_for_test:tidy")
    parsed = own.parse("because => abc", ())
    assert (parsed.rationale, parsed.answer, parsed.parse_error) == ("because ", "ABC", None)
    assert own.parse("nothing", ()).parse_error == "no answer found"
    assert own.parse("boom", ()).parse_error == "parser failed: KeyError"
    assert next(own.load("train")).label == "URGENT"


def test_python_entry_points_that_return_strange_things(tmp_path: Path) -> None:
    (tmp_path / "strange_for_test.py").write_text(
        "import sys\nfrom storage.datasets.definition import Parsed\n"
        "def read(text, choices):\n"
        "    if text == 'exit':\n        sys.exit(3)\n"
        "    return {'three': (1, 2, 3), 'number': Parsed(text, 42, None), 'none': Parsed(text, None, 'odd'),\n"
        "            'pair': ('\\ud800', 7)}.get(text, text)\n"
        "def tidy(answer, choices):\n"
        "    return '\\ud800' if answer == 'half' else answer\n"
    )
    changes = {"answers": "custom", "labels": None, "synonyms": None, "exemplars": None}
    own = dataset(tmp_path, **changes, parser="strange_for_test:read", normaliser="strange_for_test:tidy")
    assert own.parse("three", ()) == Parsed("three", None, "parser failed: ValueError")
    assert own.parse("exit", ()) == Parsed("exit", None, "parser failed: SystemExit")
    assert own.parse("number", ()) == Parsed("number", "42", None)
    assert own.parse("none", ()) == Parsed("none", None, "odd")
    assert own.parse("pair", ()) == Parsed("\ufffd", "7", None)
    assert own.parse("half", ()) == Parsed("half", "\ufffd", None)


@pytest.mark.parametrize(
    "written", ["yes, no", "on, off", "1, 2, 3, 4, 5", "2.50, 3.00", "2021-03-05, 2021-03-06", "0x10, 1_000", "y, n"]
)
def test_labels_are_the_texts_that_stand_there(tmp_path: Path, written: str) -> None:
    names = written.split(", ")
    (tmp_path / "d.yaml").write_text(f"name: d\nanswers: label\nlabels: [{written}]\nsplits: {{train: d.csv}}\n")
    (tmp_path / "d.csv").write_text("question,label\n" + "".join(f"q{name},{name}\n" for name in names))
    own = get_dataset(str(tmp_path / "d.yaml"))
    assert [example.label for example in own.load("train")] == names
    assert [own.parse(f"So the answer is {name}.", ()).answer for name in names] == names


def test_synonyms_and_exemplars_are_texts_too(tmp_path: Path) -> None:
    changes = {
        "labels": None, "synonyms": None, "exemplars": None, "question": None, "fields": None, "answers": "number",
        "description": None,
    }  # fmt: skip
    dataset(tmp_path, **changes)
    with (tmp_path / "tickets.yaml").open("a") as file:
        file.write("description: 2024\nparser: null\nexemplars: [{question: 40 + 2, rationale: No, answer: 42}]\n")
    own = get_dataset(str(tmp_path / "tickets.yaml"))
    assert own.description == "2024"
    assert own.teacher_prompt("?", ()).turns == (("40 + 2", "No So the answer is 42."),)


CHOICES = {"labels": None, "synonyms": None, "question": "{q}", "answers": "choice", "exemplars": None}


def test_choices_in_columns_of_their_own(tmp_path: Path) -> None:
    rows = ["Where?,sea,,land,air,{}"] * 6
    marks = ["A", "option_3", "4", "land", "", "d"]
    lines = "\n".join(row.format(mark) for row, mark in zip(rows, marks, strict=True))
    (tmp_path / "q.csv").write_text(f"q,option_1,option_2,option_3,option_4,right\n{lines}\n")
    fields = {"label": "right", "choices": ["option_1", "option_2", "option_3", "option_4"]}
    own = dataset(tmp_path, **CHOICES, fields=fields, splits={"train": "q.csv"})
    examples = list(own.load("train"))
    assert {example.choices for example in examples} == {("sea", "land", "air")}
    assert [example.label for example in examples] == ["sea", "land", "air", "land", None, "air"]
    assert examples[0].extra == {}
    (tmp_path / "q.csv").write_text("q,option_1,option_2,option_3,option_4,right\nWhere?,sea,,land,air,b\n")
    with pytest.raises(BadFile, match="label 'b' must be one of a, c, d"):  # the cell of b is empty
        list(own.load("train"))
    own = dataset(tmp_path, **CHOICES, fields=fields | {"choices": ["option_1", "option_9"]}, splits={"train": "q.csv"})
    with pytest.raises(BadFile, match=r"no column 'option_9'\. Did you mean 'option_\d'\?"):
        list(own.load("train"))


def test_choice_labels_say_what_the_file_calls_the_choices(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(
        '{"q": "Where?", "choices": ["1", "0", "2"], "label": 0}\n'
        '{"q": "When?", "choices": ["now", "then"], "label": 1}\n'
    )
    own = dataset(tmp_path, **CHOICES, fields=None, splits={"train": "q.jsonl"}, choice_labels=[0, 1, 2])
    assert [example.label for example in own.load("train")] == ["1", "then"]
    own = dataset(tmp_path, **CHOICES, fields=None, splits={"train": "q.jsonl"}, choice_labels=[0, 1])
    with pytest.raises(BadFile, match="row 1: it has 3 choices, and choice_labels names 2"):
        list(own.load("train"))


def test_one_file_may_hold_several_splits(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("ticket,priority,part\na,low,train\nb,high, test\nc,high,train\n")
    splits = {"train": "t.csv", "test": "t.csv", "dev": "t.csv"}
    own = dataset(tmp_path, splits=splits, split_column="part")
    assert [example.question for example in own.load("train")] == ["Ticket: a", "Ticket: c"]
    assert [example.question for example in own.load("test")] == ["Ticket: b"]
    with pytest.raises(BadFile, match=r"t\.csv has no row with 'dev' in its column 'part'; it has train, test"):
        list(own.load("dev"))
    own = dataset(tmp_path, splits=splits, split_column="prat")
    with pytest.raises(BadFile, match=r"no column 'prat'\. Did you mean 'part'\?"):
        list(own.load("train"))


def test_module_that_exits_when_imported(tmp_path: Path) -> None:
    (tmp_path / "exits_for_test.py").write_text("import sys\nsys.exit('bye\\nbye')\n")
    assert complaint(tmp_path, parser="exits_for_test:f") == (
        "parser 'exits_for_test:f' cannot be imported: SystemExit: bye bye"
    )


def test_every_built_in_name_is_reserved(tmp_path: Path) -> None:
    for name in BUILT_IN:
        assert complaint(tmp_path, name=name) == f"name: {name!r} is a built-in dataset; choose another name"


def test_flat_samples_can_be_imported(tmp_path: Path) -> None:
    path = tmp_path / "recorded.csv"
    path.write_text("ticket,priority,text,answer\nprinter on fire,high,It burns.,urgent\n")
    [question] = read_recorded(path, dataset(tmp_path))
    assert (question.example.question, question.example.label) == ("Ticket: printer on fire", "high")
    assert (question.samples[0].text, question.samples[0].answer) == ("It burns.", "urgent")


def test_a_column_with_a_reserved_name_can_be_renamed(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,priority\nprinter on fire,high\n")
    changes = {"fields": {"ticket": "text", "label": "priority"}, "splits": {"train": "t.csv"}}
    assert next(dataset(tmp_path, **changes).load("train")).question == "Ticket: printer on fire"


@pytest.mark.parametrize("name", RESERVED_FIELDS)
def test_reserved_fields(tmp_path: Path, name: str) -> None:
    assert complaint(tmp_path, question=f"{{{name}}}").startswith(f"question names the field {name!r}")


@pytest.mark.parametrize("question", ["{q!x}", "{q!r}", "{q:d}", "{q:>99999999999}", "{q:{a}}", "{q.a}", "{}", "{0}"])
def test_only_names_between_braces(tmp_path: Path, question: str) -> None:
    assert complaint(tmp_path, question=question) == (
        f"question is {question!r}; only a column's name may stand between braces, as in '{{ticket}}'"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"anwsers": "label"},
            "unknown key 'anwsers' (value 'label'); allowed: name, description, answers, labels, synonyms, "
            "choice_labels, decimals, parser, normaliser, question, fields, most_words, splits, encoding, hub, "
            "split_column, instruction, exemplars. "
            "Did you mean 'answers'?",
        ),
        (
            {"answers": "lable"},
            "answers is 'lable'; allowed: number, choice, label, labels, custom. Did you mean 'label'?",
        ),
        ({"name": "svamp"}, "name: 'svamp' is a built-in dataset; choose another name"),
        (
            {"question": "Ticket: {text}"},
            "question names the field 'text', which is reserved (as are teacher, answer, thought, "
            "finish_reason, samples, label); choose another name, as in fields: {ticket: text}",
        ),
        ({"name": None}, "the key 'name' is missing"),
        ({"labels": ["one"], "synonyms": None}, "labels: list at least two, since answers are labels"),
        ({"synonyms": {"hihg": ["x"]}}, "synonyms: 'hihg' is not a label; allowed: low, high. Did you mean 'high'?"),
        ({"synonyms": {"low": ["High"]}}, "'high' means both 'low' and 'high'"),
        ({"answers": "number"}, "labels: only for answers: label or labels, not for answers: number"),
        ({"labels": ["low", None]}, "labels.1 is empty; write a text (the word null in quotes)"),
        ({"fields": {"label": ["a", "b"]}}, "fields: label must name one column; only choices may stand in several"),
        ({"choice_labels": ["a", "b"]}, "choice_labels: only where there are choices"),
        (
            {"fields": {"choices": ["a", "b"]}, "choice_labels": [0, 1, 2]},
            "choice_labels: 3 for the 2 columns of fields.choices",
        ),
        (
            {"answers": "custom", "labels": None, "synonyms": None},
            'parser: name a function as "package.module:function", since answers are custom',
        ),
        ({"parser": "json"}, "parser is 'json'; write \"package.module:function\""),
        ({"parser": "json:lods"}, "parser 'json:lods': the module has no function 'lods'"),
        (
            {"parser": "no_such_module:f"},
            "parser 'no_such_module:f' cannot be imported: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        (
            {"question": "no column"},
            "question is 'no column'; it must name at least one column in braces, as in '{ticket}'",
        ),
        (
            {"exemplars": [{"question": "q", "rationale": "r", "answer": "middling"}]},
            "the exemplar 'q' of tickets answers 'middling', which its own parser reads as None",
        ),
        (
            {"exemplars": [{"question": "q", "rational": "r", "answer": "low", "rationale": "r"}]},
            "unknown key 'exemplars.0.rational' (value 'r'); allowed: question, rationale, answer, choices. "
            "Did you mean 'rationale'?",
        ),
    ],
)
def test_complaints(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert complaint(tmp_path, **changes) == message


def test_file_problems(tmp_path: Path) -> None:
    path = tmp_path / "d.yaml"
    with pytest.raises(BadFile, match=r"^No such dataset file: .*d\.yaml$"):
        get_dataset(str(path))
    path.write_text("name: [")
    with pytest.raises(BadFile, match=r"d\.yaml is not YAML: "):
        get_dataset(str(path))
    path.write_text("name: 2020-99-99")  # an impossible date, and a possible name
    with pytest.raises(BadFile, match=r"d\.yaml: the key 'answers' is missing"):
        get_dataset(str(path))
    with pytest.raises(BadFile, match="File name too long"):
        get_dataset("x" * 300 + ".yaml")
    path.write_text("[a, b]: c")
    with pytest.raises(BadFile, match=r"d\.yaml is not YAML: a key must be a text"):
        get_dataset(str(path))
    path.write_text("a: &a [*a]")  # a list that holds itself
    with pytest.raises(BadFile, match=r"d\.yaml is not YAML: "):
        get_dataset(str(path))
    path.write_text("- a\n- b\n")
    with pytest.raises(BadFile, match="must consist of keys and values"):
        get_dataset(str(path))


def test_missing_data_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"^No such file: .*absent\.jsonl$"):
        next(dataset(tmp_path, splits={"train": "absent.jsonl"}).load("train"))
