"""What a person sees of a run that reported to both servers: Prefect's and MLflow's pages in a headless Chromium."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from benchmarks.screenshots import Pages, chromium, click, open_page, page_text, wait_for_texts
from storage.errors import UsageError
from tests.conftest import qcrd_command
from tests.flows.own_data import CONFIG, DATASET
from tests.warm_start import WarmStart

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=\"document.title='owned'\"> <b>*bold*</b> [x](http://evil.example/) &amp; &#43;"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, new_databases: Callable[[Path], Path]) -> Path:
    """Questions with hostile texts, recorded samples of them, a configuration of two short rounds, and a state folder
    with new databases."""
    folder = tmp_path_factory.mktemp("browser")
    new_databases(folder / "home")
    rows = [
        {"body": f"Ann has {a} nuts. {HOSTILE} {b} more?", "total": a + b} for a in range(2, 8) for b in range(1, 6)
    ]
    texts = "{total}. So the answer is {total}.", f"{HOSTILE} 1 * 1 = 1. So the answer is 1."
    samples = [
        row | {"samples": [{"teacher": "big", "text": text.replace("{total}", str(row["total"]))} for text in texts]}
        for row in rows[:24]
    ]
    for name, content in (("train", rows[:24]), ("test", rows[24:]), ("samples", samples)):
        lines = "".join(json.dumps(row) + "\n" for row in content)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (folder / "sums.yaml").write_text(DATASET, encoding="utf-8")
    (folder / "small.yaml").write_text(CONFIG, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def addresses(folder: Path) -> Iterator[tuple[str, str]]:
    """Of Prefect and MLflow as `qcrd ui` starts them."""
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    prefect, mlflow = (f"http://127.0.0.1:{port}" for port in ports)
    command = qcrd_command(folder / "home", "ui", "--prefect-port", ports[0], "--mlflow-port", ports[1])
    with (folder / "ui.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        deadline = time.monotonic() + 200
        while b"Ctrl-C ends both" not in (folder / "ui.log").read_bytes():
            assert process.poll() is None, (folder / "ui.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield prefect, mlflow
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def pages(folder: Path, addresses: tuple[str, str], warm_start: WarmStart) -> Pages:
    """Of a finished run."""
    prefect, mlflow = addresses
    settings = [
        "compare=[]", "rounds.rounds=2", "rounds.epochs_per_round=1", "student.max_input_tokens=400",
        "student.max_target_tokens=300",
    ]  # fmt: skip
    arguments = ["small.yaml", *(word for setting in settings for word in ("--set", setting))]
    done = warm_start.run(
        folder / "home", "distill", *arguments, cwd=folder,
        env={**os.environ, "PREFECT_API_URL": f"{prefect}/api", "MLFLOW_TRACKING_URI": mlflow},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Pages(prefect, mlflow)


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium() as opened:
        yield opened


def rounds(pages: Pages) -> list[dict[str, str]]:
    """The rows of the rounds' table, as Prefect has them."""
    found: list[dict[str, str]] = json.loads(pages.artifacts["rounds-qcrd"]["data"])
    return found


def test_prefect_shows_the_runs_artifacts(browser: Chrome, pages: Pages) -> None:
    open_page(browser, pages.run, "Completed", "Task Runs")
    click(browser, "Artifacts")
    wait_for_texts(browser, "votes", "rationales-teacher", "result", "qcrd-sums: promoted: there was no champion")

    rows = rounds(pages)
    assert [row["round"] for row in rows] == ["0", "1"]
    losses = [row["loss"] for row in rows]
    open_page(browser, pages.artifact("rounds-qcrd"), "validation", "the best round is", *losses)

    open_page(browser, pages.artifact("gate"), "qcrd-sums version 1 is the champion", "champion before: none")
    assert {key for key in pages.artifacts if key.startswith("progress-")} >= {
        "progress-qcrd-negatives", "progress-qcrd-discriminator", "progress-qcrd-training",
        "progress-qcrd-validation", "progress-qcrd-test",
    }  # fmt: skip
    open_page(browser, pages.artifact("progress-qcrd-training"), "qcrd round 1: training")


def test_somebody_elses_text_is_shown_as_it_is_and_does_nothing(browser: Chrome, pages: Pages) -> None:
    for key in ("rationales-teacher", "rationales-qcrd"):
        shown = open_page(browser, pages.artifact(key), HOSTILE, "(label: ")
        assert shown.count(HOSTILE) == shown.count("(label: ") * (2 if key == "rationales-teacher" else 1)
        assert not browser.find_elements(By.CSS_SELECTOR, "a[href*='evil']")
        assert not browser.find_elements(By.CSS_SELECTOR, "img[src='x']")
        assert "owned" not in browser.title
    shown = open_page(browser, pages.artifact("rationales-teacher"), "What the teacher said")
    assert shown.count("1 of 2 votes, 50%") == 5
    assert f"negative: 1 — {HOSTILE} 1 * 1 = 1." in shown


def test_mlflow_shows_the_rounds_and_the_champion(browser: Chrome, pages: Pages) -> None:
    shown = open_page(browser, pages.curve("qcrd", "validation/accuracy"), "validation/accuracy", "(step=1)")
    accuracy = float(rounds(pages)[1]["validation"].rstrip("%")) / 100
    assert f"{accuracy:g} (step=1)" in shown or f"{accuracy:.1f}" in shown
    open_page(browser, pages.model("qcrd-sums"), "@ champion", "@ challenger", "promoted: there was no champion")


def test_the_links_lead_from_prefect_to_mlflow_and_back(browser: Chrome, pages: Pages) -> None:
    open_page(browser, pages.artifact("mlflow-qcrd"), "in MLflow")
    [link] = browser.find_elements(By.PARTIAL_LINK_TEXT, "in MLflow")
    assert link.get_attribute("href") == pages.training("qcrd")
    open_page(browser, pages.training("qcrd"), "Model metrics", "Prefect: ")
    back = [link.get_attribute("href") for link in browser.find_elements(By.CSS_SELECTOR, "a[href*='flow-run']")]
    assert back
    open_page(browser, str(back[0]), "Completed")
    assert pages.run_id in browser.current_url


def test_prefect_lists_the_automations(browser: Chrome, pages: Pages, folder: Path) -> None:
    subprocess.run(
        qcrd_command(folder / "home", "automations"), check=True, capture_output=True,
        env={**os.environ, "PREFECT_API_URL": f"{pages.prefect}/api"},
    )  # fmt: skip
    open_page(
        browser,
        f"{pages.prefect}/automations",
        "qcrd champion promoted",
        "qcrd quality dropped",
        "qcrd drift",
        "qcrd proxy",
    )
    assert "qcrd run died" in page_text(browser)


def test_the_exporter_serves_what_the_run_left(pages: Pages, folder: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = qcrd_command(folder / "home", "metrics", "--port", port)
    env = {**os.environ, "MLFLOW_TRACKING_URI": pages.mlflow}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"http://127.0.0.1:{port}/metrics\n"
            text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text
        finally:
            process.terminate()
    assert 'qcrd_last_run_state{dataset="sums",state="finished"} 1.0' in text
    assert 'qcrd_round_validation_accuracy_ratio{dataset="sums",method="qcrd",round="1"}' in text
    assert 'qcrd_champion_version{model="qcrd-sums"} 1.0' in text
    assert "qcrd_step_done{" not in text, "nothing is running"


def test_a_missing_chromium_is_said_with_its_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"^Chromium is not here: install Debian's packages chromium and chromium-"):
        chromium().__enter__()
