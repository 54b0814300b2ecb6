"""`qcrd compare`: methods over seeds, with intervals."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from flows.commands.options import DEFAULT_HOME, HomeOption, JsonOption, home_at
from flows.prefect.embedded import check_server, prepare_prefect, show_own_lines
from flows.prefect.own_server import start_own_server
from flows.terminal import out, plain, print_json
from storage.errors import UsageError

if TYPE_CHECKING:
    from flows.comparison import ComparisonResult

FileArgument = Annotated[Path, typer.Argument(help="The comparison, a YAML file; docs/comparing.md explains it.")]


ReportOption = Annotated[
    Path | None,
    typer.Option("--report", help="HTML file to write the report to; <home>/reports/NAME.html by default."),
]


def compare_command(
    file: FileArgument, report: ReportOption = None, as_json: JsonOption = False, home: HomeOption = DEFAULT_HOME
) -> None:
    """Compare methods over several seeds: what is better, how surely.

    Trains every variant with every seed on the same questions and samples.
    What is trained already is found: the same command goes on.
    Writes a report, one HTML file that needs nothing else.
    """
    from flows.config.compare import load_comparison

    config, base = load_comparison(file)
    place = home_at(home)
    report = report_at(report or place.reports / f"{file.stem}.html")
    prepare_prefect(place.path)
    check_server()
    server = start_own_server(place.logs)
    from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

    from flows.compare import compare, side_by_side
    from tasks.tracking.client import open_tracking

    open_tracking(place.path)
    show_own_lines()
    if server:
        server.wait()
    runner: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=side_by_side(config, base))
    result = compare.with_options(task_runner=runner)(config, base, place.path, report)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        show(result)


def report_at(path: Path) -> Path:
    """Where the report goes; told before anything is trained if it cannot.

    Raises:
        UsageError: it is a folder, or below a file.
    """
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if path.is_dir() or not above.is_dir():
        raise UsageError(f"--report {path} is a folder, or below a file; give the path of an HTML file.")
    return path


def show(result: "ComparisonResult") -> None:
    """The table, and below it what may be said."""
    from tasks.comparing.answers import FIGURES

    several = len({row.share for row in result.variants}) > 1
    table = Table(box=None, pad_edge=False)
    for name in ("variant", *(["share"] if several else []), *FIGURES, "seconds"):
        table.add_column(name, justify="left" if name == "variant" else "right")
    for row in result.variants:
        shown = []
        for figure in FIGURES:
            mean, low, high = row.figures.get(figure, (None, 0.0, 0.0))
            # Half the interval's width: with the whole one the table would not fit a terminal.
            shown.append("-" if mean is None else f"{100 * mean:.1f} ±{50 * (high - low):.1f}")
        table.add_row(row.name, *([f"{row.share:.0%}"] if several else []), *shown, f"{row.seconds:,.0f}")
    out.print(table)
    first = result.variants[0]
    asked = f"{first.seeds} seeds, {first.questions:,} {result.part} questions"
    out.print(plain(f"{asked}; % right, ± half the 95 % interval over both."))
    for one in result.differences:
        where = f" ({one.share:.0%} of the questions)" if several else ""
        out.print(plain(one.sentence + where), soft_wrap=True)
    for judged in result.judged:
        out.print(plain(judged.sentence), soft_wrap=True)
    out.print(plain(f"Report: {result.report}"), soft_wrap=True)
