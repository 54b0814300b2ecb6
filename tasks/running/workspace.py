"""Where a run works."""

from contextlib import AbstractContextManager
from pathlib import Path

from pydantic import BaseModel

from storage.store import Store
from tasks.running.progress import Progress, progress


class Workspace(BaseModel):
    """Where a run works.

    Attributes:
        home: the state folder.
        store: root of the rationale store.
        run_id: the run's id in the store's `runs` table.
    """

    home: Path
    store: str
    run_id: str

    def open_store(self) -> Store:
        """The store."""
        return Store(self.store)

    def progress(self, what: str, key: str) -> AbstractContextManager[Progress]:
        """The progress reports of a step; see `Progress`."""
        return progress(self.home, self.run_id, what, f"progress-{key}")
