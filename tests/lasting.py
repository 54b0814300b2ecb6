"""Folders for what several tests share."""

import atexit
import shutil
from pathlib import Path
from tempfile import mkdtemp


def lasting_folder() -> Path:
    """A folder that goes when all tests of this process are over."""
    folder = Path(mkdtemp(prefix="qcrd-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
