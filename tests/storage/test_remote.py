"""DuckDB's threads read one file of an object store at once."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from storage.remote import as_fsspec

ROWS, FILES, TIMES = 40_000, 4, 30


def test_every_thread_reads_what_it_asked_for(tmp_path: Path) -> None:
    numbers = range(ROWS)
    table = pa.table({"text": [f"é{n} " * 20 for n in numbers], "number": list(numbers)})
    files = [tmp_path / f"{number}.parquet" for number in range(FILES)]
    for file in files:
        pq.write_table(table, file, row_group_size=1000)
    names = [f"qcrd://{file}" for file in files]
    for _ in range(TIMES):  # with one position for all threads six reads in ten went wrong
        with duckdb.connect(config={"threads": 4}) as con:
            con.register_filesystem(as_fsspec(pafs.LocalFileSystem()))
            sql = "SELECT count(DISTINCT text), sum(number) FROM read_parquet($1)"
            assert con.execute(sql, [names]).fetchall() == [(ROWS, FILES * sum(numbers))]
