"""Reads public datasets from the Hugging Face hub, through its automatic Parquet conversion.

The hub keeps every public dataset as `<configuration>/<split>/0000.parquet` under the revision
`refs/convert/parquet`. So all are read the same way, and no dataset's own code is run. Downloads go to the hub
library's cache: loading again needs no network.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from storage.errors import BadFile, OutOfReach
from storage.rows import read_rows

REVISION = "refs/convert/parquet"
TIMEOUT = 10.0  # seconds until the hub counts as unreachable


@dataclass(frozen=True)
class HubSplit:
    """A range of one of the hub's splits: rows from `start` up to but not including `stop` (None: to the end)."""

    name: str
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class HubSource:
    """Where a dataset lives on the hub.

    Attributes:
        repository: owner and name.
        configuration: the folder its Parquet files are in.
        splits: our split -> a range of the hub's. Where a dataset has no public validation split or test labels, ours
            are taken from the other splits; the dataset's module says how.
    """

    repository: str
    configuration: str
    splits: Mapping[str, HubSplit]

    def rows(self, split: str) -> Iterator[Mapping[str, Any]]:
        """The rows of one of our splits, in the hub's order.

        Raises:
            OutOfReach: the hub cannot be reached.
            BadFile: it has no Parquet files of that split.
        """
        part = self.splits[split]
        rows = (row for file in self._files(part.name) for row in read_rows(file))
        yield from islice(rows, part.start, part.stop)

    def _files(self, hub_split: str) -> list[Path]:
        from huggingface_hub import snapshot_download  # takes half a second, and most runs need no hub

        folder = f"{self.configuration}/{hub_split}"
        advice = "Pass a file with --path instead (JSONL, CSV or Parquet)."
        try:
            root = snapshot_download(
                self.repository,
                repo_type="dataset",
                revision=REVISION,
                allow_patterns=[f"{folder}/*.parquet"],
                etag_timeout=TIMEOUT,
            )
        except Exception as error:  # errors of several HTTP clients get through; all mean that it cannot be loaded
            raise OutOfReach(
                f"{self.repository} cannot be loaded from the Hugging Face hub ({type(error).__name__}). {advice}"
            ) from error
        files = sorted((Path(root) / folder).glob("*.parquet"))
        if not files:
            raise BadFile(f"{self.repository} on the Hugging Face hub has no Parquet files under {folder}. {advice}")
        return files
