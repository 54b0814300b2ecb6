"""`qcrd sql`: DuckDB over the store, one view per table."""

import contextlib
import readline  # noqa: F401  # gives input() its line editing and history
import sys
from typing import Annotated

import duckdb
import pyarrow as pa
import typer
from rich.table import Table

from flows.options import DEFAULT_HOME, HomeOption, JsonOption, home_at
from flows.terminal import err, notice, out, plain, print_json
from storage.errors import StorageError
from storage.schemas import TABLES
from storage.store import Store

ROWS_SHOWN = 40


def sql(
    statement: Annotated[str | None, typer.Argument(help="One SQL statement; a prompt opens when absent.")] = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Query the store with DuckDB: views examples, rationales, votes, scores, predictions, runs.

    Example: qcrd sql "SELECT model, count(*) FROM rationales GROUP BY ALL ORDER BY ALL"
    """
    store = home_at(home).open_store()
    with store.connect() as con:
        store.create_views(con)
        if statement is not None:
            _show(store.execute(con, statement), as_json)
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
        _show(store.execute(con, statement), as_json)
        return
    try:
        with contextlib.suppress(KeyboardInterrupt):
            _show(store.execute(con, statement), as_json)
    except StorageError as error:
        err.print(plain(str(error), "red"))


def _show(rows: pa.Table, as_json: bool) -> None:
    if as_json:
        print_json(rows.to_pylist())
        return
    if not rows.num_columns:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, kind in zip(rows.schema.names, rows.schema.types, strict=True):
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        table.add_column(plain(name), justify="right" if number else "left", overflow="fold")
    for row in rows.slice(0, ROWS_SHOWN).to_pylist():
        table.add_row(*(plain("" if value is None else str(value)) for value in row.values()))
    out.print(table)
    if rows.num_rows > ROWS_SHOWN:
        notice(f"{rows.num_rows:,} rows, the first {ROWS_SHOWN} shown; --json prints all")
