"""The columns that a part file has against those that its table has now.

A table may gain a column (storage.schemas), and a store may be shared by an older and a newer qcrd. So a part file may
lack a column, which then reads as null, or have one more than this qcrd knows, which is kept and shown. What would
give wrong rows is refused: a required column that is missing, or a column of another type.
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
    """Why a part file with this schema cannot be read as rows of the table; None where it can."""
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
    """Those of a part file's columns that the table does not have: a newer qcrd wrote them."""
    return [name for name in names if name not in table.schema.names]


def with_unknown(table: Table, schema: pa.Schema) -> pa.Schema:
    """The table's schema, followed by the columns of `schema` that the table does not have."""
    return pa.schema([*table.schema, *(schema.field(name) for name in unknown(table, schema.names))])


def selection(table: Table, names: set[str]) -> str:
    """SQL for the table's columns out of files that have these columns between them: missing ones are null, and
    unknown ones come last."""
    known = [quoted(f.name) if f.name in names else f"{_null(f)} AS {quoted(f.name)}" for f in table.schema]
    return ", ".join([*known, *(quoted(name) for name in unknown(table, sorted(names)))])


def no_rows(table: Table) -> str:
    """A query with the table's columns and no rows, for a table that has no files yet."""
    return f"SELECT {selection(table, set())} WHERE false"


def quoted(name: str) -> str:
    """A column's name as SQL takes it."""
    return '"' + name.replace('"', '""') + '"'


def _null(field: pa.Field) -> str:
    return f"NULL::{_sql_type(field.type)}"


def _sql_type(kind: pa.DataType) -> str:
    """What DuckDB calls the type when it reads it from a Parquet file."""
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
