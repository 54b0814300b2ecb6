"""The second run of a schedule: new questions came in, other ones; it starts from the champion, warns, and ends in the
gate."""

import json
from pathlib import Path
from typing import Any

import pytest

from storage.store import Store
from tests.conftest import Qcrd, figures
from tests.flows.own_data import weights, weights_in, write_own_data

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("databases")]

SHORT = [part for setting in ("compare=[]", "rounds.rounds=1", "registry.start_from=champion", "drift.questions=40")
         for part in ("--set", setting)]  # fmt: skip


def more_questions(folder: Path) -> None:
    """Adds fifty questions of another kind, with one sample each that is no answer and two that agree."""
    asked = [(f"Ben loses {a} of {b} buttons. How many are left?", b - a) for a in range(1, 6) for b in range(10, 20)]
    with (folder / "train.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps({"body": body, "total": total}) + "\n" for body, total in asked)
    with (folder / "samples.jsonl").open("a", encoding="utf-8") as file:
        for body, total in asked:
            texts = [f"Some are lost, so what stays is {total}. So the answer is {total}."] * 2 + ["I cannot say."]
            samples = [{"teacher": "big", "text": text} for text in texts]
            file.write(json.dumps({"body": body, "total": total, "samples": samples}) + "\n")


def test_it_takes_what_is_new_warns_of_drift_and_starts_from_the_champion(
    tmp_path: Path, qcrd: Qcrd, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    first = qcrd("distill", "small.yaml", "--json", *SHORT)
    assert "Drift" not in first.stderr
    more_questions(tmp_path)
    second = qcrd("distill", "small.yaml", "--json", *SHORT)

    assert "330 recorded samples, 150 of them new." in second.stderr
    assert "Other questions than in the run before" in second.stderr
    warned = next(line for line in second.stderr.splitlines() if "Drift since run" in line)
    for name in ("agreement", "unparsed"):
        assert name in warned
    assert "50 new questions" in warned

    results = [figures(done) for done in (first, second)]
    assert [result["registered"]["version"] for result in results] == ["1", "2"]
    assert "on the same 10 test questions" in results[1]["registered"]["reason"]
    store = Store(home / "store")
    configs: list[dict[str, Any]] = [
        json.loads(config)
        for config in store.query("SELECT config FROM runs ORDER BY created_at")["config"].to_pylist()
    ]
    assert [config["registry"]["start_from"] for config in configs] == ["scratch", "1"]
    started_from = Path(configs[1]["student"]["model"])
    assert started_from.parent == (home / "started-from").resolve()
    assert started_from.name.startswith("qcrd-sums-1-")
    champion = weights(home, results[0])["qcrd"]
    assert weights_in(started_from / "model.safetensors") == champion, "what is registered is what was trained"
    versions = store.query("SELECT detail FROM figures WHERE name = 'dataset'")["detail"].to_pylist()
    assert len({json.loads(detail)["version"] for detail in versions}) == 2
    assert store.query("SELECT value FROM figures WHERE name = 'drift'")["value"].to_pylist() == [2.0]

    shown = figures(qcrd("show", "runs", "--json"))
    assert [run["state"] for run in shown] == ["finished", "finished"]
    refused = qcrd("resume", shown[0]["run_id"], code=2)
    assert "is finished; there is nothing to resume" in refused.stderr

    # run again with nothing new: what is compared waits for new samples
    third = qcrd("distill", "small.yaml", *SHORT)
    assert "Drift: 0 questions have new samples, 40 are needed to compare." in third.stderr
    assert "Other questions" not in third.stderr
