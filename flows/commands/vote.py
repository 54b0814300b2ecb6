"""`qcrd vote`: self-consistency votes."""

from typing import Annotated, cast, get_args

import typer
from rich.table import Table

from flows.commands.options import (
    DEFAULT_HOME,
    DatasetOption,
    HomeOption,
    JsonOption,
    SplitOption,
    at_least,
    home_at,
    key_option,
    one_of,
)
from flows.terminal import notice, out, print_json
from flows.vote_figures import vote_rows
from storage.datasets.registry import get_dataset
from storage.vote_sql import Positives
from storage.vote_summary import VoteSummary
from storage.votes import VoteRule, VotesConfig, vote

DEFAULT = VotesConfig()


def vote_command(
    dataset: DatasetOption,
    split: SplitOption = None,
    teacher: Annotated[
        list[str] | None, typer.Option("--teacher", help="Teachers that vote, as a glob; by default all. Repeatable.")
    ] = None,
    n: Annotated[int | None, key_option(VotesConfig, "n")] = DEFAULT.n,
    seed: Annotated[int, key_option(VotesConfig, "seed")] = DEFAULT.seed,
    positives: Annotated[str, key_option(VotesConfig, "positives")] = DEFAULT.positives,
    check_arithmetic: Annotated[
        bool, key_option(VotesConfig, "check_arithmetic", "--check-arithmetic")
    ] = DEFAULT.check_arithmetic,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Find each question's majority answer, positives and negatives.

    They are stored; voting again adds only what has changed.

    Example: qcrd vote --dataset svamp --teacher "gpt-3.5-*" --n 5 --seed 1
    """
    one_of("--positives", positives, get_args(Positives))
    at_least("--n", n, 1)
    named = get_dataset(dataset)
    rule = VoteRule(
        dataset=named.name,
        teachers=tuple(teacher or ["*"]),
        n=n,
        seed=seed,
        positives=cast("Positives", positives),
        check_arithmetic=check_arithmetic,
    )
    summary = vote(home_at(home).open_store(), named, rule, split)
    if as_json:
        print_json(summary)
    else:
        print_summary(summary)


def print_summary(summary: VoteSummary) -> None:
    """The vote's figures as a table."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="left", style="dim")
    table.add_column(justify="right")
    table.add_column(justify="left", style="dim")
    for row in vote_rows(summary):
        table.add_row(*row)
    out.print(table)
    notice(
        f"vote {summary.vote_id}: {summary.added:,} rows added, {summary.changed:,} changed, "
        f"{summary.unchanged:,} unchanged"
    )
