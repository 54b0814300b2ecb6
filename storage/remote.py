"""Lets DuckDB read an object store through pyarrow's file systems.

DuckDB would download its own extension for object stores at run time. pyarrow ships with S3, GCS and Azure, and the
same credentials then serve for reading and writing.
"""

import io
import threading
from typing import Any

import pyarrow as pa
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow import fs as pafs


class SharedFile(io.RawIOBase):
    """A file with a position of its own for each thread that reads it.

    DuckDB's threads share a file, and seek and read in two calls. With a single position they would get each other's
    bytes.
    """

    def __init__(self, file: pa.NativeFile) -> None:
        self._file, self._size, self._own = file, int(file.size()), threading.local()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(getattr(self._own, "position", 0))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self._size}[whence]
        self._own.position = start + offset
        return self.tell()

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self.tell())
        data: bytes = self._file.read_at(left if size is None or size < 0 else min(size, left), self.tell())
        self._own.position = self.tell() + len(data)
        return data

    def close(self) -> None:
        self._file.close()
        super().close()


class QcrdFileSystem(ArrowFSWrapper):  # type: ignore[misc]  # fsspec has no types
    """A pyarrow file system under the protocol `qcrd://`."""

    protocol = "qcrd"
    cachable = False

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return path.removeprefix("qcrd://") if isinstance(path, str) else path

    def _open(self, path: str, mode: str = "rb", **_: Any) -> SharedFile:
        if mode != "rb":
            raise ValueError(f"Files are only read here, not opened as {mode!r}; `storage.files` writes them.")
        return SharedFile(self.fs.open_input_file(path))

    def glob(self, path: str, **_: Any) -> list[str]:
        """The path itself: DuckDB globs every path, and the store's are exact."""
        return [f"qcrd://{self._strip_protocol(path)}"]


def as_fsspec(filesystem: pafs.FileSystem) -> QcrdFileSystem:
    """The file system in the form that DuckDB's `register_filesystem` takes."""
    return QcrdFileSystem(filesystem)
