"""What the commands print for people and for programs."""

import inspect
import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from flows.cli import app, run
from flows.config.distill import DistillConfig
from storage.store import Store
from tests.conftest import Qcrd, figures, qcrd_command
from tests.flows.test_audit import Terminal

QUESTION = {
    "question": "Ann has 3 apples and buys 4. How many has she?",
    "label": "7",
    "samples": [
        {"teacher": "big", "text": "She has 3 + 4 = 7. So the answer is 7."},
        {"teacher": "big", "text": "She has 3 + 4 = 7. So the answer is 7."},
        {"teacher": "big", "text": "She has 4 - 3 = 1. So the answer is 1."},
        {"teacher": "other", "text": "Who knows?"},
    ],
}
HOSTILE = {
    "question": "Bob's [bold red]title[/] \x1b[2J\x1b]0;owned\x07 <script>alert(1)</script> ‮?",
    "label": "1",
    "samples": [{"teacher": "evil\x1b[31m", "text": "\x1b[2J[link=file:///etc/passwd]x[/link] So the answer is 1."}],
}


@pytest.fixture
def voted(tmp_path: Path, qcrd: Qcrd) -> Qcrd:
    file = tmp_path / "samples.jsonl"
    file.write_text(json.dumps(QUESTION) + "\n" + json.dumps(HOSTILE) + "\n")
    qcrd("import", file, "--dataset", "svamp")
    qcrd("vote", "--dataset", "svamp")
    return qcrd


def test_vote_prints_figures_as_json(voted: Qcrd) -> None:
    got = figures(voted("vote", "--dataset", "svamp", "--json"))
    assert {name: got[name] for name in ("examples", "samples", "unparsed", "ties", "unchanged")} == {
        "examples": 2, "samples": 5, "unparsed": 1, "ties": 0, "unchanged": 2,
    }  # fmt: skip
    assert got["single_accuracy"] == pytest.approx(3 / 5)
    assert got["majority_accuracy"] == 1.0
    assert got["mean_positives"] == 1.5
    assert got["mean_share"] == pytest.approx((2 / 3 + 1) / 2)


def test_vote_prints_a_table_for_people(voted: Qcrd) -> None:
    shown = " ".join(voted("vote", "--dataset", "svamp").stdout.split())
    for line in ("single accuracy 60.0 %", "majority accuracy 100.0 %", "votes for the winner 1.500"):
        assert line in shown


def test_accuracies_are_null_without_labels(tmp_path: Path, qcrd: Qcrd) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({**QUESTION, "label": None}) + "\n")
    qcrd("import", tmp_path / "a.jsonl", "--dataset", "svamp")
    got = figures(qcrd("vote", "--dataset", "svamp", "--json"))
    assert (got["single_accuracy"], got["majority_accuracy"], got["examples"]) == (None, None, 1)


def test_forgotten_questions_are_no_questions_without_a_label(tmp_path: Path, qcrd: Qcrd, home: Path) -> None:
    file = tmp_path / "samples.jsonl"
    rows = [
        {"question": f"Question {n}?", "label": "7", "samples": [{"teacher": "big", "text": "So the answer is 7."}]}
        for n in (0, 1, 1)
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "2 questions (2 labelled)" in qcrd("import", file, "--dataset", "svamp").stdout
    line = "qcrd: Nothing was forgotten: nobody can be asked, for this is no terminal. --yes forgets without asking, "
    assert qcrd("forget", "--where", "true", code=2).stderr.startswith(line)
    assert "with --json nobody is asked" in qcrd("forget", "--where", "true", "--json", code=2).stderr
    assert "'label' is VARCHAR, not BOOLEAN" in qcrd("forget", "--where", "label", "--yes", code=2).stderr
    with Terminal(home, "forget", "--where", "true") as person:
        person.type("Forget them for good? [y/N]: ", "n")
        shown, code = person.end()
    assert code == 0
    assert "Nothing was forgotten. --yes does it." in shown
    assert Store(home / "store").query("SELECT count(*) AS n FROM examples")["n"].to_pylist() == [2]

    qcrd("forget", "--where", "question = 'Question 0?'", "--yes")
    assert "1 questions (1 labelled)" in qcrd("import", file, "--dataset", "svamp").stdout
    qcrd("forget", "--where", "true", "--yes")
    told = qcrd("import", file, "--dataset", "svamp")
    assert "0 samples of 0 questions (0 labelled)" in told.stdout
    assert told.stderr.splitlines() == [
        "All questions of the file were forgotten: they are not stored again.",
        "2 of 2 questions were forgotten (`qcrd forget`) and are left out.",
    ]


def test_show_rationales_says_what_the_vote_made_of_each_sample_and_why(voted: Qcrd) -> None:
    shown = voted("show", "rationales", "--dataset", "svamp", "--only", "unparsed").stdout
    assert "Ann has 3 apples" in shown
    assert "majority: 7 with 2 of 3 votes (1 without an answer)  right" in shown
    assert "positive x2 | answer 7 | big #0" in shown or "positive x2 | answer 7 | big #1" in shown
    assert "same text as a positive | answer 7" in shown
    assert "negative | answer 1 | big #2" in shown
    assert "out: " in shown
    got = figures(voted("show", "rationales", "--dataset", "svamp", "--only", "unparsed", "--json"))
    assert [sample["answer"] for sample in got[0]["samples"]] == ["7", "7", "1", None]


def test_rationales_with_wrong_arithmetic_are_left_out_and_counted(tmp_path: Path, qcrd: Qcrd) -> None:
    texts = ["3 + 4 = 8. So the answer is 7.", "3 + 4 = 8. So the answer is 7.", "3 * 4 = 12. So the answer is 12."]
    samples = [{"teacher": "big", "text": text} for text in texts]
    (tmp_path / "a.jsonl").write_text(json.dumps({**QUESTION, "label": "12", "samples": samples}) + "\n")
    qcrd("import", tmp_path / "a.jsonl", "--dataset", "svamp")
    assert figures(qcrd("vote", "--dataset", "svamp", "--json"))["majority_accuracy"] == 0.0
    shown = " ".join(qcrd("vote", "--dataset", "svamp", "--check-arithmetic").stdout.split())
    assert "samples 3 0 without an answer, 2 with wrong arithmetic" in shown
    assert "majority accuracy 100.0 %" in shown
    shown = qcrd("show", "rationales", "--dataset", "svamp").stdout
    assert "majority: 12 with 1 of 1 votes (2 with wrong arithmetic)  right" in shown
    assert "negative x2 | answer 7" in shown
    assert "No rationales" in qcrd("show", "rationales", "--dataset", "svamp", "--only", "unparsed", code=2).stderr


def test_somebody_elses_text_reaches_the_terminal_as_text(voted: Qcrd) -> None:
    for what in ("rationales", "examples", "votes"):
        done = voted("show", what, "--dataset", "svamp")
        for text in (done.stdout, done.stderr):
            assert "\x1b[2J" not in text
            assert "\x07" not in text
            assert "\u202e" not in text
        assert "[bold red]" in done.stdout
    assert "\x1b[31m" not in voted("sql", "SELECT model FROM rationales ORDER BY ALL").stdout


def test_show_votes_and_examples(voted: Qcrd) -> None:
    shown = voted("show", "votes", "--dataset", "svamp").stdout
    assert "7" in shown
    assert "2/3" in shown
    assert figures(voted("show", "examples", "--dataset", "svamp", "--json"))[0].keys() >= {"question", "samples"}
    assert "4 samples" in voted("show", "examples", "--dataset", "svamp").stdout


def test_export_writes_a_file_and_says_what_is_in_it(voted: Qcrd, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    done = voted("export", file, "--dataset", "svamp", "--as", "preferences")
    assert done.stdout == f"{file}: 1 rows of 1 questions.\n"
    assert "1 questions give no row." in done.stderr
    [row] = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    assert row["prompt"] == f"explain: {QUESTION['question']}\n"
    assert (row["chosen"], row["rejected"]) == ("She has 3 + 4 = 7.", "She has 4 - 3 = 1.")
    got = figures(voted("export", tmp_path / "a.parquet", "--dataset", "svamp", "--as", "sft", "--json"))
    assert (got["rows"], got["questions"], got["outdated"]) == ({"explain": 2, "predict": 2}, 2, 0)
    again = voted("export", file, "--dataset", "svamp", "--as", "sft", "--prompt", "question", "--replace")
    assert again.stdout == f"{file}: 2 rows of 2 questions.\n"


def test_show_votes_writes_a_page(voted: Qcrd, tmp_path: Path) -> None:
    file = tmp_path / "votes.html"
    assert voted("show", "votes", "--dataset", "svamp", "--html", file).stdout == (
        f"{file}: 2 questions. Open it in a browser.\n"
    )
    assert "Ann has 3 apples and buys 4" in file.read_text(encoding="utf-8")
    got = figures(voted("show", "votes", "--dataset", "svamp", "--html", file, "--replace", "--limit", "1", "--json"))
    assert (got["file"], got["questions"], got["left_out"]) == (str(file), 1, 1)


TICKETS = """name: tickets
answers: label
labels: [low, high]
{synonyms}question: "Ticket: {{ticket}}"
splits: {{train: tickets.jsonl}}
"""


def test_show_unparsed_groups_texts_by_reason_and_tries_a_changed_definition(tmp_path: Path, qcrd: Qcrd) -> None:
    texts = ["It is pressing.", "It is pressing, too.", "Either low or high.", "<think>The answer is high", "", "high"]
    rows = [{"ticket": f"ticket {number}", "text": text} for number, text in enumerate(texts)]
    (tmp_path / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    definition = tmp_path / "tickets.yaml"
    definition.write_text(TICKETS.format(synonyms=""))
    qcrd("import", tmp_path / "tickets.jsonl", "--dataset", definition)
    shown = qcrd("show", "unparsed", "--dataset", definition, "--limit", "1").stdout
    assert "tickets: 5 of 6 texts have no answer (83.3 %)" in shown
    assert [line for line in shown.splitlines() if line and not line.startswith(" ")][1:] == [
        "no answer found: 2", "empty text: 1", "several answers named: 1", "thought not finished: 1",
    ]  # fmt: skip
    assert shown.count("It is pressing") == 1
    assert "raise --max-tokens" in shown
    definition.write_text(TICKETS.format(synonyms="synonyms: {high: [pressing]}\n"))
    changed = qcrd("show", "unparsed", "--dataset", definition)
    assert "no answer found: 2 (2 readable now)" in changed.stdout
    assert "2 of them have an answer by the definition as it is now." in changed.stderr
    got = figures(qcrd("show", "unparsed", "--dataset", definition, "--json"))
    assert (got["samples"], got["unparsed"], len(got["reasons"][0]["examples"])) == (6, 5, 2)
    qcrd("import", tmp_path / "tickets.jsonl", "--dataset", definition)
    assert figures(qcrd("show", "unparsed", "--dataset", definition, "--json"))["unparsed"] == 3
    assert "No teacher samples" in qcrd("store", "read-again", "--dataset", definition, code=2).stderr


def test_sql_prints_rows_as_a_table_and_as_json(voted: Qcrd) -> None:
    statement = "SELECT model, count(*) AS n FROM rationales GROUP BY ALL ORDER BY n DESC"
    assert figures(voted("sql", statement, "--json"))[0] == {"model": "big", "n": 3}
    shown = voted("sql", statement).stdout.splitlines()
    assert shown[0].split() == ["model", "n"]
    assert shown[1].split() == ["big", "3"]


def test_sql_keeps_columns_of_one_name_apart_and_runs_several_statements(qcrd: Qcrd) -> None:
    assert figures(qcrd("sql", "SELECT 1 AS a, 2 AS b, 3 AS a", "--json")) == [{"a": 1, "b": 2, "a_1": 3}]
    assert qcrd("sql", "SELECT 1 AS first; SELECT 2 AS second").stdout.split() == ["first", "1", "second", "2"]
    assert "cast its column to VARCHAR" in qcrd("sql", "SELECT date 'infinity'", code=2).stderr


@pytest.mark.usefixtures("voted")
def test_a_reader_that_has_seen_enough_and_a_full_output_are_no_tracebacks(home: Path) -> None:
    command = " ".join(shlex.quote(word) for word in qcrd_command(home, "show", "rationales", "--dataset", "svamp"))
    piped = subprocess.run(["/bin/sh", "-c", f"{command} | head -c 1"], capture_output=True, text=True, check=False)
    assert "Traceback" not in piped.stderr
    full = subprocess.run(["/bin/sh", "-c", f"{command} > /dev/full"], capture_output=True, text=True, check=False)
    assert full.returncode == 2
    assert full.stderr.strip() == "qcrd: Cannot go on: No space left on device"


def test_store_check_reports_a_sound_store(voted: Qcrd) -> None:
    got = figures(voted("store", "check", "--json"))
    assert got["sound"]
    assert got["rows"] == {
        "examples": 2,
        "rationales": 5,
        "votes": 2,
        "scores": 0,
        "predictions": 0,
        "runs": 0,
        "figures": 0,
        "judgements": 0,
        "chosen": 0,
        "variants": 0,
        "audits": 0,
        "forgotten": 0,
    }


def test_doctor_finds_no_problem_here_and_names_one_that_is_made(qcrd: Qcrd, tmp_path: Path) -> None:
    found = {finding["what"]: finding for finding in figures(qcrd("doctor", "--json"))["findings"]}
    assert found["vllm"]["status"] == "ok"
    assert found["lab teacher"]["remedy"].startswith("`qcrd lab build`")
    assert "bfloat16 products are" in found["processor"]["found"]
    assert "optimisation.precision auto: " in found["precision"]["found"]
    away = {
        "PREFECT_API_URL": "http://user:secret@127.0.0.1:9/api",  # pragma: allowlist secret
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/m.db",
    }
    done = qcrd("doctor", code=1, **away)
    assert "start the server, or unset PREFECT_API_URL" in " ".join(done.stdout.split())
    assert "secret" not in done.stdout


def test_doctor_shows_what_a_capped_processor_computes_and_what_is_chosen_from_it(qcrd: Qcrd) -> None:
    found = {one["what"]: one for one in figures(qcrd("doctor", "--json", ONEDNN_MAX_CPU_ISA="SSE41"))["findings"]}
    assert found["processor"]["status"] == "note"
    assert "no AVX2 (it has " in found["processor"]["found"]
    assert found["processor"]["found"].endswith("ONEDNN_MAX_CPU_ISA=SSE41); bfloat16 products are emulated")
    assert found["processor"]["remedy"] == "unset ONEDNN_MAX_CPU_ISA to use all of it"
    assert found["precision"]["found"] == (
        "optimisation.precision auto: float32, the lab teacher's Muon: float32, vLLM's --dtype: float32"
    )


@pytest.mark.parametrize(
    "command",
    [
        [], ["sample"], ["import"], ["vote"], ["sql"], ["doctor"], ["lab"], ["lab", "build"], ["show"],
        ["show", "rationales"], ["show", "votes"], ["show", "examples"], ["store"], ["store", "check"], ["keys"],
        ["export"],
        ["show", "unparsed"], ["store", "read-again"], ["store", "compact"], ["store", "prune"],
    ],
)  # fmt: skip
def test_every_help_has_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command, "--help"]) == 0
    shown: Any = " ".join(capsys.readouterr().out.split())
    assert "qcrd " in shown.split("Usage:")[1].split("Options")[0].replace("Usage: qcrd", "")
    assert "Example: qcrd" in shown or "First steps: qcrd" in shown


def test_the_help_of_every_command_fits_a_terminal_of_80_columns() -> None:
    """Lines after the first paragraph are printed as they stand, so a longer one would be broken and leave a stub."""

    def walk(command: Any) -> Iterator[tuple[str, str]]:
        for name, inner in getattr(command, "commands", {}).items():
            yield name, inspect.cleandoc(inner.help)
            yield from walk(inner)

    told = list(walk(typer.main.get_command(app)))
    assert len(told) > 25
    for name, text in told:
        first, _, more = text.partition("\n\n")
        assert len(first) <= 65, f"qcrd --help breaks what it says of {name}"
        assert [line for line in more.splitlines() if len(line) > 78 and not line.startswith("Example")] == [], name


def test_keys_explains_a_section_and_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "rounds"]) == 0
    shown = capsys.readouterr().out
    assert "rounds.patience (whole number at least 1, or null; default: null)" in shown
    assert "Stop after this many rounds in a row" in shown
    assert "\n\nThe evaluation\n" in shown
    assert run(["keys", "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert [key["path"] for key in got] == list(DistillConfig.model_fields)
    assert {key["path"] for key in got if not key["section"]} == {"compare", "compare_rounds"}
    assert run(["keys", "round"]) == 2
    assert capsys.readouterr().err.startswith("qcrd: Unknown key 'round'. Did you mean 'rounds'?")
