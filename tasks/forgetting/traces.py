"""Removes what programs keep of questions beside the store: databases of Prefect and MLflow, reports, logs, examples.

What quotes a text is replaced in place where the file or row is needed, and removed where it can be made again:

    SQLite databases                values, in JSON the innermost ones; then the free pages, which keep deleted rows
    *.json                          values: a packaged student's input example
    *.log, *.jsonl, *.txt           lines
    *.html, Prefect's results       the file

Weights, tokenizers and code are left alone. Any other file that quotes a text is only named.
"""

import base64
import bz2
import gzip
import json
import lzma
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from models.folders import whole_file
from storage.errors import UsageError
from tasks.forgetting.quotes import GONE, Quotes

WAIT_S = 10.0
"""How long a database may be locked by somebody else."""
MOST_BYTES = 256 * 2**20
"""A larger file is only read line by line, if it has lines."""
_NO_TEXTS = (".safetensors", ".bin", ".py", ".pyc", ".lock", ".db", ".db-wal", ".db-shm", ".parquet")
_LINES, _MADE_AGAIN = (".log", ".jsonl", ".txt"), (".html", ".htm")
_NO_TABLES = ("metrics", "latest_metrics", "logged_model_metrics")  # names and figures: millions of rows
_SIZES = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt")


@dataclass
class Traces:
    """What was found.

    Attributes:
        changed: files and databases in which something was replaced.
        removed: files that were removed.
        named: files that still quote a text.
    """

    changed: list[Path] = field(default_factory=list)
    removed: list[Path] = field(default_factory=list)
    named: list[Path] = field(default_factory=list)


def remove_from_files(folders: Iterable[Path], quotes: Quotes, results: Path) -> Traces:
    """Removes quotes from all files below some folders.

    Args:
        results: the folder of Prefect's stored results, below one of them.
    """
    traces = Traces()
    for file in _files(folders):
        is_result = results in file.parents
        if not (any(map(quotes.in_, _result_texts(file))) if is_result else _quotes(file, quotes)):
            continue
        if is_result or file.suffix in _MADE_AGAIN:
            file.unlink()
            traces.removed.append(file)
        elif file.suffix == ".json" and _json_changed(file, quotes):
            traces.changed.append(file)
        elif file.suffix in _LINES:
            _change_lines(file, quotes)
            traces.changed.append(file)
        else:
            traces.named.append(file)
    return traces


def remove_from_database(file: Path, quotes: Quotes) -> bool:
    """Removes quotes from all rows of a SQLite database, and deleted rows from its free pages; returns whether any row
    was changed.

    Raises:
        UsageError: another program keeps it locked.
    """
    try:
        with closing(sqlite3.connect(file, timeout=WAIT_S, isolation_level=None)) as con:
            con.execute("PRAGMA secure_delete = ON")
            con.execute("BEGIN IMMEDIATE")
            changed = [_change(con, *place, quotes) for place in _columns(con)]
            con.execute("COMMIT")
            con.execute("VACUUM")
            (busy, *_) = con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise UsageError(f"The database {file} cannot be changed: {error}.") from error
        busy, changed = 1, []
    if busy:
        raise UsageError(
            f"Another program uses {file}. End `qcrd ui`, `qcrd serve`, `qcrd answer` and servers on this state "
            "folder, then run the same command again."
        )
    return any(changed)


def _columns(con: sqlite3.Connection) -> list[tuple[str, str]]:
    """Tables and those of their columns that may hold texts."""
    tables = con.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").fetchall()
    return [
        (table, column)
        for (table,) in tables
        if table not in _NO_TABLES
        for _, column, kind, *_ in con.execute(f'PRAGMA table_info("{table}")').fetchall()
        if not any(name in kind.upper() for name in ("INT", "BOOL", "FLOAT", "DATE", "TIME", "NUMERIC", "DOUBLE"))
    ]


def _change(con: sqlite3.Connection, table: str, column: str, quotes: Quotes) -> bool:
    quoting = [
        (row, value)
        for row, value in con.execute(f'SELECT rowid, "{column}" FROM "{table}" WHERE length("{column}") > 0')
        if quotes.in_(_text(value))
    ]
    for row, value in quoting:
        new: str | bytes = quotes.removed(value) if isinstance(value, str) else GONE.encode()
        con.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', (new, row))
    return bool(quoting)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            if file.suffix not in _NO_TEXTS and file.name not in _SIZES and file.is_file() and not file.is_symlink():
                yield file


def _quotes(file: Path, quotes: Quotes) -> bool:
    if file.stat().st_size > MOST_BYTES:
        with file.open(encoding="utf-8", errors="replace") as lines:
            return file.suffix in _LINES and any(map(quotes.in_, lines))
    return quotes.in_(file.read_text(encoding="utf-8", errors="replace"))


def _result_texts(file: Path) -> Iterator[str]:
    """What one of Prefect's stored results says: JSON, in which a pickle may be in Base64, and compressed."""
    data = file.read_bytes()
    yield data.decode("utf-8", "replace")
    with suppress(ValueError, KeyError, TypeError):
        inner = base64.b64decode(json.loads(data)["result"])
        yield inner.decode("utf-8", "replace")
        for decompress in (zlib.decompress, gzip.decompress, bz2.decompress, lzma.decompress):
            with suppress(OSError, EOFError, zlib.error, lzma.LZMAError):
                yield decompress(inner).decode("utf-8", "replace")


def _json_changed(file: Path, quotes: Quotes) -> bool:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return False
    with whole_file(file) as partial:
        partial.write_text(json.dumps(quotes.removed(content), ensure_ascii=False), encoding="utf-8")
    return True


def _change_lines(file: Path, quotes: Quotes) -> None:
    with (
        whole_file(file) as partial,
        file.open(encoding="utf-8", errors="surrogateescape") as lines,
        partial.open("w", encoding="utf-8", errors="surrogateescape") as kept,
    ):
        for line in lines:
            kept.write(GONE + "\n" if quotes.in_(line) else line)
    if file.stat().st_size <= MOST_BYTES and _quotes(file, quotes):  # a text of several lines
        with whole_file(file) as partial:
            partial.write_text(GONE + "\n", encoding="utf-8")
