"""`qcrd sql`: DuckDB over the store, one view per table."""

import contextlib
import readline  # noqa: F401  # gives input() its line editing and history
import sys
from collections import Counter
from typing import Annotated

import duckdb
import pyarrow as pa
import typer
from rich.table import Table

from flows.commands.options import DEFAULT_HOME, HomeOption, JsonOption, home_at
from flows.terminal import err, notice, out, plain, print_json
from storage.errors import BadFile, StorageError, one_line
from storage.schemas import TABLES
from storage.store import Store

ROWS_SHOWN = 40


def sql(
    statement: Annotated[str | None, typer.Argument(help="An SQL statement; without one, a prompt opens.")] = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Query the store with DuckDB.

    Its views: examples, rationales, votes, scores, predictions, runs, figures,
    judgements, chosen, variants, audits, forgotten.

    Example: qcrd sql "SELECT model, count(*) FROM rationales GROUP BY ALL ORDER BY ALL"
    """
    store = home_at(home).open_store()
    with store.connect() as con:
        store.create_views(con)
        if statement is not None:
            _run(store, con, statement, as_json)
        else:
            _prompt(store, con, as_json)


def _prompt(store: Store, con: duckdb.DuckDBPyConnection, as_json: bool) -> None:
    """Reads statements up to a semicolon until the input ends."""
    if sys.stdin.isatty():
        notice(f"views: {', '.join(TABLES)}. End a statement with a semicolon; Ctrl-D leaves.")
    lines: list[str] = []
    while True:
        try:
            lines.append(input("qcrd> " if not lines else "  ... ") if sys.stdin.isatty() else input())
        except EOFError:
            break
        if lines[-1].rstrip().endswith(";"):
            _try(store, con, "\n".join(lines), as_json)
            lines = []
    if "".join(lines).strip():
        _try(store, con, "\n".join(lines), as_json)


def _try(store: Store, con: duckdb.DuckDBPyConnection, statement: str, as_json: bool) -> None:
    """At a prompt an error is shown and the prompt goes on; in a script it ends the script."""
    if not sys.stdin.isatty():
        _run(store, con, statement, as_json)
        return
    try:
        with contextlib.suppress(KeyboardInterrupt):
            _run(store, con, statement, as_json)
    except StorageError as error:
        err.print(plain(str(error), "red"))


def _run(store: Store, con: duckdb.DuckDBPyConnection, text: str, as_json: bool) -> None:
    """Runs one or several statements and shows the rows of each."""
    try:
        statements = con.extract_statements(text)
    except duckdb.Error as error:
        raise BadFile(f"DuckDB: {one_line(error)}") from error
    for statement in statements:
        _show(store.execute(con, statement.query), as_json)


def _show(rows: pa.Table, as_json: bool) -> None:
    names = _different(rows.schema.names)
    if not names:
        return
    try:
        shown = rows if as_json else rows.slice(0, ROWS_SHOWN)
        values = list(zip(*(column.to_pylist() for column in shown.columns), strict=True))
    except (OverflowError, ValueError) as error:
        raise BadFile(f"A value cannot be shown ({error}); cast its column to VARCHAR in the query.") from error
    if as_json:
        print_json([dict(zip(names, row, strict=True)) for row in values])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, kind in zip(names, rows.schema.types, strict=True):
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        table.add_column(plain(name), justify="right" if number else "left", overflow="fold")
    for row in values:
        table.add_row(*(plain("" if value is None else str(value)) for value in row))
    out.print(table)
    if rows.num_rows > ROWS_SHOWN:
        notice(f"{rows.num_rows:,} rows, the first {ROWS_SHOWN} shown; --json prints all")


def _different(names: list[str]) -> list[str]:
    """Column names as they are, repeated ones numbered: a join of two tables may name both their ids `a`."""
    seen: Counter[str] = Counter()
    out_names = []
    for name in names:
        out_names.append(f"{name}_{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return out_names
