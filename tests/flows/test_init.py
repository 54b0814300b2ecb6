"""`qcrd init`: from a file that nobody prepared to files that the other commands take."""

import csv
import json
import os
import pty
import select
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.own_data import write_files
from flows.cli import run
from flows.config.distill import load_config
from storage.datasets.registry import get_dataset

Say = Callable[..., tuple[int, str, str]]
TICKETS = [
    ("The pump in the cellar is loud; please look", "high"),
    ("A new mouse, please", "low"),
    ('Nobody can pay since nine, the page says "error"', "high"),
    ("The lamp above desk 4 flickers", "low"),
]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs a command in a folder of its own; returns its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")  # no row of a table is broken in two
    monkeypatch.setenv("TERM", "xterm")  # a dumb terminal has 80 columns, whatever that says

    def run_it(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(list(arguments))
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run_it


def write_tickets(path: Path, separator: str = ",", times: int = 5) -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerows([["No", "ticket", "priority"], *([i, *TICKETS[i % 4]] for i in range(4 * times))])


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tickets_become_two_files_that_are_read(say: Say, separator: str) -> None:
    write_tickets(Path("support tickets.csv"), separator)
    code, shown, told = say("init", "support tickets.csv", "--yes")
    assert code == 0, told
    flat = " ".join(shown.split())
    assert "question ticket its name (--question)" in flat
    assert "labels high,low" in flat
    assert "not used No" in flat
    assert "A fifth of the questions is the test, and a tenth of the others validates." in shown
    assert "5 of 5" in shown
    assert shown.count("label: ") == 5
    assert "  The pump in the cellar is loud; please look" in shown
    assert "qcrd sample --dataset support-tickets.yaml --limit 20 --url https://host/v1 --model big-model" in shown

    dataset = get_dataset("support-tickets.yaml")
    examples = list(dataset.load("train"))
    assert [(one.question, one.label) for one in examples[:4]] == TICKETS
    assert dataset.parse("Nobody works. So the answer is HIGH.", ()).answer == "high"
    config = load_config("support-tickets-student.yaml")
    assert (config.dataset.name, config.dataset.folds) == ("support-tickets.yaml", 5)
    assert config.student.max_input_tokens == 128
    written = Path("support-tickets.yaml").read_text(), Path("support-tickets-student.yaml").read_text()
    assert all("# " in text for text in written)
    assert "QCRD_TEACHER_API_KEY" in written[1]


def test_every_guess_can_be_given(say: Say) -> None:
    rows = [{"a": f"case {i}", "b": "more", "kind": "xy"[i % 2], "set": ["train", "test"][i % 2]} for i in range(12)]
    pq.write_table(pa.Table.from_pylist(rows), "q.parquet")
    code, shown, told = say(
        "init", "q.parquet", "--question", "Case: {a}\\nNote: {b}", "--label", "kind", "--answers", "label", "--labels",
        "y,x,z", "--split", "set", "--choices", "none", "--choice-labels", "none", "--name", "cases",
        "--url", "http://127.0.0.1:9/v1", "--model", "m",
    )  # fmt: skip
    assert code == 0, told
    assert shown.count("given with --") == 5  # what is none is not shown, but for label and split
    dataset, config = get_dataset("cases.yaml"), load_config("cases-student.yaml")
    assert next(iter(dataset.load("test"))).question == "Case: case 1\nNote: more"
    assert len(list(dataset.load("train"))) == 6
    assert "y, x or z" in dataset.teacher_prompt("", ()).system
    assert (config.dataset.validation_split, config.dataset.test_split) == (None, "test")
    assert (config.teacher.url, config.teacher.model) == ("http://127.0.0.1:9/v1", "m")


def test_files_beside_it_are_its_other_splits(say: Say) -> None:
    Path("data").mkdir()
    for part, count in (("train", 12), ("dev", 3), ("test", 4)):
        rows = "".join(json.dumps({"problem": f"{part} {i}?", "result": i / 4}) + "\n" for i in range(count))
        Path(f"data/sums-{part}.jsonl").write_text(rows)
    code, shown, told = say("init", "data/sums-train.jsonl", "--yes")
    assert code == 0, told
    assert (
        "Training questions: data/sums-train.jsonl; data/sums-dev.jsonl validates, data/sums-test.jsonl tests." in shown
    )
    dataset, config = get_dataset("sums.yaml"), load_config("sums-student.yaml")
    assert {split: len(list(dataset.load(split))) for split in dataset.splits} == {
        "train": 12,
        "validation": 3,
        "test": 4,
    }
    assert (config.dataset.validation_split, config.dataset.test_split, config.dataset.folds) == (
        "validation",
        "test",
        None,
    )
    code, _, _ = say("init", "data/sums-dev.jsonl", "--test", "data/sums-test.jsonl", "--name", "other", "--yes")
    assert (code, get_dataset("other.yaml").splits) == (0, ("train", "test"))


def test_what_exists_is_left_as_it_is(say: Say) -> None:
    write_tickets(Path("tickets.csv"))
    Path("tickets-student.yaml").write_text("mine")
    code, _, told = say("init", "tickets.csv", "--yes")
    assert code == 2
    assert told == ("qcrd: tickets-student.yaml exists and is left as it is; choose another --name, or move it away.\n")
    assert not Path("tickets.yaml").exists()
    assert Path("tickets-student.yaml").read_text() == "mine"


def test_what_cannot_be_read_is_told_before_distill_does(say: Say) -> None:
    write_tickets(Path("tickets.csv"))
    with Path("tickets.csv").open("a") as file:
        file.write("20,,low\n21,Whose is this?,\n22,,high\n")
    code, _, told = say("init", "tickets.csv", "--yes")
    assert code == 1
    assert "20 of 21 rows have a label." in told
    assert "2 rows cannot be read; the first: tickets.csv row 21: ticket is empty." in told


@pytest.mark.parametrize(
    ("rows", "options", "complaint"),
    [
        ([{"text": "t", "priority": "ab"[i % 2], "queue": "xy"[i % 2]} for i in range(8)], [], "--label"),
        ([{"question": f"q{i}", "answer": f"so\n#### {i}"} for i in range(8)], [], "with --dataset gsm8k."),
        ([{"text": f"t{i}", "label": "ab"[i % 2]} for i in range(8)], ["--label", "lable"], "Did you mean 'label'?"),
        ([{"text": f"t{i}", "label": "ab"[i % 2]} for i in range(8)], ["--answers", "choice"], "needs the column"),
        ([{"text": f"t{i}", "label": "ab"[i % 2]} for i in range(8)], ["--labels", "a,b,A"], "means both"),
    ],
)  # fmt: skip
def test_what_cannot_be_guessed_or_is_wrong_is_one_line_and_writes_nothing(
    say: Say, rows: list[dict[str, str]], options: list[str], complaint: str
) -> None:
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, told = say("init", "a.jsonl", "--yes", *options)
    assert code == 2
    assert len(told.strip().splitlines()) == 1
    assert complaint in told
    assert not list(Path().glob("*.yaml"))


def test_codes_can_be_named(say: Say) -> None:
    Path("nli.csv").write_text("premise,hypothesis,label\n" + "".join(f"p {i},h {i},{i % 3}\n" for i in range(30)))
    code, _, told = say("init", "nli.csv", "--yes", "--name", "codes")
    assert (code, "name them, in the order 0, 1, 2: --labels a,b,c" in told) == (0, True)
    code, _, told = say("init", "nli.csv", "--yes", "--labels", "follows,open,contradicts")
    assert (code, "codes" in told) == (0, False)
    assert [one.label for one in get_dataset("nli.yaml").load("train", limit=3)] == ["follows", "open", "contradicts"]


def test_codes_that_do_not_count_from_0_keep_their_names(say: Say) -> None:
    Path("a.csv").write_text("text,class\n" + "".join(f"door {i},{i % 3 + 1}\n" for i in range(30)))
    code, _, told = say("init", "a.csv", "--yes")
    assert (code, "name them, in the order 1, 2, 3: --labels a,b,c" in told) == (0, True)
    assert say("init", "a.csv", "--yes", "--labels", "oak,ash,elm", "--name", "wood")[0] == 0
    wood = get_dataset("wood.yaml")
    assert [one.label for one in wood.load("train", limit=3)] == ["oak", "ash", "elm"]
    Path("b.csv").write_text("text,class\n" + "".join(f"door {i},{i % 2 + 1}) {'oa'[i % 2]}k\n" for i in range(30)))
    assert say("init", "b.csv", "--yes")[0] == 0
    assert get_dataset("b.yaml").parse("So the answer is ak.", ()).answer == "2) ak"


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """The three files of docs/own-data.md."""
    write_files(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("exports")
def test_exports_that_nobody_prepared(say: Say) -> None:
    code, shown, told = say("init", "tickets.csv", "--yes")
    flat = " ".join(shown.split())
    assert code == 0, told
    assert "question Subject,DESCRIPTION their names" in flat
    assert "labels Billing,Outage,Feature request,Account all that Category holds: 163, 86, 84, 68 times" in flat
    assert "401 of 410 rows have a label." in told
    assert "45 rows ask what an earlier row asks: 365 questions." in told

    code, shown, told = say("init", "anfragen.csv", "--yes")
    assert code == 0, told
    assert "anfragen.csv: read as cp1252, since it is not UTF-8 (--encoding); 410 rows" in shown
    assert "label Zuständige Abteilung its name" in " ".join(shown.split())
    labels = {one.label for one in get_dataset("anfragen.yaml").load("train")}
    assert labels == {"Buchhaltung", "Versand", "Technik", "Kündigung", None}

    code, shown, told = say("init", "documents.jsonl", "--yes")
    assert code == 0, told
    assert "answers labels labels holds lists" in " ".join(shown.split())
    assert "more than students read: a question takes its first 500 words (most_words)." in told
    documents = get_dataset("documents.yaml")
    examples = list(documents.load("train"))
    assert max(len(one.question.split()) for one in examples) == 500 + len(
        ["Title:", "Fwd:", "your", "letter", "Text:", "..."]
    )
    assert {"none", "billing, outage", None} <= {one.label for one in examples}
    assert documents.parse("So the answer is privacy, billing.", ()).answer == "billing, privacy"


def test_differing_labels_of_one_question_are_told(say: Say) -> None:
    lines = [f"pump {i} drips,{'ab'[i % 2]}" for i in range(20)]
    Path("a.csv").write_text("\n".join(["text,class", *lines, "pump 3 drips,a", "pump 4 drips,", "pump 5 drips,b"]))
    code, _, told = say("init", "a.csv", "--yes")
    assert code == 0
    assert "3 rows ask what an earlier row asks: 20 questions; 1 of these rows have another label" in told


def test_a_pipe_answers_and_its_end_takes_the_guesses(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": f"pump {i} drips", "priority": "ab"[i % 2], "queue": "xyz"[i % 3]} for i in range(18)]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("sys.stdin", StringIO("\nqueu\nqueue\n"))
    code, shown, told = say("init", "a.jsonl")
    assert code == 0, told
    assert "question (its name) [text]: \n" in shown
    assert "Did you mean 'queue'?" in told
    assert "Nobody answers: the rest is as guessed." in told
    assert {one.label for one in get_dataset("a.yaml").load("train")} == {"x", "y", "z"}


def test_choices_that_cannot_be_read_are_said_with_what_follows(say: Say) -> None:
    rows = "".join(f'which {i}?,"red, blue",red\n' for i in range(9))
    Path("a.csv").write_text("question,options,answer\n" + rows)
    code, _, told = say("init", "a.csv", "--yes")
    assert code == 2
    assert told.startswith("qcrd: answer of a.csv has one value only; list the classes: --labels low,high. options may")
    assert told.rstrip().endswith("the simplest is red|green|blue.")
    assert len(told.splitlines()) == 1


def test_a_built_in_name_is_not_taken(say: Say) -> None:
    Path("svamp_train.jsonl").write_text(
        "".join(json.dumps({"question": f"{i}?", "label": i}) + "\n" for i in range(12))
    )
    assert say("init", "svamp_train.jsonl", "--yes")[0] == 0
    assert get_dataset("my-svamp.yaml").name == "my-svamp"


AWKWARD = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=12).filter(
    lambda text: text.strip() == text and text.casefold() not in ("", "nan") and not set(text) & set("|{},")
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    columns=st.lists(AWKWARD, min_size=2, max_size=2, unique_by=str.casefold),
    names=st.lists(AWKWARD, min_size=2, max_size=3, unique_by=str.casefold),
)  # fmt: skip
def test_whatever_columns_and_classes_are_called(
    say: Say, tmp_path: Path, columns: list[str], names: list[str]
) -> None:
    for file in tmp_path.glob("*.yaml"):
        file.unlink()
    question, label = columns
    rows = [{question: f"case number {i} here", label: names[i % len(names)]} for i in range(9)]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, told = say("init", "a.jsonl", "--question", question, "--label", label, "--answers", "label", "--yes")
    if code == 2:  # one clear line, nothing half done
        assert len(told.strip().splitlines()) == 1
        assert not Path("a.yaml").exists()
        return
    assert code in (0, 1), told
    yaml.safe_load(Path("a-student.yaml").read_text())
    if code == 0:
        assert next(iter(get_dataset("a.yaml").load("train"))).question == "case number 0 here"


def test_a_terminal_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_tickets(tmp_path / "tickets.csv")
    command = [sys.executable, "-c", "from flows.cli import main; main()", "init", "tickets.csv"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(command[0], command)  # noqa: S606 - our own command
    # The question; the label, wrongly and rightly; everything else as guessed.
    answers = iter([b"\n", b"nonsense\n", b"priority\n", *[b"\n"] * 9])
    shown, asked, deadline = b"", 0, time.monotonic() + 120
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # Linux's way to say that nobody writes to the terminal any more
            break
        if shown[asked:].rstrip(b" ").endswith(b"]:"):
            asked = len(shown)
            os.write(terminal, next(answers))
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    text = shown.decode()
    assert os.waitstatus_to_exitcode(status) == 0, text
    assert "question (its name) [ticket]:" in text
    assert "Unknown column of --label 'nonsense'" in text
    assert "Wrote tickets.yaml and tickets-student.yaml" in text
    assert get_dataset("tickets.yaml").splits == ("train",)


def test_samples_of_its_dataset_are_imported_and_voted_on(
    say: Say, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QCRD_HOME", str(home))
    write_tickets(Path("tickets.csv"), ";", times=1)
    assert say("init", "tickets.csv", "--label", "priority", "--answers", "label", "--yes")[0] == 0
    with Path("samples.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ticket", "priority", "text"])
        writer.writerows(
            [ticket, priority, f"It says so. So the answer is {priority}."] for ticket, priority in TICKETS
        )
    assert say("import", "samples.csv", "--dataset", "tickets.yaml")[0] == 0
    _, shown, told = say("vote", "--dataset", "tickets.yaml", "--json")
    assert json.loads(shown)["majority_accuracy"] == 1.0, told


def test_a_german_exercise_book(say: Say) -> None:
    rows = [f"{n};Was kosten {n} Säfte zu je 1.400,50 €?;{n * 1400}{',5' if n % 2 else ''}" for n in range(1, 21)]
    rows += ["21;Wie viel sind 800 und 700?;1.500", "22;Was ist hier falsch?;#NV"]
    Path("Übungen.csv").write_bytes("\n".join(["Nr.;Aufgabe;Lösung", *rows]).encode("cp1252"))
    assert say("init", "Übungen.csv", "--yes")[0] == 0
    written = yaml.safe_load(Path("uebungen.yaml").read_text())
    assert (written["answers"], written["decimals"]) == ("number", "comma")
    assert "Write numbers as in 1.234,5." in written["instruction"]
    labels = [example.label for example in get_dataset("uebungen.yaml").load("train")]
    assert labels[0] == "1400.5"
    assert labels[20:] == ["1500", None]


def test_articles_with_paragraphs_and_tags_that_are_objects(say: Say) -> None:
    tags, text = ("sea", "air", "land"), "What {} was like in those days nobody here can tell any more."
    rows = [
        {"uuid": f"{n:012x}", "lang": "en",
         "article": {"headline": f"Part {n}", "body": {"paragraphs": [text.format(n), "The end."]}},
         "annotations": [{"tag": tag, "by": "x"} for tag in tags[: n % 4]]}
        for n in range(40)
    ]  # fmt: skip
    Path("articles.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, shown, told = say("init", "articles.jsonl", "--yes")
    assert code == 0, told
    assert "label     annotations" in shown
    examples = list(get_dataset("articles.yaml").load("train"))
    assert [example.label for example in examples[:4]] == ["none", "sea", "air, sea", "air, land, sea"]
    assert examples[0].question == f"Headline: Part 0\nParagraphs: {text.format(0)}\nThe end."


def test_tags_beside_a_class_are_asked_about_and_ids_are_no_questions(say: Say) -> None:
    words = ("The pump is loud today", "A new mouse please", "Nothing can be paid", "The lamp flickers again")
    rows = [f"{n:09d}x{n:09d}y,{words[n % 4]},{'ab'[n % 2]},{('red;blue', 'blue', 'red')[n % 3]}" for n in range(40)]
    Path("desk.csv").write_text("\n".join(["id,Words,Queue,Tags", *rows]))
    code, _, told = say("init", "desk.csv", "--yes")
    assert code == 2
    assert "could be the label: Queue, Tags." in told
    assert say("init", "desk.csv", "--label", "Queue", "--yes")[0] == 0
    assert yaml.safe_load(Path("desk.yaml").read_text())["question"] == "{Words}"
    student = Path("desk-student.yaml").read_text()
    assert "learning_rate: 1e-3" in student, "a new student needs it"
    assert load_config("desk-student.yaml").optimisation.learning_rate == 3e-4
    assert "desk.yaml is here: name it so." in say("vote", "--dataset", "desk")[2]
