"""Lets DuckDB read the files of an object store through pyarrow's file systems.

DuckDB's own extension for object stores is downloaded at run time; pyarrow brings S3, GCS and Azure along, and one
set of credentials then serves reading and writing.
"""

from typing import Any

from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow import fs as pafs


class QcrdFileSystem(ArrowFSWrapper):  # type: ignore[misc]  # fsspec has no types
    """A pyarrow file system under the protocol `qcrd://`."""

    protocol = "qcrd"
    cachable = False

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return path.removeprefix("qcrd://") if isinstance(path, str) else path

    def glob(self, path: str, **_: Any) -> list[str]:
        """DuckDB globs even plain names; the store names every file exactly."""
        return [f"qcrd://{self._strip_protocol(path)}"]


def as_fsspec(filesystem: pafs.FileSystem) -> QcrdFileSystem:
    """The file system as DuckDB's `register_filesystem` wants it."""
    return QcrdFileSystem(filesystem)
