"""A page with the proxy and the truth by round: agreement with the teacher, and right answers."""

from collections.abc import Sequence
from pathlib import Path

from flows.report.charts import Axis, Series, line_chart, swatch
from flows.report.document import document, escaped
from models.folders import whole_file
from storage.errors import NothingToDo, StoreWriteFailed
from tasks.tracking.gate import wilson_interval
from tasks.training.agreement import Agreement, agreements
from tasks.training.folder import Training
from tasks.watching.proxy import alarm


def write_proxy(training: Training, file: Path) -> list[Agreement]:
    """Writes the page from a training's stored predictions; a file that is there is replaced. Returns its rounds.

    Raises:
        NothingToDo: no validation question of the training has a teacher's majority answer.
        StoreWriteFailed: the file cannot be written.
    """
    spec, rounds = training.spec, agreements(training)
    if not rounds:
        raise NothingToDo(
            f"No validation question of {spec.name} has a teacher's majority answer by vote {spec.rule.vote_id}. "
            f"Sample the teacher on split {spec.validation.split!r} and run the same `qcrd distill` again."
        )
    title = f"{spec.name}: agreement and truth"
    body = f"<h1>{escaped(title)}</h1>{_chart(title, rounds)}{_alarms(rounds)}{_note(rounds)}"
    try:
        with whole_file(file) as partial:
            partial.write_text(document(title, body), encoding="utf-8")
    except OSError as error:
        raise StoreWriteFailed(f"The page {file} cannot be written: {error.strerror or error}.") from error
    return rounds


def _chart(title: str, rounds: Sequence[Agreement]) -> str:
    series = [Series("agreement with the teacher", 2, [_point(one.t, list(one.agrees.values())) for one in rounds])]
    if all(one.right for one in rounds):
        series.append(Series("right answers", 1, [_point(one.t, list(one.right.values())) for one in rounds]))
    legend = "".join(f"<li>{swatch(one.style)} {escaped(one.name)}</li>" for one in series)
    x, y = Axis("round", whole=True), Axis("of the validation questions", percent=True)
    return f"<ul class='legend'>{legend}</ul><figure>{line_chart(title, series, x, y)}</figure>"


def _point(t: int, values: Sequence[bool]) -> tuple[float, float, float, float]:
    return t, sum(values) / len(values), *wilson_interval(sum(values), len(values))


def _alarms(rounds: Sequence[Agreement]) -> str:
    found = [one for place in range(len(rounds)) if (one := alarm(rounds[: place + 1])) is not None]
    told = "".join(f"<li>Round {one.t}: {escaped(str(one))}.</li>" for one in found)
    return f"<p>The student may be learning the teacher's mistakes:</p><ul>{told}</ul>" if told else ""


def _note(rounds: Sequence[Agreement]) -> str:
    return (
        f"<p class='note'>Agreement is of {len(rounds[0].agrees):,} validation questions with a teacher's majority "
        f"answer; the right answer to {len(rounds[0].right):,} of them is known. Bands are Wilson's 95 % intervals.</p>"
    )
