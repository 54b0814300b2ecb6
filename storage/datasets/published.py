"""Column layouts that several datasets are published in, and how they become the canonical fields of `layout.py`."""

import re
from collections.abc import Mapping
from typing import Any

from storage.datasets.assembly import labels
from storage.datasets.choices import split_lettered
from storage.datasets.values import written_value
from storage.errors import BadFile

Row = Mapping[str, Any]

# Published as true and false, or as the codes 1 and 0 (SuperGLUE); (a) is yes where somebody's prompt had letters.
YES_NO = labels(("yes", "no"), short_answers={"yes": ("true", "1"), "no": ("false", "0")})

_NAMES = {
    "question": "question",
    "questionstem": "question",  # OpenBookQA on the hub
    "stem": "question",
    "choices": "choices",
    "label": "label",
    "answerkey": "label",
}


def multiple_choice(row: Row) -> Row:
    """Rows of CommonsenseQA, ARC and OpenBookQA, as their authors and as the hub publish them.

    The authors nest the question: {"question": {"stem": ..., "choices": [{"label": "A", "text": ...}]}, "answerKey"};
    the hub has `question` (or `question_stem`) beside `choices`. Their CSV files end the question's text in
    "(A) ... (B) ...". A data frame may have flattened either to columns such as `question.stem` and `choices.text`.
    CoS-E, which explains CommonsenseQA, has the right choice's text as `answer`.
    """
    row = _flat(row)
    named = {column: _NAMES.get(re.sub(r"[\W_]", "", column).lower()) for column in row}
    taken = {field for field in named.values() if field in row}  # a canonical name wins over a published one
    out = {(field if field and (column == field or field not in taken) else column): row[column]
           for column, field in named.items()}  # fmt: skip
    if "choices" not in out and isinstance(out.get("question"), str):
        question, choices = split_lettered(out["question"])
        if choices:
            out |= {"question": question, "choices": choices}
    return answer_as_label(out)


def answer_as_label(row: Row) -> Row:
    """Rows whose column `answer` is the gold label: GSM8K, StrategyQA, BoolQ."""
    if "label" in row or "answer" not in row:
        return row
    return {("label" if column == "answer" else column): value for column, value in row.items()}


def _flat(row: Row) -> Row:
    """The row with what is nested in its question beside the other columns, and flattened choices put together."""
    question = row.get("question")
    if isinstance(question, str) and question.lstrip().startswith("{"):
        try:
            question = written_value(question)
        except ValueError:
            return row  # a question that begins with a brace
    if isinstance(question, Mapping):
        if "stem" not in question:
            raise BadFile(f"question is an object without a stem; it has {', '.join(map(str, question)) or 'nothing'}")
        nested = {column: value for column, value in question.items() if column != "stem"}
        row = {**row, **nested, "question": question["stem"]}
    row = {column.removeprefix("question."): value for column, value in row.items()}
    if "choices.text" in row:
        row["choices"] = {name: _list(row.pop(f"choices.{name}", None), name) for name in ("label", "text")}
    return row


def _list(cell: Any, name: str) -> Any:
    try:
        return written_value(cell) if isinstance(cell, str) else cell
    except ValueError as error:
        raise BadFile(f"choices.{name} is {cell[:80]!r}, which is no list") from error
