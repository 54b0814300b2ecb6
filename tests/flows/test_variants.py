"""`variants` in a whole run: written, asked, voted on and trained on; again for nothing; and not by the lab."""

import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from storage.store import Store
from tests.conftest import Qcrd, figures
from tests.flows.own_data import write_own_data
from tests.flows.test_budget import CONFIG, trained_on
from tests.flows.test_planted_secret import endpoint
from tests.flows.test_shards import adds_up
from tests.models.endpoint import Endpoint, good

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("databases")]
SETTINGS = ("--set", "teacher.budget=null", "--set", "teacher.max_tokens=64", "--set", "dataset.limit=6", "--set",
            "variants={rephrased: 1, changed: 1, overlap: 0.9}")  # fmt: skip


async def writes_and_adds(served: Endpoint, body: dict[str, Any]) -> web.StreamResponse:
    """Writes variants where it is asked to, one of them a test question; solves the others."""
    asked = body["messages"][-1]["content"]
    if "Write a new question" not in asked and "in other words" not in asked:
        return await adds_up(served, body)
    a, b = map(int, re.findall(r"(\d+) nuts and gets (\d+)", asked)[-1])
    text = f"Ben, whose pocket holds {a} nuts and gets {b} of them from his aunt, counts what he has: what comes of it?"
    if "Write a new question" in asked:
        text = f"Zoe the squirrel carried off {b + 1} nuts and gets {a + 2} by digging in the park. What is her store?"
        if (a, b) == (2, 1):
            text = "Ann has 10 nuts and gets 6. How many??"
    reply = good(body)
    for one in reply["choices"]:
        one["message"]["content"] = text
    return web.json_response(reply)


def test_variants_are_trained_on_and_cost_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path, qcrd: Qcrd
) -> None:
    write_own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    with endpoint(*[writes_and_adds] * 1000) as served:
        Path("small.yaml").write_text(CONFIG.replace("URL", served.url), encoding="utf-8")
        first = qcrd("distill", "small.yaml", "--json", *SETTINGS)
        store = Store(home / "store")
        counts = store.query("SELECT split, count(*) AS n FROM examples GROUP BY split").to_pylist()
        found = {row["split"]: row["n"] for row in counts}
        written = found["train-rephrased"] + found["train-changed"]
        assert found["train-rephrased"] > 2
        leaked = store.query("SELECT * FROM examples WHERE split = 'train-changed' AND question LIKE 'Ann has%'")
        assert leaked.num_rows == 0
        winners = store.query(
            "SELECT e.question, v.winner FROM examples e JOIN votes v USING (example_id) WHERE e.split = "
            "'train-changed'"
        ).to_pylist()
        for row in winners:
            assert int(row["winner"]) == sum(map(int, re.findall(r"\d+", row["question"])))
        asked = len(served.bodies)
        second = qcrd("distill", "small.yaml", "--json", *SETTINGS)
        assert len(served.bodies) == asked
        without = qcrd("distill", "small.yaml", "--json", *SETTINGS, "--set", "variants.changed=0")
        assert len(served.bodies) == asked
    own = trained_on(figures(without)) - found["train-rephrased"]
    assert trained_on(figures(first)) == trained_on(figures(second)) == own + written


def test_of_what_the_champion_gets_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path, qcrd: Qcrd
) -> None:
    write_own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    settings = [*SETTINGS, "--set", "variants.of=wrong", "--set", "registry.register_model=true"]
    with endpoint(*[writes_and_adds] * 1000) as served:
        Path("small.yaml").write_text(CONFIG.replace("URL", served.url), encoding="utf-8")
        first = qcrd("distill", "small.yaml", *settings)
        assert "so there is nothing it gets wrong: no variants are written" in first.stderr
        assert Store(home / "store").query("SELECT * FROM variants").num_rows == 0
        qcrd("distill", "small.yaml", *settings)
    wrong = Store(home / "store").query("SELECT DISTINCT example_id FROM variants").num_rows
    assert wrong == 6, "a student of one step knows no sum"


def test_the_lab_writes_none(qcrd: Qcrd) -> None:
    refused = qcrd("distill", "lab", "--set", "variants.changed=1", code=2)
    assert "the lab's teacher can only solve problems, not write them" in refused.stderr.splitlines()[-1]
