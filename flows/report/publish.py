"""Writes the report of a comparison, and tells MLflow and Prefect of it."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from prefect.artifacts import create_link_artifact, create_markdown_artifact

from flows.comparison import ComparisonResult, Trained
from flows.config.compare import CompareConfig
from flows.prefect.report import escaped, prefect_note, prefect_tags
from flows.report.contents import contents_of
from flows.report.page import page
from models.folders import whole_file
from storage.errors import StoreWriteFailed
from storage.ids import content_id
from tasks.running.workspace import Workspace
from tasks.tracking.client import open_tracking
from tasks.tracking.comparison import AboutComparison, log_comparison


def publish(
    workspace: Workspace, config: CompareConfig, trained: Sequence[Trained], result: ComparisonResult, file: Path
) -> ComparisonResult:
    """Writes the report; in MLflow it is an artifact of a run of the experiment `compare`, in Prefect an artifact.

    Args:
        file: the HTML file; its folder is made if need be, and an older file replaced.

    Returns:
        The result, with the report's path and its run in MLflow.

    Raises:
        StoreWriteFailed: the file cannot be written.
        TrackingFailed: MLflow cannot be reached or refuses something.
    """
    text = page(contents_of(workspace.open_store(), config, trained, result))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreWriteFailed(f"The report {file} cannot be written: {error.strerror or error}.") from error
    tracking = open_tracking(workspace.home)
    about = AboutComparison(
        comparison_id=content_id(
            "comparison", config.model_dump(mode="json"), [one.result.training_id for one in trained]
        ),
        name=f"{Path(config.base).stem}: {', '.join(config.variants)}",
        config=config.model_dump(mode="json"),
        figures=_figures(result),
        tags=prefect_tags() | prefect_note(),
    )
    run = log_comparison(tracking, about, file)
    done = result.model_copy(update={"report": file.resolve(), "mlflow_run": run, "mlflow_url": tracking.address(run)})
    _show(done)
    return done


def _figures(result: ComparisonResult) -> dict[int, dict[str, float]]:
    """Percent of the training questions -> figures for MLflow."""
    found: dict[int, dict[str, float]] = {}
    for row in result.variants:
        figures = found.setdefault(round(100 * row.share), {})
        means = {name: interval[0] for name, interval in (*row.figures.items(), *row.quality.items())}
        figures |= {f"{row.name}/{name}": value for name, value in means.items()}
        figures[f"{row.name}/seconds"] = row.seconds
    for one in result.differences:
        found[round(100 * one.share)][f"{one.variant} - {one.against}/{one.figure}"] = one.difference
    for judged in result.judged:
        found[max(found)][f"{judged.variant} - {judged.against}/judge"] = judged.share
    return found


def _show(result: ComparisonResult) -> None:
    """The sentences, and where the report is, on Prefect's page of the run."""
    sentences = [one.sentence for one in result.differences] + [one.sentence for one in result.judged]
    lines = [f"- {escaped(text)}" for text in sentences]
    lines.append(f"\nThe report: {escaped(str(result.report))}")
    create_markdown_artifact("\n".join(lines), key="comparison", description="What may be said, and the report's file")
    if result.mlflow_url and urlsplit(result.mlflow_url).scheme in ("http", "https"):
        create_link_artifact(
            f"{result.mlflow_url}/artifacts", link_text="The report in MLflow", key="comparison-report"
        )
