"""Takes the pictures in docs/images/ of Prefect's and MLflow's pages, with a headless Chromium.

    apt-get install chromium chromium-driver      # Debian's
    qcrd ui                                       # in another terminal; runs must have reported to these two servers
    python -m benchmarks.screenshots --prefect http://127.0.0.1:4200 --mlflow http://127.0.0.1:5000 --out docs/images

The pictures are of the newest finished run of `distill` and of the model that it registered.
`tests/flows/test_browser.py` looks at the same pages.
"""

import argparse
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from storage.errors import UsageError

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--hide-scrollbars",
)  # fmt: skip
PATIENCE_S = 90.0
ASSISTANT_CLOSED = (
    "localStorage['mlflow.assistant.fab.autoOpenedOnFirstLoad_v1'] = 'true';"
    "localStorage['mlflow.assistant.panelOpen_v1'] = 'false';"
)


@contextmanager
def chromium(width: int = 1280, height: int = 900) -> Iterator[Chrome]:
    """A headless Chromium with a profile of its own.

    Raises:
        UsageError: it is not installed.
    """
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        raise UsageError("Chromium is not here: install Debian's packages chromium and chromium-driver.")
    with tempfile.TemporaryDirectory(prefix="qcrd-chromium-", ignore_cleanup_errors=True) as profile:
        options = ChromeOptions()
        options.binary_location = browser
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        opened = Chrome(options=options, service=Service(driver))
        try:
            yield opened
        finally:
            opened.quit()


def page_text(browser: Chrome) -> str:
    """What a person would read on the page that is open; spaces are spaces."""
    return str(browser.execute_script("return document.body ? document.body.innerText : ''")).replace("\xa0", " ")


def open_page(browser: Chrome, url: str, *texts: str) -> str:
    """Opens a page and waits until it shows all the texts; returns all of its text.

    Raises:
        TimeoutError: it does not; says what it shows.
    """
    browser.get(url)
    return wait_for_texts(browser, *texts)


def wait_for_texts(browser: Chrome, *texts: str) -> str:
    """Waits until the open page shows all the texts; raises as `open_page`."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        shown = page_text(browser)
        missing = [text for text in texts if text.casefold() not in shown.casefold()]
        if not missing:
            return shown
        if time.monotonic() > deadline:
            raise TimeoutError(f"{browser.current_url} does not show {missing}; it shows:\n{shown}")
        time.sleep(0.3)


def click(browser: Chrome, text: str) -> None:
    """Clicks the last tab or button with exactly this text, once it is there."""
    wait_for_texts(browser, text)
    found = browser.execute_script(
        "const all = [...document.querySelectorAll('button, a, li, [role=tab]')];"
        "const found = all.filter(one => (one.textContent || '').trim() === arguments[0]).at(-1);"
        "if (found) found.click(); return !!found;",
        text,
    )
    if not found:
        raise TimeoutError(f"{browser.current_url} has nothing to click that says {text!r}")


class Pages:
    """The addresses of what a run left in Prefect and MLflow.

    Args:
        prefect, mlflow: addresses of the servers.
        name: of the run in Prefect; None takes the newest finished one.
    """

    def __init__(self, prefect: str, mlflow: str, name: str | None = None) -> None:
        self.prefect, self.mlflow = prefect, mlflow
        wanted: dict[str, Any] = {"state": {"type": {"any_": ["COMPLETED"]}}}
        if name:
            wanted["name"] = {"any_": [name]}
        found = self._ask("flow_runs/filter", {"flow_runs": wanted, "sort": "START_TIME_DESC", "limit": 1})
        if not found:
            raise UsageError(f"No finished run is known to Prefect at {prefect}.")
        self.run_id = found[0]["id"]
        about = {"flow_runs": {"id": {"any_": [self.run_id]}}, "limit": 200, "sort": "CREATED_DESC"}
        self.artifacts = {one["key"]: one for one in reversed(self._ask("artifacts/filter", about))}

    @property
    def run(self) -> str:
        """The run's page in Prefect."""
        return f"{self.prefect}/runs/flow-run/{self.run_id}"

    def artifact(self, key: str) -> str:
        """An artifact's page in Prefect."""
        return f"{self.prefect}/artifacts/artifact/{self.artifacts[key]['id']}"

    def training(self, method: str) -> str:
        """A training's page in MLflow, as the run's link artifact has it."""
        link = re.search(r"\((http\S+)\)", self.artifacts[f"mlflow-{method}"]["data"])
        if link is None:
            raise UsageError("The run did not report to an MLflow server.")
        return link[1]

    def curve(self, method: str, *metrics: str) -> str:
        """The page in MLflow that draws a training's metrics by round."""
        found = re.search(r"/experiments/(\w+)/runs/(\w+)", self.training(method))
        experiment, run = found.groups() if found else ("", "")
        keys = ",".join(f'"{metric}"' for metric in metrics)
        return (
            f'{self.mlflow}/#/metric?runs=["{run}"]&experiments=["{experiment}"]&metric="{metrics[0]}"'
            f"&plot_metric_keys=[{keys}]&x_axis=step"
        )

    def model(self, name: str) -> str:
        """A registered model's page in MLflow."""
        return f"{self.mlflow}/#/models/{name}"

    def _ask(self, path: str, body: dict[str, Any]) -> Any:
        return httpx.post(f"{self.prefect}/api/{path}", json=body).raise_for_status().json()


def main() -> None:
    """Takes the pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prefect", default="http://127.0.0.1:4200")
    parser.add_argument("--mlflow", default="http://127.0.0.1:5000")
    parser.add_argument("--run", help="name of the run in Prefect; default: the newest finished one")
    parser.add_argument("--model", default="qcrd-lab")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    given = parser.parse_args()
    pages = Pages(given.prefect, given.mlflow, given.run)

    def take(browser: Chrome, name: str, settle_s: float = 3.0) -> None:
        time.sleep(settle_s)  # drawings that move into place
        browser.save_screenshot(str(given.out / f"{name}.png"))
        print(given.out / f"{name}.png")

    with chromium(1500, 1050) as browser:
        open_page(browser, pages.run, "Completed")
        click(browser, "Artifacts")
        wait_for_texts(browser, "rationales-teacher")
        take(browser, "prefect-run", 6.0)
        for key in ("rounds-qcrd", "gate", "rationales-teacher"):
            open_page(browser, pages.artifact(key), key)
            take(browser, f"prefect-{key}")
        browser.set_window_size(1500, 1650)
        open_page(browser, f"{given.prefect}/automations", "qcrd champion promoted", "qcrd run died")
        take(browser, "prefect-automations")
        browser.set_window_size(1500, 800)
        browser.get(given.mlflow)
        browser.execute_script(ASSISTANT_CLOSED)
        open_page(browser, pages.curve("qcrd", "validation/accuracy", "validation/explanation_accuracy"), "step=")
        take(browser, "mlflow-rounds", 6.0)
        open_page(browser, f"{given.mlflow}/#/models", given.model, "@ champion")
        click(browser, "Try it now")  # of an announcement that covers the page
        take(browser, "mlflow-registry")


if __name__ == "__main__":
    main()
