"""Reading part files whose columns are not exactly their table's.

A table may gain a column (`storage.schemas`), and an older and a newer qcrd may share a store. A column that a part
file lacks reads as null; one that this qcrd does not know is kept and shown. A part file is refused if a required
column is missing or a column has another type, since its rows would be wrong.
"""

from collections.abc import Sequence

import pyarrow as pa

from storage.schemas import Table

_SQL_TYPES = {
    **dict.fromkeys((pa.string(), pa.large_string(), pa.string_view()), "VARCHAR"),
    **dict.fromkeys((pa.binary(), pa.large_binary(), pa.binary_view()), "BLOB"),
    pa.bool_(): "BOOLEAN",
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.date32(): "DATE",
}


def misfit(table: Table, schema: pa.Schema) -> str | None:
    """Why a part file with this schema cannot be read as rows of the table; None if it can."""
    if schema.equals(table.schema):
        return None
    missing = [name for name in dict.fromkeys(table.required) if name not in schema.names]
    if missing:
        return f"columns missing: {', '.join(missing)}"
    for field in table.schema:
        if field.name in schema.names and _sql_type(found := schema.field(field.name).type) != _sql_type(field.type):
            return f"column {field.name} has type {found}, not {field.type}"
    return None


def unknown(table: Table, names: Sequence[str]) -> list[str]:
    """The columns of a part file that the table lacks: a newer qcrd wrote them."""
    return [name for name in names if name not in table.schema.names]


def with_unknown(table: Table, schema: pa.Schema) -> pa.Schema:
    """The table's schema, followed by the columns of `schema` that the table lacks."""
    return pa.schema([*table.schema, *(schema.field(name) for name in unknown(table, schema.names))])


def selection(table: Table, names: set[str]) -> str:
    """SQL that selects a table's columns from files with these columns: missing ones as null, unknown ones last."""
    known = [quoted(f.name) if f.name in names else f"{_null(f)} AS {quoted(f.name)}" for f in table.schema]
    return ", ".join([*known, *(quoted(name) for name in unknown(table, sorted(names)))])


def no_rows(table: Table) -> str:
    """A query with the table's columns and no rows."""
    return f"SELECT {selection(table, set())} WHERE false"


def quoted(name: str) -> str:
    """A column's name, quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def _null(field: pa.Field) -> str:
    return f"NULL::{_sql_type(field.type)}"


def _sql_type(kind: pa.DataType) -> str:
    """The type as DuckDB reads it from a Parquet file."""
    if pa.types.is_dictionary(kind):
        return _sql_type(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _sql_type(kind.value_type) + "[]"
    if pa.types.is_struct(kind):
        inner = [kind.field(i) for i in range(kind.num_fields)]
        return "STRUCT(" + ", ".join(f"{quoted(f.name)} {_sql_type(f.type)}" for f in inner) + ")"
    if pa.types.is_timestamp(kind) and kind.tz and kind.unit != "ns":
        return "TIMESTAMPTZ"
    return _SQL_TYPES.get(kind, str(kind))
