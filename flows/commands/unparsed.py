"""`qcrd show unparsed`: texts without an answer, by reason, with examples and what to do."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.padding import Padding

from flows.commands.options import (
    DEFAULT_HOME,
    DatasetOption,
    HomeOption,
    JsonOption,
    SplitOption,
    at_least,
    home_at,
)
from flows.terminal import notice, out, percent, plain, print_json
from storage.datasets.definition import Dataset
from storage.datasets.label_sets import NO_SUCH_LABEL
from storage.datasets.own_functions import PARSER_FAILED
from storage.datasets.parsing import (
    DENIED,
    EMPTY_TEXT,
    NO_ANSWER,
    NO_SINGLE_NUMBER,
    SEVERAL_ANSWERS,
    UNFINISHED_THOUGHT,
)
from storage.datasets.registry import get_dataset
from storage.errors import NothingToDo
from storage.store import Store
from tasks.teacher.reading import CUT_OFF, ONLY_A_THOUGHT, TOO_LONG, read_sample

LONGEST = 400  # characters of a text's end that are shown
REMEDIES = {
    NO_ANSWER: 'nothing announces an answer: let the instruction ask for a last sentence "So the answer is ...", '
    "or name other words for the labels as synonyms",
    SEVERAL_ANSWERS: "the text names more than one: let the instruction ask for exactly one",
    NO_SUCH_LABEL: "the answer names what is no label: list it under labels or synonyms, or let the instruction name "
    "all labels",
    EMPTY_TEXT: "the teacher sent no text: look at its server, or raise --max-tokens if it thinks first",
    UNFINISHED_THOUGHT: "the teacher was still thinking: raise --max-tokens",
    ONLY_A_THOUGHT: "the teacher thought and said nothing: raise --max-tokens, or lower --reasoning-effort",
    CUT_OFF: "the text ends in mid-sentence: raise --max-tokens, or look at the endpoint's filter",
    DENIED: "the text says only what the answer is not: let the instruction ask for the answer itself",
    NO_SINGLE_NUMBER: "a range, a date, a time or a formula: let the instruction ask for one plain number",
}


@dataclass(frozen=True)
class Shown:
    """A text without an answer: whose, and its end."""

    example_id: str
    model: str
    text: str


@dataclass(frozen=True)
class Reason:
    """The texts that have no answer for one reason.

    Attributes:
        reason: as stored.
        texts: how many.
        cut_off: how many of them end at --max-tokens.
        readable: how many have an answer by the dataset's definition as it is now.
        remedy: what to do; "" if nothing is known.
        examples: some of them, from different questions first.
    """

    reason: str
    texts: int
    cut_off: int
    readable: int
    remedy: str
    examples: list[Shown]


def show_unparsed(
    dataset: DatasetOption,
    split: SplitOption = None,
    limit: Annotated[int, typer.Option("--limit", help="How many texts to show of each reason.")] = 3,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Show texts without an answer, by reason, and what to do.

    Says how many of them have one by the dataset's definition as it is now, so
    a change of it can be tried before the texts are read again.

    Example: qcrd show unparsed --dataset tickets.yaml
    """
    at_least("--limit", limit, 1)
    store = home_at(home).open_store()
    named = get_dataset(dataset)
    stored = _count(store, named.name, split)
    if not stored:
        chosen = f"{named.name!r}" + (f", split {split!r}" if split else "")
        raise NothingToDo(
            f"No samples of {chosen} are stored at {store.files.given}. To get some: `qcrd sample` or `qcrd import`."
        )
    reasons = _reasons(store, named, split, limit)
    texts = sum(reason.texts for reason in reasons)
    if as_json:
        print_json({"samples": stored, "unparsed": texts, "reasons": [asdict(reason) for reason in reasons]})
        return
    out.print(plain(f"{named.name}: {texts:,} of {stored:,} texts have no answer ({percent(texts / stored)})"))
    for reason in reasons:
        _print_reason(reason)
    readable = sum(reason.readable for reason in reasons)
    if readable:
        notice(
            f"{readable:,} of them have an answer by the definition as it is now. To store it: `qcrd store read-again "
            f"--dataset {dataset}`; recorded samples: import their file again."
        )


def _count(store: Store, dataset: str, split: str | None) -> int:
    rows = store.query(
        "SELECT count(*) AS n FROM rationales WHERE dataset = $1 AND source <> 'student' "
        "AND ($2::VARCHAR IS NULL OR split = $2)",
        [dataset, split],
    )
    count: int = rows["n"][0].as_py()
    return count


def _reasons(store: Store, dataset: Dataset, split: str | None, limit: int) -> list[Reason]:
    """The reasons, the commonest first."""
    rows = store.query(
        "SELECT r.example_id, r.model, r.text, coalesce(r.parse_error, '') AS reason, r.thought, r.finish_reason, "
        "e.choices "
        "FROM rationales r LEFT JOIN examples e USING (example_id) WHERE r.dataset = $1 AND r.source <> 'student' "
        "AND r.answer IS NULL AND ($2::VARCHAR IS NULL OR r.split = $2) "
        # First one text of every question, then the second of each ...
        "ORDER BY row_number() OVER (PARTITION BY r.example_id ORDER BY r.sample_id), r.example_id",
        [dataset.name, split],
    ).to_pylist()
    texts: Counter[str] = Counter()
    cut_off: Counter[str] = Counter()
    readable: Counter[str] = Counter()
    examples: dict[str, list[Shown]] = {}
    for row in rows:
        reason, text = row["reason"], row["text"] or ""
        texts[reason] += 1
        cut_off[reason] += row["finish_reason"] in TOO_LONG
        now = read_sample(
            dataset, tuple(row["choices"] or ()), text, thought=row["thought"], finish_reason=row["finish_reason"]
        )
        readable[reason] += now.parsed.answer is not None
        shown = examples.setdefault(reason, [])
        if len(shown) < limit:
            shown.append(Shown(row["example_id"], row["model"], _end_of(text)))
    return [
        Reason(reason, count, cut_off[reason], readable[reason], _remedy(reason), examples[reason])
        for reason, count in sorted(texts.items(), key=lambda item: (-item[1], item[0]))
    ]


def _remedy(reason: str) -> str:
    if reason.startswith(PARSER_FAILED):
        return "your parser raised this: call it with the texts below"
    return REMEDIES.get(reason, "")


def _end_of(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"…{line[-LONGEST:]}"


def _print_reason(reason: Reason) -> None:
    counts = [f"{reason.cut_off:,} cut off at --max-tokens"] * bool(reason.cut_off)
    counts += [f"{reason.readable:,} readable now"] * bool(reason.readable)
    out.print()
    out.print(plain(f"{reason.reason or 'no reason stored'}: {reason.texts:,}", "bold"), end="")
    out.print(plain(f" ({', '.join(counts)})" if counts else ""))
    if reason.remedy:
        out.print(Padding(plain(reason.remedy, "yellow"), (0, 0, 0, 2)))
    for shown in reason.examples:
        out.print(plain(f"  {shown.example_id}  {shown.model}", "dim"), soft_wrap=True)
        out.print(Padding(plain(shown.text or "(empty)"), (0, 0, 0, 6)))
