"""Where qcrd keeps its state on this machine."""

import os
from dataclasses import dataclass
from pathlib import Path

from storage.store import Store

HOME_VARIABLE = "QCRD_HOME"
STORE_VARIABLE = "QCRD_STORE"


@dataclass(frozen=True)
class Home:
    """The state folder, given by `--home`, else QCRD_HOME, else `.qcrd` in the current folder.

    <home>/store    the Parquet store; QCRD_STORE puts it elsewhere, an object-store URL included
    <home>/lab      the lab teachers
    <home>/logs     server logs
    <home>/reports  reports of comparisons
    """

    path: Path

    @property
    def store_root(self) -> str:
        return os.environ.get(STORE_VARIABLE) or str(self.path / "store")

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def reports(self) -> Path:
        return self.path / "reports"

    def open_store(self) -> Store:
        """The store; raises what `Store` raises."""
        return Store(self.store_root)
