"""The store's files: where they are, and how one is published, whole or not at all.

On a local disk the bytes go to a temporary file in the same file system and are synced; the file is then renamed to
its final name, and the folder is synced. At every moment, crashes included, a reader sees the whole file or none.
An object store publishes an object only when its upload completes, which gives the same guarantee. The bytes are
encoded in memory first, so that an error halfway through uploads nothing.
"""

import errno
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from urllib.parse import quote, unquote

import pyarrow as pa
from pyarrow import fs as pafs

from storage.addresses import refuse_password
from storage.errors import StoreWriteFailed, UsageError, one_line
from storage.ids import content_id
from storage.locks import file_lock

ELSEWHERE = "Choose another place with --home (or QCRD_STORE, where that is set)."
INSTEAD = (
    "set the variables that the object store's own programs read, such as AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or GOOGLE_APPLICATION_CREDENTIALS"
)
TEMPORARY = "_tmp"
"""Folder of files being written. Names that begin with "_" or "." are never read as data."""


def folder_name(column: str, value: str) -> str:
    """`column=value`, percent-encoded so that no value can name a path outside its folder."""
    return f"{column}={quote(value, safe='')}"


def folder_value(folder: str) -> str:
    """The value that `folder_name` encoded."""
    return unquote(folder.split("=", 1)[1])


class Files:
    """The files under one root: a local folder or an object-store URL (`s3://bucket/prefix`, `gs://...`).

    URLs take pyarrow's options, such as `s3://bucket/prefix?endpoint_override=localhost:9000&scheme=http`.
    Paths are relative to the root, with forward slashes.

    Raises:
        UsageError: the root cannot be used: an unknown scheme, wrong options, a password in it, or a file.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.given = os.fspath(root)
        if "://" in self.given:
            refuse_password("The store's URL (QCRD_STORE)", self.given, INSTEAD)
            try:
                self.fs, self.root = pafs.FileSystem.from_uri(self.given)
            except (pa.ArrowInvalid, OSError) as error:
                raise UsageError(
                    f"Cannot open the store at {self.given!r}: {one_line(error)}. "
                    "Allowed: a local path, or a URL such as s3://bucket/prefix or gs://bucket/prefix."
                ) from error
        else:
            self.fs, self.root = pafs.LocalFileSystem(), str(Path(self.given).absolute())
        self.local = isinstance(self.fs, pafs.LocalFileSystem)
        self.root = self.root.rstrip("/")
        if not self.root:
            raise UsageError(f"The store's URL {self.given!r} names no bucket or folder; give s3://bucket/prefix.")
        if self.local:
            with translated(self.given):
                if Path(self.root).exists() and not Path(self.root).is_dir():
                    raise UsageError(f"The store at {self.given} must be a folder, but it is a file. {ELSEWHERE}")

    def absolute(self, path: str) -> str:
        """The path in the file system."""
        return f"{self.root}/{path}" if path else self.root

    def sizes(self, folder: str) -> dict[str, int]:
        """Path -> bytes of every data file below a folder, sorted.

        Those with "_" or "." at the start of a name on their path are none.
        """
        selector = pafs.FileSelector(self.absolute(folder), allow_not_found=True, recursive=True)
        prefix = len(self.root) + 1
        found = {info.path[prefix:]: info.size for info in self._infos(selector) if info.type == pafs.FileType.File}
        return {path: found[path] for path in sorted(found) if not any(name[0] in "_." for name in path.split("/"))}

    def _infos(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        with translated(self.given):
            infos: list[pafs.FileInfo] = self.fs.get_file_info(selector)
            return infos

    def exists(self, path: str) -> bool:
        with translated(self.given):
            return bool(self.fs.get_file_info(self.absolute(path)).type == pafs.FileType.File)

    def read(self, path: str) -> bytes:
        """A whole file.

        Raises:
            StoreWriteFailed: the store is away.
        """
        with translated(self.given), self.fs.open_input_stream(self.absolute(path)) as stream:
            data: bytes = stream.read()
            return data

    def publish(self, path: str, data: bytes | memoryview | pa.Buffer) -> None:
        """Writes a whole file under a new name.

        Raises:
            StoreWriteFailed: the disk is full, the folder is not writable ...; nothing is left at `path`.
        """
        if not self.local:
            with translated(self.given), self.fs.open_output_stream(self.absolute(path)) as stream:
                stream.write(data)
            return
        with self.temporary() as unfinished:
            with translated(self.given):
                unfinished.write_bytes(data)
            self.publish_file(unfinished, path)

    def publish_file(self, unfinished: Path, path: str) -> None:
        """Like `publish`, for a finished local file instead of bytes."""
        if not self.local:
            with pa.memory_map(str(unfinished)) as file:
                self.publish(path, file.read_buffer())
            return
        final = Path(self.absolute(path))
        with translated(self.given):
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
            final.parent.mkdir(parents=True, exist_ok=True)
            unfinished.rename(final)
            _sync_folder(final.parent)

    @contextmanager
    def temporary(self) -> Iterator[Path]:
        """A path for a local file being written; on the root's file system if the root is local.

        A file left there is removed at the end. After a kill, `qcrd store check --repair` removes it.
        """
        if not self.local:
            with tempfile.TemporaryDirectory(prefix="qcrd-") as system_folder:
                yield Path(system_folder) / "unfinished"
            return
        folder = Path(self.absolute(TEMPORARY))
        with translated(self.given):
            folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{os.getpid()}-{socket.gethostname()}-{uuid.uuid4().hex}"
        try:
            yield unfinished
        finally:
            unfinished.unlink(missing_ok=True)

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """An empty local folder for temporary files, which is removed at the end.

        On a local disk the caller holds `Store.lock(name)`; elsewhere processes of this machine wait for each other
        here. So other folders of that name were left by processes that were killed, and are removed first.
        """
        ending = content_id(self.given, name)
        if self.local:
            parent = Path(self.absolute(TEMPORARY))
            lock: AbstractContextManager[object] = nullcontext()
        else:
            parent = Path(tempfile.gettempdir(), f"qcrd-{os.getuid()}")
            lock = file_lock(parent / f"{ending}.lock")
        with translated(self.given):
            parent.mkdir(parents=True, exist_ok=True)
        with lock:
            for left in parent.glob(f"*-{ending}"):
                shutil.rmtree(left)
            folder = parent / f"{os.getpid()}-{socket.gethostname()}-{ending}"
            try:
                with translated(self.given):
                    folder.mkdir()
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def remove(self, path: str) -> None:
        """Deletes a file; one that is gone already is none to complain of."""
        with translated(self.given), suppress(FileNotFoundError):
            if self.local:
                Path(self.absolute(path)).unlink()
            else:
                self.fs.delete_file(self.absolute(path))

    def move(self, path: str, to: str) -> None:
        """Moves a file inside the root (object stores: copy, then delete)."""
        with translated(self.given):
            if self.local:
                Path(self.absolute(to)).parent.mkdir(parents=True, exist_ok=True)
            self.fs.move(self.absolute(path), self.absolute(to))


@contextmanager
def translated(root: str) -> Iterator[None]:
    """Turns errors of the operating system into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreWriteFailed(
                f"Cannot write to the store at {root}: {os.strerror(error.errno or 0)}. Nothing stored was harmed. "
                "Free some space (or raise the limit), then run the same command again: it continues where it stopped."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StoreWriteFailed(
                f"Cannot write to the store at {root}: {os.strerror(error.errno or 0)}. "
                f"Make the folder writable for this user. {ELSEWHERE}"
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise UsageError(f"The store at {root} must be a folder: {one_line(error)}. {ELSEWHERE}") from error
        raise StoreWriteFailed(f"The store at {root} failed: {one_line(error)}.") from error
    except pa.ArrowInvalid as error:
        raise UsageError(f"The store at {root} cannot be used: {one_line(error)}. {ELSEWHERE}") from error


def _sync_folder(folder: Path) -> None:
    """Syncs a folder, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
