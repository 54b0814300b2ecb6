"""Rows of public datasets from the Hugging Face hub, through its automatic Parquet conversion.

The hub keeps every public dataset converted under the revision `refs/convert/parquet`, as
`<configuration>/<split>/0000.parquet`, so one way of reading serves them all and no dataset's own code is run.
Downloads land in the hub library's cache: a second load needs no network.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from storage.errors import BadFile, OutOfReach
from storage.rows import read_rows

REVISION = "refs/convert/parquet"
TIMEOUT = 10.0  # seconds until the hub counts as out of reach


@dataclass(frozen=True)
class HubSplit:
    """A stretch of one of the hub's splits: rows `start` up to, not including, `stop` (None: to the end)."""

    name: str
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class HubSource:
    """Where a dataset lives on the hub.

    Attributes:
        repository: owner and name.
        configuration: the folder its Parquet files are in.
        splits: our split -> the stretch of the hub's split it is. Where a dataset publishes no validation split, or
            keeps its test labels to itself, ours are cut from what there is; the dataset's module says how.
    """

    repository: str
    configuration: str
    splits: Mapping[str, HubSplit]

    def rows(self, split: str) -> Iterator[Mapping[str, Any]]:
        """The rows of one of our splits, in the hub's order.

        Raises:
            OutOfReach: the hub cannot be reached; says to pass a file.
            BadFile: it has no such files.
        """
        part = self.splits[split]
        rows = (row for file in self._files(part.name) for row in read_rows(file))
        yield from islice(rows, part.start, part.stop)

    def _files(self, hub_split: str) -> list[Path]:
        from huggingface_hub import snapshot_download  # half a second to import, and most runs need no hub

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
        except Exception as error:  # the library lets errors of several HTTP clients through: all mean "not to be had"
            raise OutOfReach(
                f"{self.repository} cannot be loaded from the Hugging Face hub ({type(error).__name__}). {advice}"
            ) from error
        files = sorted((Path(root) / folder).glob("*.parquet"))
        if not files:
            raise BadFile(f"{self.repository} on the Hugging Face hub has no Parquet files under {folder}. {advice}")
        return files
