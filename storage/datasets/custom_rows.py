"""The rows of a user's own dataset: where they are, and which column is which field."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.datasets.choices import choices_in_columns
from storage.datasets.hub import HubSource, HubSplit
from storage.datasets.layout import renamed
from storage.datasets.values import as_text
from storage.errors import BadFile
from storage.rows import missing_column, read_rows, unfolded

if TYPE_CHECKING:
    from storage.datasets.custom import CustomDataset


def rows_of(settings: "CustomDataset", file: Path, split: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a split.

    Args:
        file: the definition; other files are beside it.

    Raises:
        BadFile: they cannot be read, or none belongs to the split or has the label's column.
    """
    if settings.hub is not None:
        source = HubSource(
            settings.hub.repository, settings.hub.configuration,
            {name: HubSplit(there) for name, there in settings.splits.items()},
        )  # fmt: skip
        yield from source.rows(split)
        return
    path, column, label = file.parent / settings.splits[split], settings.split_column, settings.fields.get("label")
    others: dict[str, None] = {}
    found = False
    columns: dict[str, None] = {}
    for number, row in enumerate(read_rows(path, settings.encoding), start=1):
        columns |= dict.fromkeys(row)
        if column is not None:
            apart = _with_inner(row, [column])
            if column not in apart:
                raise BadFile(f"{path} row {number}: {missing_column(column, row, 'It is the split_column.')}")
            value = as_text(apart[column], column).strip()
            if value != split:
                others |= {value: None} if len(others) < 10 else {}
                continue
        found = True
        yield row
    if not found:
        raise BadFile(f"{path} has no row with {split!r} in its column {column!r}; it has {', '.join(others)}")
    if isinstance(label, str) and not {label, label.partition(".")[0], "label"} & columns.keys():
        raise BadFile(f"{path}: {missing_column(label, columns, 'It is the label.')}")


def with_fields(row: Mapping[str, Any], settings: "CustomDataset") -> Mapping[str, Any]:
    """The row with columns renamed to fields, except those that already have the field's name."""
    several = settings.fields.get("choices", "")
    fields = {field: column for field, column in settings.fields.items() if isinstance(column, str)}
    row = _with_inner(row, [*fields.values(), *(() if isinstance(several, str) else several)])
    if "label" in fields and _has_no_label(fields["label"], row):
        del fields["label"]
    row = renamed(row, {field: column for field, column in fields.items() if column in row or field not in row})
    if isinstance(several, str) or "choices" in row:
        return row
    rest = {column: value for column, value in row.items() if column not in several}
    return rest | {"choices": choices_in_columns(row, several, settings.choice_labels)}


def _with_inner(row: Mapping[str, Any], columns: list[str]) -> Mapping[str, Any]:
    """The row with those of the columns that stand in an object of it, such as "ticket.body"."""
    inside = [column for column in columns if "." in column and column not in row]
    apart = unfolded(row) if inside else {}
    return {**row, **{column: apart[column] for column in inside if column in apart}} if inside else row


def _has_no_label(column: str, row: Mapping[str, Any]) -> bool:
    """Whether a row lacks the label's column, as rows of JSONL without a label do, and none is called nearly so."""
    return column not in row and not get_close_matches(column.casefold(), [str(name).casefold() for name in row], n=1)
