"""Reads tables that users give: JSONL and CSV, also gzipped, and Parquet.

Rows come one at a time, as dictionaries from column to value, so a file may be larger than memory. Whatever is wrong
with a file becomes one clear line (`BadFile`) with the file's name and, where possible, the line number.
"""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import BadFile, OutOfReach, one_line

SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet")
BATCH_ROWS = 1024  # rows of a Parquet file held at a time
MAX_CELL = 2**27  # bytes in one CSV cell; a long transcript exceeds the default of 128 KiB

Row = dict[str, Any]

_SURROGATES = re.compile("[\ud800-\udfff]")


def read_rows(path: str | Path) -> Iterator[Row]:
    """Yields the rows of a file, in order.

    Raises:
        BadFile: the file is missing, empty, damaged, of an unknown kind, or not of the kind its name says. Raised by
            the first `next`, except for damage further down.
    """
    file = Path(path)
    kind = _kind(file)
    count = 0
    try:
        if not file.exists():
            raise OutOfReach(f"No such file: {file}")
        if file.is_dir():
            raise BadFile(f"{file} is a folder; give a file ({', '.join(SUFFIXES)})")
        if file.stat().st_size == 0:
            raise BadFile(f"{file} is empty")
        for row in _parquet(file) if kind == ".parquet" else _text_rows(file, kind):
            count += 1
            yield row
    except (OSError, EOFError, zlib.error) as error:
        # A truncated or fake gzip file, no permission, or a name that is too long.
        raise BadFile(f"{file} cannot be read: {one_line(error)}") from error
    except UnicodeDecodeError as error:
        raise BadFile(f"{file} is not UTF-8 text: {one_line(error)}") from error
    if count == 0:
        raise BadFile(f"{file} holds no rows")


def missing_column(wanted: str, row: Mapping[str, Any], hint: str = "") -> BadFile:
    """The error for a column that a row lacks: suggests the nearest column and lists those there are."""
    columns = [str(column) for column in row]
    nearest = get_close_matches(wanted, columns, n=1, cutoff=0.5)
    suggestion = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return BadFile(
        f"no column {wanted!r}.{suggestion} Columns: {', '.join(columns) or 'none'}.{' ' + hint if hint else ''}"
    )


def parse_json(text: str) -> Any:
    """The value of a JSON text, without lone surrogates.

    Raises:
        ValueError: it is not JSON, or not JSON that Python can hold; the message says why in a few words.
    """
    try:
        value = json.loads(text)
        # Only an escape can make a lone surrogate, and few lines have one that looks like it.
        return _clean(value) if "\\ud" in text or "\\uD" in text else value
    except json.JSONDecodeError as error:
        raise ValueError(error.msg) from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except ValueError as error:  # Python reads no integer of more than 4300 digits
        raise ValueError("a number has too many digits") from error


def without_surrogates(text: str) -> str:
    """The text with each lone surrogate ("\\ud800") replaced by U+FFFD: JSON can hold one, UTF-8 cannot."""
    return _SURROGATES.sub("\ufffd", text)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, list):
        return [_clean(inner) for inner in value]
    if isinstance(value, dict):
        return {without_surrogates(key): _clean(inner) for key, inner in value.items()}
    return value


def _kind(file: Path) -> str:
    name = file.name.lower()
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.endswith(suffix):
            return suffix
    raise BadFile(f"{file} is of an unknown kind: its name must end in {', '.join(SUFFIXES)}")


def _text_rows(file: Path, kind: str) -> Iterator[Row]:
    # utf-8-sig: spreadsheets begin files with a byte order mark.
    with gzip.open(file) if kind.endswith(".gz") else file.open("rb") as binary:
        lines = TextIOWrapper(cast(BinaryIO, binary), encoding="utf-8-sig", newline="")
        yield from _jsonl(file, lines) if kind.startswith(".jsonl") else _csv(file, lines)


def _jsonl(file: Path, lines: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise BadFile(f"{file} line {number} is not JSON ({error}); expected one object per line") from error
        if not isinstance(row, dict):
            raise BadFile(
                f"{file} line {number} is not a JSON object but {type(row).__name__}; expected one object per line"
            )
        yield row


def _csv(file: Path, lines: Iterable[str]) -> Iterator[Row]:
    csv.field_size_limit(MAX_CELL)
    reader = csv.reader(lines, strict=True)
    rows = (cells for cells in reader if cells)  # without blank lines
    try:
        header = next(rows, [])
        for column in header:
            if header.count(column) > 1:
                raise BadFile(f"{file} line {reader.line_num} names the column {column!r} more than once")
        for cells in rows:
            if len(cells) != len(header):
                difference = "more" if len(cells) > len(header) else "fewer"
                raise BadFile(
                    f"{file} line {reader.line_num} has {difference} cells than the header has columns "
                    f"({', '.join(header)}); quote cells that hold commas"
                )
            # An empty cell is a missing value, as null is in the other formats.
            yield {column: (cell if cell != "" else None) for column, cell in zip(header, cells, strict=True)}
    except csv.Error as error:
        raise BadFile(f"{file} line {reader.line_num} is not CSV: {one_line(error)}") from error


def _parquet(file: Path) -> Iterator[Row]:
    try:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=BATCH_ROWS):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise BadFile(f"{file} is not a readable Parquet file (damaged or truncated): {one_line(error)}") from error
    except (OverflowError, ValueError, LookupError) as error:  # a date after the year 9999, an unknown time zone
        raise BadFile(f"{file} holds a value that cannot be read: {one_line(error)}") from error
