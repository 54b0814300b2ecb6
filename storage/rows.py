"""Reads tables that users give: JSONL, JSON, CSV and TSV, also gzipped, and Parquet.

Rows come one at a time, as dictionaries from column to value, so a file may be larger than memory (but for a JSON list,
which is read whole). Texts are UTF-8, or UTF-16 with its mark; another encoding must be named.
A missing value is None, however the file writes it: null, NaN, an empty cell. Whatever is wrong with a file becomes one
clear line (`BadFile`) with the file's name and, where possible, the line number.
"""

import csv
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.encodings import encoding_by_mark, is_utf8, opened
from storage.errors import BadFile, OutOfReach, one_line

TEXTS = (".jsonl", ".json", ".csv", ".tsv")  # also with .gz behind
PARQUET = ".parquet"
ALLOWED = ".jsonl, .json, .csv, .tsv (also .gz) or .parquet"
BATCH_ROWS = 1024  # rows of a Parquet file held at a time
MAX_CELL = 2**27  # bytes in one CSV cell; a long transcript exceeds the default of 128 KiB
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}  # the first wins where two would do
HEAD = 2**16  # characters of a CSV file by which its separator is found
MISSING = ("", "NaN", "nan", "#N/A")  # cells without a value, as spreadsheets and data frames write them

Row = dict[str, Any]

_SURROGATES = re.compile("[\ud800-\udfff]")


def read_rows(path: str | Path, encoding: str | None = None) -> Iterator[Row]:
    """Yields the rows of a file, in order; or of several, in the order of their names, if the name holds a *.

    Args:
        encoding: of a text file that is not UTF-8, such as "cp1252". One that is UTF-8 is read as that all the same.

    Raises:
        BadFile: the file is missing, empty, damaged, of an unknown kind, or not of the kind its name says. Raised by
            the first `next`, except for damage further down.
    """
    file = Path(path)
    kind = _kind(file)
    if "*" in file.name and not file.exists():
        for part in _parts(file):
            yield from read_rows(part, encoding)
        return
    count = 0
    try:
        if not file.exists():
            raise OutOfReach(f"No such file: {file}")
        if file.is_dir():
            raise BadFile(f"{file} is a folder; give a file ({ALLOWED})")
        if file.stat().st_size == 0:
            raise BadFile(f"{file} is empty")
        for row in _parquet(file) if kind == PARQUET else _text_rows(file, kind, encoding):
            count += 1
            yield row
    except (OSError, EOFError, zlib.error) as error:
        # A truncated or fake gzip file, no permission, or a name that is too long.
        raise BadFile(f"{file} cannot be read: {one_line(error)}") from error
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise BadFile(f"{file} is neither UTF-8 nor {encoding} text: {one_line(error)}") from error
        raise BadFile(
            f"{file} is not UTF-8 text: {one_line(error)}. Save it as UTF-8 (in a spreadsheet: CSV UTF-8), or convert "
            "it: iconv -f WINDOWS-1252 -t UTF-8; qcrd init finds out what it is"
        ) from error
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


def unfolded(row: Mapping[str, Any], whole: Callable[[str], bool] | None = None) -> Row:
    """The row with objects taken apart: {"ticket": {"body": "..."}} has the column "ticket.body".

    Args:
        whole: of which keys an object stays as it is.
    """
    out: Row = {}
    for name, value in row.items():
        if isinstance(value, Mapping) and value and not (whole and whole(name)):
            out |= {f"{name}.{inner}": cell for inner, cell in unfolded(value, whole).items()}
        else:
            out[name] = value
    return out


def parse_json(text: str) -> Any:
    """The value of a JSON text, without lone surrogates; NaN, which Python and pandas write, is None.

    Raises:
        ValueError: it is not JSON, or not JSON that Python can hold; the message says why in a few words.
    """
    try:
        value = json.loads(text, parse_constant=_constant)
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


def _constant(name: str) -> float | None:
    return None if name == "NaN" else float(name)


def _kind(file: Path) -> str:
    name = file.name.lower()
    for suffix in TEXTS:
        if name.removesuffix(".gz").endswith(suffix):
            return suffix
    if name.endswith(PARQUET):
        return PARQUET
    sheet = "; save the sheet as CSV UTF-8" if name.endswith((".xlsx", ".xls", ".ods")) else ""
    raise BadFile(f"{file} is of an unknown kind: its name must end in {ALLOWED}{sheet}")


def _parts(pattern: Path) -> list[Path]:
    parts = sorted(pattern.parent.glob(pattern.name))
    if not parts:
        raise OutOfReach(f"No file is called {pattern}")
    return parts


def _text_rows(file: Path, kind: str, encoding: str | None) -> Iterator[Row]:
    with opened(file) as binary:
        found = encoding_by_mark(binary)
        if found is None:
            # Somebody may have saved the file as UTF-8 since the encoding was written down.
            found = "utf-8" if encoding is None or is_utf8(file) else encoding
        lines = TextIOWrapper(binary, encoding=found, newline="")
        if kind in (".csv", ".tsv"):
            yield from _csv(file, lines)
        elif kind == ".json":
            yield from _json(file, lines)
        else:
            yield from _jsonl(file, lines)


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


def _json(file: Path, lines: TextIOWrapper) -> Iterator[Row]:
    """A list of objects, or one object per line: the hub and pandas write both under this name."""
    start = lines.read(1)
    while start[-1:].isspace():
        more = lines.read(1)
        if not more:
            return
        start += more
    if not start.endswith("["):
        yield from _jsonl(file, _after(start, lines))
        return
    try:
        rows = parse_json(start + lines.read())
    except ValueError as error:
        raise BadFile(f"{file} is not JSON ({error}); expected a list of objects, or one object per line") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise BadFile(f"{file} row {number} is not a JSON object but {type(row).__name__}")
        yield row


def _csv(file: Path, lines: TextIOWrapper) -> Iterator[Row]:
    csv.field_size_limit(MAX_CELL)
    head = lines.read(HEAD)
    named = re.match(r"sep=(.)\r?\n", head)  # a spreadsheet's own way to say which it is
    separator, skipped = (named[1], 1) if named else (_separator(head), 0)
    reader = csv.reader(_after(head[named.end() :] if named else head, lines), strict=True, delimiter=separator)
    rows = (cells for cells in reader if any(cells))  # without blank lines, and rows of empty cells
    try:
        header = [column.strip() for column in next(rows, [])]
        while header and not header[-1]:
            header.pop()
        for column in header:
            if column and header.count(column) > 1:
                raise BadFile(
                    f"{file} line {reader.line_num + skipped} names the column {column!r} more than once: rename one"
                )
        for cells in rows:
            yield _row(header, cells, f"{file} line {reader.line_num + skipped}", separator)
    except csv.Error as error:
        raise BadFile(f"{file} line {reader.line_num + skipped} is not CSV: {one_line(error)}") from error


def _row(header: list[str], cells: list[str], where: str, separator: str) -> Row:
    """A row of a CSV file. Spreadsheets leave columns without a name; they do no harm as long as they are empty."""
    while len(cells) > len(header) and cells[-1] == "":
        cells.pop()
    if len(cells) != len(header):
        difference = "more" if len(cells) > len(header) else "fewer"
        raise BadFile(
            f"{where} has {difference} cells than the header has columns "
            f"({', '.join(header)}); quote cells that hold {SEPARATORS.get(separator, repr(separator))}"
        )
    row: Row = {}
    for column, cell in zip(header, cells, strict=True):
        if column == "" and cell == "":
            continue
        if column in row:
            raise BadFile(f"{where} has two cells in columns without a name; name the columns, or empty them")
        row[column] = None if cell in MISSING else cell
    return row


def _separator(head: str) -> str:
    """What stands between the cells: what cuts the header into most columns, and the rows seen into as many.

    If the rows agree under none, the header decides, and the reader says which row is wrong.
    """
    widths = {separator: _widths(head, separator) or [0] for separator in SEPARATORS}
    agreed = [separator for separator, found in widths.items() if len(set(found)) == 1]
    best = max(agreed, key=lambda separator: widths[separator][0], default=",")
    return best if widths[best][0] > 1 else max(widths, key=lambda separator: widths[separator][0])


def _widths(head: str, separator: str) -> list[int]:
    """How many cells the rows have with this separator, the header first; empty ones beyond the header's do not count.

    The rows end where one is not CSV with this separator.
    """
    widths: list[int] = []
    try:
        for cells in csv.reader(StringIO(head, newline=""), strict=True, delimiter=separator):
            while cells and cells[-1] == "" and (not widths or len(cells) > widths[0]):
                cells.pop()
            if any(cells):
                widths.append(len(cells))
    except csv.Error:
        return widths
    # The last row of a longer file may be cut.
    return widths[:-1] if len(widths) > 1 and len(head) == HEAD else widths


def _after(head: str, lines: TextIOWrapper) -> Iterator[str]:
    """The lines of a file whose beginning has been read."""
    for line in StringIO(head, newline=""):
        yield line if line.endswith(("\n", "\r")) else line + lines.readline()
    yield from lines


def _parquet(file: Path) -> Iterator[Row]:
    try:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=BATCH_ROWS):
                yield from map(_without_nan, batch.to_pylist())
    except (pa.ArrowException, OSError) as error:
        raise BadFile(f"{file} is not a readable Parquet file (damaged or truncated): {one_line(error)}") from error
    except (OverflowError, ValueError, LookupError) as error:  # a date after the year 9999, an unknown time zone
        raise BadFile(f"{file} holds a value that cannot be read: {one_line(error)}") from error


def _without_nan(value: Any) -> Any:
    """The value with each NaN, which data frames write where there is no value, replaced by None."""
    if isinstance(value, float):
        return None if value != value else value
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return value
