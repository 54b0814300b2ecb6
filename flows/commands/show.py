"""`qcrd show`: questions, rationales and votes, to be read by people."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from flows.commands.options import (
    DEFAULT_HOME,
    DatasetOption,
    HomeOption,
    JsonOption,
    ReplaceOption,
    SplitOption,
    VoteOption,
    at_least,
    home_at,
    new_file,
    one_of,
)
from flows.report.votes import QUESTIONS, Page, write_page
from flows.terminal import figure, notice, out, plain, print_json
from flows.vote_figures import rule_text
from storage.datasets.registry import get_dataset
from storage.errors import NothingToDo
from storage.store import Store
from storage.voted import PICKS, Pick, Wanted, newest_vote, voted_questions

app = typer.Typer(
    help="Read what is stored.\n\nExample: qcrd show rationales --dataset lab --limit 3", no_args_is_help=True
)

LimitOption = Annotated[int, typer.Option("--limit", help="How many to show.")]
ExampleOption = Annotated[str | None, typer.Option("--example", help="Only the question with this id.")]
PickOption = Annotated[
    str,
    typer.Option("--only", help="all, ties, wrong (winner is not the label), or unparsed (a sample has no answer)."),
]
# A row of `tasks.training.summary.round_rows` in a terminal's 80 columns; `--json` has all of it.
ROUND_COLUMNS = {
    "round": "round", "validation": "valid", "explanations": "expl", "consistency": "agree", "teacher": "teach",
    "loss": "loss", "answer": "answer", "positive": "l_pos", "negative": "l_neg", "repelled": "repel",
    "AUC minority": "AUC min", "AUC student": "AUC own", "seconds": "s",
}  # fmt: skip


@app.command("examples")
def examples(
    dataset: DatasetOption,
    split: SplitOption = None,
    limit: LimitOption = 10,
    example: ExampleOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Show questions, their labels, and how many samples each has.

    Example: qcrd show examples --dataset svamp --limit 5
    """
    at_least("--limit", limit, 1)
    store = home_at(home).open_store()
    name = get_dataset(dataset).name
    rows = store.query(
        "SELECT e.example_id, e.split, e.question, e.choices, e.label, count(r.sample_id) AS samples "
        "FROM examples e LEFT JOIN rationales r USING (example_id) WHERE e.dataset = $1 "
        "AND ($2::VARCHAR IS NULL OR e.split = $2) AND ($3::VARCHAR IS NULL OR example_id = $3) "
        "GROUP BY ALL ORDER BY e.split, example_id LIMIT $4",
        [name, split, example, limit],
    ).to_pylist()
    if not rows:
        raise NothingToDo(_nothing(store, name, "examples", split, example))
    if as_json:
        print_json(rows)
        return
    for row in rows:
        out.print(_question(row))
        out.print(plain(f"  {row['samples']} samples", "dim"))
        out.print()


@app.command("rationales")
def rationales(
    dataset: DatasetOption,
    split: SplitOption = None,
    limit: LimitOption = 3,
    example: ExampleOption = None,
    vote: VoteOption = None,
    only: PickOption = "all",
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Show the samples of questions, and what the vote made of them.

    Example: qcrd show rationales --dataset lab --limit 3 --only ties
    """
    at_least("--limit", limit, 1)
    one_of("--only", only, PICKS)
    store = home_at(home).open_store()
    named = get_dataset(dataset)
    wanted = Wanted(
        split=split,
        example=example,
        vote_id=newest_vote(store, named.name, split, vote),
        only=cast("Pick", only),
        unvoted=True,
        students=True,
        limit=limit,
    )
    found = list(voted_questions(store, named, wanted))
    if not found:
        raise NothingToDo(_nothing(store, named.name, "rationales", split, example, only))
    for row in found:
        for sample in row["samples"]:
            sample["vote"] = sample.pop("standing").words
    if as_json:
        print_json(found)
        return
    for row in found:
        _print_rationales(row)
    if wanted.vote_id is None:
        notice(f"Not voted on yet; run qcrd vote --dataset {dataset}")


@app.command("votes")
def votes(
    dataset: DatasetOption,
    split: SplitOption = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help=f"How many; by default 20, on a page {QUESTIONS:,}.")
    ] = None,
    example: ExampleOption = None,
    vote: VoteOption = None,
    only: PickOption = "all",
    page: Annotated[
        Path | None,
        typer.Option("--html", help="Write a page of questions, samples and votes to this file, for a browser."),
    ] = None,
    replace: ReplaceOption = False,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Show votes, one line per question, or all of it on a page.

    Winner, label, right or wrong, votes, share; --json prints everything. --html
    writes a page with the samples, what the vote made of each and why, filters
    and search.

    Example: qcrd show votes --dataset lab --only wrong
    """
    at_least("--limit", limit, 1)
    one_of("--only", only, PICKS)
    store = home_at(home).open_store()
    named = get_dataset(dataset)
    name = named.name
    if page is not None:
        new_file("--html", page, (".html", ".htm"), store, replace=replace)
    vote = newest_vote(store, name, split, vote)
    rows = store.query(
        "SELECT v.*, e.question, e.label FROM votes v LEFT JOIN examples e USING (example_id) WHERE v.dataset = $1 "
        "AND v.vote_id = $2 AND v.n_sampled > 0 AND ($3::VARCHAR IS NULL OR v.split = $3) "
        "AND ($4::VARCHAR IS NULL OR example_id = $4) "
        f"AND {PICKS[only]} ORDER BY v.split, example_id LIMIT $5",
        [name, vote, split, example, limit or 20],
    ).to_pylist()
    if not rows:
        raise NothingToDo(_nothing(store, name, "votes", split, example, only))
    if page is not None:
        wanted = Wanted(split=split, example=example, vote_id=vote, only=cast("Pick", only), limit=limit)
        _print_page(write_page(store, named, wanted, page), as_json=as_json)
        return
    if as_json:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for column in ("example", "winner", "label", "", "votes", "share", "question"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(
            row["example_id"],
            _short(row["winner"], 14),
            _short(row["label"], 14),
            _verdict(row),
            f"{row['n_votes']}/{row['n_parsed']}" + (" tie" if row["tie"] else ""),
            figure(row["share"]),
            _short(row["question"], max(20, out.width - 66)),
        )
    out.print(table)
    notice(f"vote {vote}: {rule_text(rows[0]['rule'])}")


def _print_page(page: Page, *, as_json: bool) -> None:
    if as_json:
        print_json(page)
        return
    out.print(f"{page.file}: {page.questions:,} questions. Open it in a browser.", soft_wrap=True, markup=False)
    if page.left_out:
        notice(f"{page.left_out:,} more are not on it; --limit takes another number, --only and --split choose.")


def _nothing(store: Store, dataset: str, what: str, split: str | None, example: str | None, only: str = "all") -> str:
    chosen = [f"split {split!r}"] * (split is not None) + [f"example {example!r}"] * (example is not None)
    chosen += [f"--only {only}"] * (only != "all")
    selection = f" with {' and '.join(chosen)}" if chosen else ""
    todo = {
        "examples": "`qcrd sample` or `qcrd import`",
        "rationales": "`qcrd sample` or `qcrd import`",
        "votes": "`qcrd vote`",
    }[what]
    stored = store.query("SELECT DISTINCT dataset FROM examples ORDER BY dataset")["dataset"].to_pylist()
    return (
        f"No {what} of {dataset!r}{selection} are stored at {store.files.given}. "
        f"Datasets stored: {', '.join(stored) or 'none'}. To get some: {todo}."
    )


def _question(row: dict[str, Any]) -> Text:
    text = Text()
    text.append_text(plain(f"{row['example_id']}  {row['split']}\n", "dim"))
    text.append_text(plain(row["question"], "bold"))
    for position, choice in enumerate(row["choices"] or []):
        text.append(f"\n  ({chr(ord('a') + position)}) ")
        text.append_text(plain(choice))
    text.append("\n  label: ")
    text.append_text(plain(row["label"], "cyan") if row["label"] is not None else Text("unknown", style="dim"))
    return text


def _short(text: str | None, width: int) -> Text:
    """One line of at most `width` characters; a dash for nothing."""
    if text is None:
        return Text("-", style="dim")
    line = " ".join(text.split())
    return plain(line if len(line) <= width else line[: width - 1] + "…")


def _verdict(row: dict[str, Any]) -> Text:
    if row["correct"] is None:
        return Text("")
    return Text("right", style="green") if row["correct"] else Text("wrong", style="red")


STYLES = {"positive": "green", "negative": "red"}


def _print_rationales(row: dict[str, Any]) -> None:
    out.print(_question(row))
    if row["vote_id"] is not None:
        line = Text("  majority: ")
        line.append_text(plain(row["winner"] if row["winner"] is not None else "none", "bold"))
        line.append(f" with {row['n_votes']} of {row['n_parsed']} votes")
        miscalculated = row["n_miscalculated"] or 0
        if unparsed := row["n_sampled"] - row["n_parsed"] - miscalculated:
            line.append(f" ({unparsed} without an answer)")
        if miscalculated:
            line.append(f" ({miscalculated} with wrong arithmetic)")
        line.append(", a tie  " if row["tie"] else "  ")
        line.append_text(_verdict(row))
        out.print(line)
    order = {"positive": 0, "same": 1, "negative": 2, "out": 3}
    for sample in sorted(row["samples"], key=lambda sample: order.get(sample["vote"].split(" ")[0].rstrip(":"), 4)):
        standing = sample["vote"]
        line = Text("  ")
        line.append_text(plain(standing, STYLES.get(standing.split(" ")[0], "yellow")))
        if sample["answer"] is not None:
            line.append(" | answer ")
            line.append_text(plain(sample["answer"], "bold"))
        line.append_text(plain(f" | {sample['model']} #{sample['sample_index']}", "dim"))
        out.print(line, soft_wrap=True)
        out.print(Padding(plain(" ".join((sample["rationale"] or "").split())), (0, 0, 0, 6)))
    out.print()


@app.command("rounds")
def rounds(
    training: Annotated[
        str | None, typer.Option("--training", help="Id of the training; by default the newest.")
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option("--html", help="Write a page with agreement and right answers by round, for a browser."),
    ] = None,
    replace: ReplaceOption = False,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Show a training's rounds.

    Accuracy on validation (of the answers, and of the answers that explanations
    end in; how often the two agree; how often the answer is the teacher's
    majority), the loss and its terms, the share of questions with a negative
    below the margin, and how surely the discriminator ranks a positive above a
    minority sample and above the student's own.

    Example: qcrd show rounds
    """
    from tasks.training.rounds import best_round
    from tasks.training.summary import find_training, round_rows

    found = find_training(home_at(home).path, training)
    if page is not None:
        from flows.report.proxy import write_proxy

        new_file("--html", page, (".html", ".htm"), found.store, replace=replace)
        write_proxy(found, page)
        notice(f"{page}: agreement with the teacher, and right answers. Open it in a browser.")
    rows = round_rows(found)
    if as_json:
        print_json(rows)
        return
    best = best_round(found.evaluations())
    out.print(plain(f"{found.spec.name} (best round: {best}; valid, expl, agree, teach and repel in %)"))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name, short in ROUND_COLUMNS.items():
        if name in rows[0]:
            table.add_column(short, justify="right", no_wrap=True, overflow="fold")
    for row in rows:
        cells = [_round_cell(name, row[name]) for name in ROUND_COLUMNS if name in row]
        table.add_row(*cells, style="bold" if row["round"] == best else "")
    out.print(table)


def _round_cell(name: str, value: float | None) -> str:
    if name in ("validation", "explanations", "consistency", "teacher", "repelled"):
        return "-" if value is None else f"{100 * value:.1f}"
    return "-" if value is None else f"{value:.0f}" if name in ("round", "seconds") else f"{value:.2f}"
