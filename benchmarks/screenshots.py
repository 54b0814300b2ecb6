"""Takes the pictures in docs/images/ of Prefect's and MLflow's pages, with a headless Chromium.

    apt-get install chromium chromium-driver                          # Debian's
    qcrd ui --home STATE                                              # in another terminal; and a run that reports there
    python -m benchmarks.screenshots --prefect http://127.0.0.1:4200 --mlflow http://127.0.0.1:5000

The pictures are of the newest finished run of `distill` and of its registered model.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from storage.errors import UsageError

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--hide-scrollbars",
)  # fmt: skip
PATIENCE_S = 90.0


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
    """What a person would read on the page that is open."""
    return str(browser.execute_script("return document.body ? document.body.innerText : ''"))


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
