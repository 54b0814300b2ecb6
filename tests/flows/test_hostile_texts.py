"""A dataset, its recorded teachers and its splits are full of what breaks pages, terminals, queries and paths; all of
it comes through `qcrd distill` as data."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.cli import run
from flows.terminal import CONTROLS
from storage.store import Store
from tests.conftest import Qcrd
from tests.flows.test_markup import MARKDOWN, flat

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("databases")]

HOSTILE = [
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "![pixel](https://e.vil/p.png) [click](javascript:alert(1)) <https://e.vil> https://e.vil a@e.vil",
    "| a | b |\n|---|---|\n| **c** | `d` |\n\n# big\n\n```\ncode",
    "\x1b[2J\x1b]0;owned\x07\x9b31m \u202eevil\u2066 \x00 \x7f \r",
    "[red]rich[/] [link=file:///etc/passwd]x[/link] :smile:",
    "'; DROP TABLE rationales; -- \" $1 % {body} {{x}} \\",
    "../../../../etc/passwd %2e%2e/ ~root file:///etc/passwd",
    "long " * 40,
]
SPLIT = "../../../'; DROP TABLE runs; --\x1b[31m\x00<b>"
CONFIG = {
    "dataset": {"name": "evil.yaml", "train_split": SPLIT, "validation_split": None, "test_split": "../x"},
    "teacher": {"source": "import", "files": [{"path": "samples.jsonl"}]},
    "student": {
        "model": "new",
        "new": {"hidden": 16, "layers": 1, "heads": 2, "intermediate": 24, "vocab_size": 400},
        "max_input_tokens": 400,
        "max_target_tokens": 300,
    },
    "negatives": {"lag": 1, "max_tokens": 8},
    "discriminator": {"pretrain_steps": 2, "update_steps": 2, "batch_size": 4},
    "optimisation": {"batch_size": 4, "device": "cpu"},
    "rounds": {"rounds": 1, "epochs_per_round": 1, "answer_tokens": 4, "threads": 1},
    "registry": {"name": "<b>*evil* [x](y)"},
}


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the dataset, its samples and a configuration; the working directory."""
    rows: list[dict[str, Any]] = [
        {"body": f"{text} {number} + 1?", "total": number + 1} for number in range(4) for text in HOSTILE
    ]
    for name, part in (("train", rows[:24]), ("test", rows[24:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    lines = [
        {**row, "samples": [
            {"teacher": f"t {text}", "text": f"{text} So the answer is {row['total'] + wrong}."}
            for wrong, text in ((0, HOSTILE[place % 8]), (0, HOSTILE[(place + 1) % 8]), (1, HOSTILE[(place + 3) % 8]))
        ]}
        for place, row in enumerate(rows[:24])
    ]  # fmt: skip
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    definition = {
        "name": "evil", "description": HOSTILE[0], "answers": "number", "question": "{body}",
        "fields": {"label": "total"}, "splits": {SPLIT: "train.jsonl", "../x": "test.jsonl"},
        "instruction": " ".join(HOSTILE[:7]),
    }  # fmt: skip
    (tmp_path / "evil.yaml").write_text(yaml.safe_dump(definition), encoding="utf-8")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_outside(folder: Path, home: Path) -> set[str]:
    return {str(file) for file in folder.rglob("*") if home not in [file, *file.parents]}


def artifacts(home: Path) -> dict[str, tuple[str, str, str]]:
    """Prefect's artifacts: key -> type, description, data."""
    with closing(sqlite3.connect(home / "prefect" / "prefect.db")) as con:
        rows = con.execute("SELECT key, type, description, data FROM artifact WHERE key IS NOT NULL").fetchall()
    return {key: (kind, description or "", data) for key, kind, description, data in rows}


def assert_inert(markdown: str) -> None:
    active = {"html_inline", "html_block", "link_open", "image", "fence", "table_open", "code_block"}
    tokens = flat(MARKDOWN.parse(markdown))
    assert not active & {token.type for token in tokens}, markdown
    assert not CONTROLS.search(markdown), markdown


def test_hostile_texts_come_through_as_data(
    evil: Path, home: Path, qcrd: Qcrd, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_outside(evil, home)
    above = set(evil.parent.iterdir())
    trained = qcrd("distill", "config.yaml")
    shown = {"distill": trained.stdout + trained.stderr}
    asked = " ".join(HOSTILE[1:]).replace("\x00", "")
    for command in (
        *(["show", what, "--dataset", "evil.yaml", "--limit", "50"] for what in ("examples", "rationales", "votes")),
        ["show", "rationales", "--dataset", "evil.yaml", "--json"],
        ["show", "unparsed", "--dataset", "evil.yaml"],
        ["sql", "SELECT question, extra, model, r.split FROM examples JOIN rationales r USING (example_id)"],
        ["import", "samples.jsonl", "--dataset", "evil.yaml"],
        ["registry"],
        ["predict", asked],
    ):
        assert run([*command, "--home", str(home)]) == 0, command
        printed = capsys.readouterr()
        shown[" ".join([*command[:2], command[-1]])] = printed.out + printed.err
    for name, text in shown.items():
        assert not CONTROLS.search(text), name
    assert "[link=file:///etc/passwd]x[/link]" in shown["show rationales 50"]
    assert "<b>*evil* [x](y)" in shown["registry registry"]
    assert files_outside(evil, home) == before
    assert set(evil.parent.iterdir()) == above

    store = Store(home / "store")
    for table in ("examples", "rationales", "votes", "predictions", "runs"):
        rows = store.query(f"SELECT count(*) AS n FROM {table}").to_pylist()
        assert rows[0]["n"] > 0, table
    splits = store.query("SELECT DISTINCT split FROM examples ORDER BY split")["split"].to_pylist()
    assert splits == sorted([SPLIT, "../x", "train"])  # the last by `qcrd import`
    texts = store.query("SELECT text FROM rationales")["text"].to_pylist()
    assert all(any(hostile in text for text in texts) for hostile in HOSTILE)

    found = artifacts(home)
    assert found.keys() >= {"votes", "rounds-qcrd", "rationales-qcrd", "result"}
    for kind, description, data in found.values():
        for markdown in [description, *([data] if kind == "markdown" else [])]:
            assert_inert(markdown.replace("`", "") if "qcrd show votes" in markdown else markdown)
        if kind == "table":
            for row in json.loads(json.loads(data) if data.startswith('"') else data):
                for cell in row.values():
                    assert_inert(str(cell))
