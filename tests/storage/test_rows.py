"""Reading users' files: every format, and one clear line for each way in which a file can be wrong."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.errors import BadFile
from storage.rows import missing_column, read_rows, unfolded

ROWS = [{"question": "1 + 1?", "label": "2"}, {"question": 'Größe, "x"\n?', "label": None}]


def write(path: Path) -> Path:
    """The same two rows in the format that the name asks for."""
    jsonl = "".join(json.dumps(row) + "\n" for row in ROWS)
    csv = 'question,label\n1 + 1?,2\n"Größe, ""x""\n?",\n'
    tsv = 'question\tlabel\n1 + 1?\t2\n"Größe, ""x""\n?"\t\n'
    if path.name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        texts = {"jsonl": jsonl, "json": json.dumps(ROWS, indent=1), "csv": csv, "tsv": tsv}
        data = texts[path.name.split(".")[1]].encode()
        path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz", "a.csv", "a.csv.gz", "a.tsv", "a.parquet", "A.JSONL"]
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name.lower()).rename(tmp_path / name)
    assert list(read_rows(path)) == ROWS


def test_a_byte_order_mark_and_blank_lines_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}')
    assert list(read_rows(path)) == [{"a": 1}, {"a": 2}]


def test_json_may_hold_an_object_per_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('\n {"a": 1}\n{"a": 2}\n')
    assert list(read_rows(path)) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}\n\n{"a": }\n')
    assert problem(path) == "FILE line 3 is not JSON (Expecting value); expected one object per line"
    path.write_text("[1]")
    assert problem(path) == "FILE row 1 is not a JSON object but int"
    path.write_text('[{"a": 1}')
    assert problem(path).startswith("FILE is not JSON (Expecting ',' delimiter); expected a list of objects, or one")


def csv_rows(path: Path, text: str, encoding: str = "utf-8") -> list[dict[str, object]]:
    path.write_bytes(text.encode(encoding))
    return list(read_rows(path))


CELLS = [{"ticket": "Tür, Bad; dringend", "klasse": "hoch"}, {"ticket": "Lampe\nneu", "klasse": None}]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_header_tells_the_separator(tmp_path: Path, separator: str, encoding: str, end: str) -> None:
    lines = [["ticket", "klasse"], ['"Tür, Bad; dringend"', '"hoch"'], ['"Lampe\nneu"', ""], ["", ""]]
    text = end.join(separator.join(cells) for cells in lines) + end
    assert csv_rows(tmp_path / "a.csv", text, encoding) == CELLS
    assert csv_rows(tmp_path / "a.csv", f"sep={separator}{end}{text}", encoding) == CELLS


def test_separators_inside_of_cells_and_headers_mislead_nobody(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    assert csv_rows(path, 'question,label\n"a;b;c",1\nd;e;f,2\n')[1] == {"question": "d;e;f", "label": "2"}
    assert csv_rows(path, "Frage, kurz;Klasse;Notiz\na;b;c,d\n") == [
        {"Frage, kurz": "a", "Klasse": "b", "Notiz": "c,d"}
    ]
    assert csv_rows(path, '"question; long",label\na,b\n') == [{"question; long": "a", "label": "b"}]
    assert csv_rows(path, "question\nWhat now?\n") == [{"question": "What now?"}]


def test_a_csv_file_longer_than_its_head_is_read_whole(tmp_path: Path) -> None:
    text = "question;label\n" + "".join(f'"{number}; {"x" * 200}\n?";{number}\n' for number in range(1000))
    rows = csv_rows(tmp_path / "a.csv", text)
    assert [row["label"] for row in rows] == [str(number) for number in range(1000)]
    assert {str(row["question"])[-3:] for row in rows} == {"x\n?"}


def test_empty_columns_and_rows_of_spreadsheets(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    assert csv_rows(path, "question,,label ,,\nHow many?,,3,,\n,,,,\n") == [{"question": "How many?", "label": "3"}]
    assert csv_rows(path, ",question,label\n7,How many?,3\n") == [{"": "7", "question": "How many?", "label": "3"}]
    path.write_text("question,label,,\nHow many?,3,,4\n")
    assert "line 2 has more cells than the header has columns (question, label)" in problem(path)
    path.write_text("question,,,label\nHow many?,3,4,5\n")
    assert problem(path) == "FILE line 2 has two cells in columns without a name; name the columns, or empty them"


def test_missing_values_are_none_in_every_format(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": NaN, "b": [{"c": NaN}], "d": Infinity}')
    assert list(read_rows(tmp_path / "a.jsonl")) == [{"a": None, "b": [{"c": None}], "d": float("inf")}]
    table = pa.table({"a": [float("nan"), 1.0], "b": [[float("nan")], [2.0]]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert list(read_rows(tmp_path / "a.parquet")) == [{"a": None, "b": [None]}, {"a": 1.0, "b": [2.0]}]
    assert csv_rows(tmp_path / "a.csv", "a,b,c\nNaN,nan,Nan\n") == [{"a": None, "b": None, "c": "Nan"}]


def test_objects_are_taken_apart() -> None:
    row = {"a": {"b": {"c": 1}, "d": [2]}, "e": {}, "options": {"A": "sea"}}
    assert unfolded(row) == {"a.b.c": 1, "a.d": [2], "e": {}, "options.A": "sea"}
    assert unfolded(row, lambda name: name == "options")["options"] == {"A": "sea"}


def test_a_star_stands_for_the_parts_of_a_table(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        pq.write_table(pa.table({"a": [number]}), tmp_path / f"train-0000{number}-of-00003.parquet")
    assert list(read_rows(tmp_path / "train-*.parquet")) == [{"a": 0}, {"a": 1}, {"a": 2}]
    assert problem(tmp_path / "test-*.parquet") == "No file is called FILE"
    (tmp_path / "train-00001-of-00003.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadFile, match=r"train-00001-of-00003\.parquet is not a readable Parquet file"):
        list(read_rows(tmp_path / "train-*.parquet"))


def test_jsonl_is_streamed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\nnot json\n')
    assert next(read_rows(path)) == {"a": 1}  # the second line has not been looked at


def problem(path: Path) -> str:
    with pytest.raises(BadFile) as caught:
        list(read_rows(path))
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(path), "FILE")


def test_missing_file(tmp_path: Path) -> None:
    assert problem(tmp_path / "no.jsonl") == "No such file: FILE"


def test_folder(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    assert problem(tmp_path / "a.csv").startswith("FILE is a folder; give a file (.jsonl, .json, .csv")


def test_unknown_extension(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    path.write_text("x")
    assert problem(path) == (
        "FILE is of an unknown kind: its name must end in .jsonl, .json, .csv, .tsv (also .gz) or .parquet; save "
        "the sheet as CSV UTF-8"
    )


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "a.jsonl.gz"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"")
    assert problem(path) == "FILE is empty"


def test_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,label\n")
    assert problem(path) == "FILE holds no rows"


def test_not_json_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"a": }\n')
    assert problem(path) == "FILE line 3 is not JSON (Expecting value); expected one object per line"
    path.write_text("[1, 2]\n")
    assert problem(path) == "FILE line 1 is not a JSON object but list; expected one object per line"
    path.write_text("[" * 100_000)
    assert "line 1 is not JSON" in problem(path)


def test_ragged_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,label\nHow many, if any?,3\n")
    assert problem(path) == (
        "FILE line 2 has more cells than the header has columns (question, label); quote cells that hold commas"
    )
    path.write_text("question;label\nHow many; if any?;3\n")
    assert problem(path).endswith("quote cells that hold semicolons")


def test_csv_row_that_is_too_short(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,label\nHow many?,3\nHow many\n")
    assert problem(path) == (
        "FILE line 3 has fewer cells than the header has columns (question, label); quote cells that hold commas"
    )


def test_csv_column_named_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,label,label\nHow many?,3,4\n")
    assert problem(path) == "FILE line 1 names the column 'label' more than once: rename one"


def test_halves_of_characters_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(r'{"a\uD800": ["x\udc00y", {"b": "\ud83d\ude00"}, 1], "c": "\\ud800"}')
    assert list(read_rows(path)) == [{"a\ufffd": ["x\ufffdy", {"b": "😀"}, 1], "c": "\\ud800"}]


def test_number_of_too_many_digits(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": ' + "1" * 5000 + "}")
    assert problem(path) == "FILE line 1 is not JSON (a number has too many digits); expected one object per line"


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("us", tz="No/Where"), pa.duration("s")])
def test_parquet_time_that_python_cannot_hold(tmp_path: Path, kind: pa.DataType) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": pa.array([2**62], kind)}), path)
    assert problem(path).startswith("FILE holds a value that cannot be read: ")


def test_file_name_that_is_too_long() -> None:
    assert problem(Path("x" * 300 + ".jsonl")).startswith("FILE cannot be read: [Errno 36] File name too long")


def test_damaged_parquet(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    assert problem(path).startswith("FILE is not a readable Parquet file (damaged or truncated): ")


def test_truncated_gzip(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz")
    path.write_bytes(path.read_bytes()[:-12])
    assert problem(path).startswith("FILE cannot be read: ")


def test_fake_gzip_and_wrong_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_text("{}")
    assert problem(path).startswith("FILE cannot be read: Not a gzipped file")
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"a": "ü"}'.encode("latin-1"))
    assert problem(path).startswith("FILE is not UTF-8 text: ")
    assert "Save it as UTF-8" in problem(path)


def test_missing_column_names_the_nearest() -> None:
    error = missing_column("question", {"qestion": 1, "label": 2}, "Use --map.")
    assert str(error) == "no column 'question'. Did you mean 'qestion'? Columns: qestion, label. Use --map."
