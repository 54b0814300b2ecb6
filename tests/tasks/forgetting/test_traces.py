"""Texts leave databases, free pages included, and files; what is needed stays usable."""

import base64
import json
import pickle
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import pytest

from storage.errors import UsageError
from tasks.forgetting import traces
from tasks.forgetting.quotes import GONE, Quotes
from tasks.forgetting.traces import remove_from_database, remove_from_files
from tests.planted import places_of

TEXT = "Jane Doe of Elm Street has 3 nuts. How many nuts has Jane Doe?"
QUOTES = Quotes([TEXT])


def database(file: Path, *, wal: bool = True) -> sqlite3.Connection:
    con = sqlite3.connect(file)
    con.execute(f"PRAGMA journal_mode = {'WAL' if wal else 'DELETE'}")
    con.execute("CREATE TABLE artifact (id CHAR(36), data JSON, at DATETIME, n INTEGER)")
    con.execute("CREATE TABLE log (message VARCHAR, body BLOB)")
    con.execute("INSERT INTO artifact VALUES ('a', ?, '2026', 1)", (json.dumps(f"# {TEXT}\n{'x' * 9000}"),))
    con.execute("INSERT INTO artifact VALUES ('b', ?, '2026', 1)", (json.dumps([{"shown": TEXT, "kept": 1}]),))
    con.execute("INSERT INTO log VALUES (?, ?)", (f"said: {TEXT}", TEXT.encode()))
    con.execute("INSERT INTO log VALUES ('other', NULL)")
    con.commit()
    con.execute("INSERT INTO log VALUES (?, NULL)", (f"deleted: {TEXT}",))
    con.commit()
    con.execute("DELETE FROM log WHERE message LIKE 'deleted%'")
    con.commit()
    return con


@pytest.mark.parametrize("wal", [True, False])
def test_a_database_has_the_text_nowhere_and_stays_sound(tmp_path: Path, wal: bool) -> None:
    file = tmp_path / "some.db"
    with closing(database(file, wal=wal)):  # another program has it open
        assert remove_from_database(file, QUOTES)
    assert places_of({"text": "Jane Doe of Elm"}, tmp_path) == {}
    with closing(sqlite3.connect(file)) as con:
        assert con.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        data = dict(con.execute("SELECT id, data FROM artifact").fetchall())
        assert json.loads(data["a"]) == GONE
        assert json.loads(data["b"]) == [{"shown": GONE, "kept": 1}]
        assert con.execute("SELECT message FROM log ORDER BY message").fetchall() == [(GONE,), ("other",)]
    assert not remove_from_database(file, QUOTES)


def test_a_database_that_somebody_writes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "WAIT_S", 0.1)
    with closing(database(tmp_path / "some.db")) as con:
        con.execute("BEGIN IMMEDIATE")
        with pytest.raises(
            UsageError, match=r"^Another program uses .*some\.db\. End `qcrd ui`, `qcrd serve`, `qcrd answer` and "
        ):
            remove_from_database(tmp_path / "some.db", QUOTES)


def test_files_lose_what_quotes_it_by_their_kind(tmp_path: Path) -> None:
    files = {
        "input_example.json": json.dumps([{"question": TEXT}, {"question": "kept"}]),
        "vllm.log": f"one\nasked: {TEXT!r}\ntwo\n",
        "lines.jsonl": json.dumps({"a": TEXT}) + "\n{}\n",
        "several.log": "Jane Doe of Elm Street\nhas 3 nuts. How many\nnuts has Jane Doe?\n",
        "report.html": f"<p>{TEXT}</p>",
        "storage/0123abcd": json.dumps({"result": TEXT}),
        "storage/pickle": json.dumps({"result": base64.b64encode(pickle.dumps(ValueError(TEXT))).decode()}),
        "storage/small": json.dumps({"result": base64.b64encode(zlib.compress(pickle.dumps([TEXT]))).decode()}),
        "storage/other": json.dumps({"result": base64.b64encode(pickle.dumps("kept")).decode()}),
        "definition.yaml": f"exemplars: [{TEXT!r}]",
        "model/tokenizer.json": json.dumps({"vocab": [TEXT]}),
        "other.html": "<p>kept</p>",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    found = remove_from_files([tmp_path], QUOTES, tmp_path / "storage")

    def names(paths: list[Path]) -> set[str]:
        return {str(path.relative_to(tmp_path)) for path in paths}

    assert names(found.changed) == {"input_example.json", "vllm.log", "lines.jsonl", "several.log"}
    assert names(found.removed) == {"report.html", "storage/0123abcd", "storage/pickle", "storage/small"}
    assert names(found.named) == {"definition.yaml"}
    assert json.loads((tmp_path / "input_example.json").read_text()) == [{"question": GONE}, {"question": "kept"}]
    assert (tmp_path / "vllm.log").read_text() == f"one\n{GONE}\ntwo\n"
    assert (tmp_path / "several.log").read_text() == f"{GONE}\n"
    assert (tmp_path / "other.html").exists()
    assert (tmp_path / "storage" / "other").exists()
    left = places_of({"text": "Jane Doe of Elm"}, tmp_path)["text"]
    assert names(list(map(Path, left))) == {"definition.yaml", "model/tokenizer.json"}, "only what is left alone"
