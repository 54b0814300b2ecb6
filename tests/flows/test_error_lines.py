"""The text of the errors a user will meet: one line, what was wrong, what is allowed, what to do; exit code 2."""

import gzip
import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.cli import run
from storage.votes import VoteRule

Complain = Callable[..., str]
SAMPLE = {"question": "What is 1 + 1?", "label": "2", "teacher": "m", "text": "The answer is 2.", "answer": "2"}
VOTE = VoteRule(dataset="svamp").vote_id


@pytest.fixture
def complaint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, home: Path
) -> Complain:
    """Runs a command that must fail, in a folder of its own; returns its only line, the folder's name left out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QCRD_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "500")

    def complain(*arguments: object) -> str:
        capsys.readouterr()
        assert run([str(argument) for argument in arguments]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        lines = shown.err.strip().splitlines()
        assert len(lines) == 1, shown.err
        assert lines[0].startswith("qcrd: ")
        return lines[0].removeprefix("qcrd: ").replace(str(tmp_path), "FOLDER")

    return complain


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def imported(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    file = write(tmp_path / "samples.jsonl", SAMPLE)
    assert run(["import", str(file), "--dataset", "svamp", "--home", str(home)]) == 0
    capsys.readouterr()
    return file


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and "_locks" not in str(path)}


def test_unknown_dataset(complaint: Complain) -> None:
    assert complaint("vote", "--dataset", "svmap") == (
        "Unknown dataset 'svmap'. Did you mean 'svamp'? Allowed: anli1, anli2, anli3, aqua, arc, arc-easy, boolq, cqa, "
        "esnli, gsm8k, lab, openbookqa, strategyqa, svamp, svamp-equation. "
        "Or reasoning-gym:NAME, or the path of a YAML file that describes your own."
    )


@pytest.mark.parametrize("field", ["max_tokens: null", "max_completion_tokens: 5000"])
def test_what_a_sample_costs_at_most_must_be_known(complaint: Complain, field: str) -> None:
    settings = ("teacher.url=http://127.0.0.1:9/v1", "teacher.model=m", "teacher.price.per_million_completion=1",
                "cascade.cost_a_day=1", f"teacher.extra_body={{{field}}}")  # fmt: skip
    sets = [part for setting in settings for part in ("--set", setting)]
    assert complaint("answer", "quickstart", "What is 1 + 1?", *sets) == (
        "cascade.cost_a_day goes by teacher.max_tokens: leave max_tokens and max_completion_tokens out of "
        "teacher.extra_body."
    )


def test_unknown_reasoning_gym_dataset(complaint: Complain) -> None:
    assert "Did you mean 'gsm_symbolic'?" in complaint("vote", "--dataset", "reasoning-gym:gsm_symbolc")


def test_unknown_option_value(complaint: Complain) -> None:
    assert complaint("vote", "--dataset", "svamp", "--positives", "majorty") == (
        "Unknown value of --positives 'majorty'. Did you mean 'majority'? Allowed: gold, majority, majority-and-gold."
    )
    assert complaint("import", "x.jsonl", "--dataset", "svamp", "--answers", "record") == (
        "Unknown value of --answers 'record'. Did you mean 'recorded'? Allowed: parsed, recorded."
    )


def test_unknown_option_command_and_missing_option(complaint: Complain) -> None:
    assert complaint("vote", "--datset", "svamp") == (
        "No such option: --datset (Possible options: --dataset) See `qcrd vote --help`."
    )
    assert complaint("vot") == ("No such command 'vot'. Did you mean 'vote'? See `qcrd --help`.")
    assert complaint("xyz") == (
        "No such command 'xyz'. Allowed: init, distill, compare, keys, resume, serve, sample, import, vote, export, "
        "predict, answer, evaluate, registry, rollback, sql, ui, metrics, automations, audit, doctor, forget, lab, "
        "show, store. See `qcrd --help`."
    )
    assert complaint("vote") == "Missing option '--dataset'. See `qcrd vote --help`."


def test_n_that_is_not_at_least_one(complaint: Complain) -> None:
    assert complaint("vote", "--dataset", "svamp", "--n", 0) == "--n must be at least 1, not 0."
    sampled = ("sample", "--dataset", "lab", "--url", "http://x/v1", "--model", "m")
    expected = "--n: it is a number from 1 to 1,024, or the least and the most of them, such as 2..8, not"
    assert complaint(*sampled, "--n", -3) == f"{expected} '-3'."
    assert complaint(*sampled, "--n", "8..2") == f"{expected} '8..2'."
    assert complaint("sample", "--dataset", "lab", "--url", "http://x/v1", "--model", "m", "--temperature", -1) == (
        "--temperature: Input should be greater than or equal to 0, not -1.0."
    )


def test_an_option_is_named_as_it_was_given(complaint: Complain) -> None:
    endpoint = ("sample", "--dataset", "lab", "--url", "http://x/v1", "--model", "m")
    for option, value, shown in (("--timeout", 0, "0.0"), ("--price-prompt", -1, "-1.0"), ("--port", 0, "0")):
        assert complaint(*endpoint, option, value).startswith(f"{option}: Input should be greater than ")
        assert complaint(*endpoint, option, value).endswith(f", not {shown}.")


def test_fields_of_the_body_are_json_and_never_repeated(complaint: Complain) -> None:
    endpoint = ("sample", "--dataset", "lab", "--url", "http://x/v1", "--model", "m", "--extra-body")
    assert complaint(*endpoint, "low") == (
        """--extra-body takes a JSON object, such as '{"chat_template_kwargs": {"enable_thinking": false}}'."""
    )
    line = complaint(*endpoint, '{"api_key": "sk-planted"}')
    assert line.startswith("--extra-body: `api_key` looks like a key, which belongs in QCRD_TEACHER_API_KEY")
    assert "planted" not in line
    assert complaint(*endpoint, '{"n": 3}').startswith("--extra-body: `n` is set elsewhere; here it can only be null")


def test_missing_file(complaint: Complain) -> None:
    assert complaint("import", "nothing.jsonl", "--dataset", "svamp") == "No such file: nothing.jsonl"


def test_wrong_column(complaint: Complain, tmp_path: Path) -> None:
    row = {name: value for name, value in SAMPLE.items() if name != "text"} | {"txt": "The answer is 2."}
    write(tmp_path / "a.jsonl", row)
    line = complaint("import", "a.jsonl", "--dataset", "svamp")
    assert "'text'" in line
    assert "Did you mean 'txt'?" in line
    assert "Columns: question, label, teacher, answer, txt" in line
    assert "--map" in line


def test_a_map_of_an_unknown_field_or_without_an_equals_sign(complaint: Complain, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", SAMPLE)
    assert "Did you mean 'teacher'?" in complaint("import", "a.jsonl", "--dataset", "svamp", "--map", "techer=x")
    assert complaint("import", "a.jsonl", "--dataset", "svamp", "--map", "text") == (
        "--map takes field=column, such as text=completion; got 'text'."
    )


ASKED = ("--set", "teacher.source=sample", "--set", "teacher.url=http://127.0.0.1:9/v1", "--set", "teacher.model=none")


@pytest.mark.parametrize("key", ["geheim-\u00fc\u20ac", "two words", "a-key\n", " "])
def test_a_key_that_no_request_can_carry(complaint: Complain, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("QCRD_ANSWER_API_KEY", key)
    assert complaint("answer", "lab", *ASKED, "--serve") == (
        "The key in QCRD_ANSWER_API_KEY has other characters than a request may carry: make one of printable ASCII "
        "without spaces, such as with openssl rand -hex 32."
    )


def test_choices_that_are_not_those_of_the_dataset(complaint: Complain) -> None:
    a, b = ("--choice", "a"), ("--choice", "b")
    one = "Question 1: its choices must be at least two different texts."
    for dataset, choices, said in (
        ("lab", (*a, *b), "Question 1: it has choices, and lab has none: leave them out."),
        ("cqa-t5-small", (), "Question 1: it has no choices, and cqa asks for one of them."),
        ("cqa-t5-small", (*a, *a), one),
        ("cqa-t5-small", a, one),
    ):
        assert complaint("answer", dataset, *ASKED, "Which?", *choices) == said


def test_a_file_of_questions_in_another_column(complaint: Complain, tmp_path: Path) -> None:
    """Only `qcrd import` has --map."""
    write(tmp_path / "a.jsonl", {"qestion": "Who?", "text": "t"})
    found = "a.jsonl row 1: no column 'question'. Did you mean 'qestion'? Columns: qestion{}. "
    helps = "Rename the right one to question; in a dataset of your own, `fields: {{question: COLUMN}}` names it"
    for command in (
        ("answer", "lab", *ASKED), ("predict", "--dataset", "lab"),
        ("sample", "--dataset", "lab", "--url", "http://127.0.0.1:9/v1", "--model", "m"),
    ):  # fmt: skip
        assert complaint(*command, "--path", "a.jsonl") == (found + helps).format(", text")
    assert complaint("import", "a.jsonl", "--dataset", "lab") == (
        found.format("") + "Name the right one with --map question=COLUMN."
    )


def test_not_json_empty_and_damaged_files(complaint: Complain, tmp_path: Path, home: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(json.dumps(SAMPLE) + "\n{oops\n")
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and nothing more")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(json.dumps(SAMPLE).encode() * 99)[:60])
    (tmp_path / "a.xlsx").touch()
    for name, expected in {
        "bad.jsonl": "line 2 is not JSON",
        "empty.jsonl": "empty",
        "bad.parquet": "Parquet",
        "cut.jsonl.gz": "cut.jsonl.gz",
        "a.xlsx": "must end in .jsonl, .json, .csv, .tsv (also .gz) or .parquet",
    }.items():
        line = complaint("import", name, "--dataset", "svamp")
        assert expected in line, line
        assert name in line
    assert not list(home.rglob("*.parquet"))


def test_nothing_to_vote_on(complaint: Complain, imported: Path) -> None:
    assert complaint("vote", "--dataset", "cqa") == (
        "Nothing to vote on: no rationales of 'cqa' are stored at FOLDER/home/store. Sample some with "
        "`qcrd sample` or bring some with `qcrd import`."
    )
    assert complaint("vote", "--dataset", "svamp", "--teacher", "n*") == (
        "Nothing to vote on: no teacher of 'svamp' matches 'n*'. Stored: m."
    )
    assert complaint("vote", "--dataset", "svamp", "--split", "tran") == (
        "Unknown split 'tran'. Did you mean 'train'? Allowed: train. Rationales of 'svamp' are stored for these."
    )
    assert imported.exists()


def test_no_such_model_and_no_teacher_named(complaint: Complain, tmp_path: Path) -> None:
    assert complaint("sample", "--dataset", "svamp") == (
        "Name a teacher: --model FOLDER serves one with vLLM, --url URL --model NAME asks an endpoint, "
        "--model lab takes the lab's (for --dataset lab)."
    )
    assert complaint("sample", "--dataset", "lab", "--model", "no-such-folder") == (
        "no model folder no-such-folder; give a Hugging Face folder or a hub id such as org/name"
    )
    (tmp_path / "not-a-model").mkdir()
    assert "config.json" in complaint("sample", "--dataset", "lab", "--model", tmp_path / "not-a-model")
    assert complaint("sample", "--dataset", "lab") == (
        "The lab's teacher is not built under FOLDER/home; run `qcrd lab build` (about 3 minutes)."
    )


def test_an_endpoint_that_is_not_there_or_no_url(complaint: Complain, capsys: pytest.CaptureFixture[str]) -> None:
    assert complaint("sample", "--dataset", "lab", "--url", "ftp://x", "--model", "m") == (
        "--url: it must be like http://host:8000/v1 or https://host/v1."
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]  # free again, and refusing, once this closes
    url = f"http://127.0.0.1:{port}/v1"
    assert run(["sample", "--dataset", "lab", "--limit", "1", "--url", url, "--model", "m"]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(f"qcrd: cannot reach {url}: ")


@pytest.mark.usefixtures("complaint")
def test_a_taken_port(tiny_llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code = run(["sample", "--dataset", "lab", "--limit", "1", "--model", str(tiny_llama), "--port", str(port)])
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert f"port {port}" in lines[-1]
    assert "--port" in lines[-1] or "another" in lines[-1]


def test_wrong_sql(complaint: Complain) -> None:
    assert complaint("sql", "SELECT nothing FROM rationales").startswith("DuckDB: Binder Error: ")


def test_a_home_that_is_a_file(complaint: Complain, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert complaint("vote", "--dataset", "svamp", "--home", tmp_path / "file") == (
        "--home FOLDER/file is a file; give a folder (it is made where missing)."
    )


def test_a_damaged_part_file_is_named_and_repaired(
    complaint: Complain, imported: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [part] = home.glob("store/rationales/**/*.parquet")
    part.write_bytes(part.read_bytes()[:100])
    line = complaint("vote", "--dataset", "svamp")
    assert part.name in line
    assert "Run `qcrd store check --repair`" in line
    assert run(["store", "check"]) == 1
    assert run(["store", "check", "--repair"]) == 0
    assert run(["import", str(imported), "--dataset", "svamp"]) == 0
    assert run(["vote", "--dataset", "svamp"]) == 0
    capsys.readouterr()


def test_a_newer_store(complaint: Complain, imported: Path, home: Path) -> None:
    assert imported.exists()
    (home / "store" / "store.json").write_text('{"schema_version": 99}')
    assert re.fullmatch(
        r"The store at FOLDER/home/store has schema version 99; this qcrd reads versions up to \d+\. "
        r"Upgrade qcrd, or choose another store with --home\.",
        complaint("vote", "--dataset", "svamp"),
    )


@pytest.mark.usefixtures("imported")
def test_files_that_are_not_written(complaint: Complain, tmp_path: Path, home: Path) -> None:
    asked = ("--dataset", "svamp", "--as", "sft")
    assert complaint("export", "out.jsonl", *asked) == (
        "No votes of 'svamp' are stored at FOLDER/home/store. To get some: `qcrd vote`."
    )
    assert run(["vote", "--dataset", "svamp", "--home", str(home)]) == 0
    assert complaint("export", "out.csv", *asked) == "FILE out.csv must end in .jsonl or .parquet."
    assert complaint("export", "out.jsonl", "--dataset", "svamp", "--as", "dpo") == (
        "Unknown value of --as 'dpo'. Allowed: preferences, rationales, sft."
    )
    (tmp_path / "old.jsonl").write_text("precious")
    (tmp_path / "page.html").mkdir()
    exists = "exists; choose another name, or replace it with --replace."
    assert complaint("export", "old.jsonl", *asked) == f"FILE old.jsonl {exists}"
    assert (tmp_path / "old.jsonl").read_text() == "precious"
    assert complaint("export", home / "store" / "votes" / "x.parquet", *asked) == (
        "FILE FOLDER/home/store/votes/x.parquet lies in the store, where only qcrd's own files may be; choose another "
        "place."
    )
    page = ("show", "votes", "--dataset", "svamp", "--html")
    assert complaint(*page, "page.html") == "--html page.html is a folder; give a file."
    assert complaint(*page, "votes.txt") == "--html votes.txt must end in .html or .htm."
    assert complaint(*page, "new.html", "--only", "ties") == (
        "No votes of 'svamp' with --only ties are stored at FOLDER/home/store. Datasets stored: svamp. To get some: "
        "`qcrd vote`."
    )
    assert complaint("export", "out.jsonl", "--dataset", "svamp", "--as", "preferences") == (
        f"None of 1 questions has both a positive and a negative rationale under vote {VOTE}: nothing to export."
    )


def test_bad_input_harms_nothing_stored(complaint: Complain, imported: Path, home: Path, tmp_path: Path) -> None:
    assert imported.exists()
    before = files_of(home / "store")
    (tmp_path / "bad.jsonl").write_text("{oops\n")
    complaint("import", "bad.jsonl", "--dataset", "svamp")
    complaint("vote", "--dataset", "svamp", "--n", 0)
    complaint("vote", "--dataset", "svamp", "--teacher", "nobody")
    complaint("sql", "DROP TABLE rationales")
    complaint("show", "rationales", "--dataset", "svamp", "--example", "none")
    assert files_of(home / "store") == before


def test_a_schedule_that_is_none(complaint: Complain) -> None:
    either = 'Say when: either --cron "0 3 * * *" or --every 6h.'
    assert complaint("serve", "lab") == either
    assert complaint("serve", "lab", "--every", "6h", "--cron", "0 3 * * *") == either
    assert complaint("serve", "lab", "--every", "3x") == (
        "--every takes a number and m, h or d, such as 30m, 6h or 1d, not '3x'."
    )
    assert complaint("serve", "lab", "--every", "6h", "--timezone", "Europe/Berln") == (
        "Unknown time zone 'Europe/Berln'. Did you mean 'Europe/Berlin'? Take a name of the IANA database, such as "
        "Europe/Berlin."
    )
    assert complaint("serve", "lab", "--every", "6h", "--overlap", "queu").startswith("Unknown value of --overlap")


def test_automations_need_a_server(complaint: Complain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert complaint("automations") == (
        "Automations live on a Prefect server, and PREFECT_API_URL names none. `qcrd ui` and `qcrd serve` start one: "
        "export PREFECT_API_URL=http://127.0.0.1:4200/api"
    )
    assert complaint("automations", "--silence", "3") == "--silence must be at least 10, not 3."


def test_metrics_of_a_taken_port(complaint: Complain) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert complaint("metrics", "--port", port) == (
            f"Port {port} of 127.0.0.1 cannot be used (Address already in use); name another one with --port."
        )
    assert complaint("metrics", "--port", 99999).startswith("Invalid value for '--port': Input should be less than")
