"""How a training's student is asked questions, to be evaluated or calibrated."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from models.discriminator import Discriminator
from models.judge import Judge
from models.student_loading import load_student
from models.trainer import torch_device
from tasks.serving.answering import Answered, ask
from tasks.serving.settings import AskingConfig, Question
from tasks.training.folder import Training
from tasks.training.outcomes import QualityUpdated
from tasks.training.quality import scorer
from tasks.training.shares import Share, other_shares
from tasks.training.spec import TrainingSpec, writes


def explains_validation(spec: TrainingSpec) -> bool:
    """Whether the student explains the validation questions, which one that answers last cannot leave out."""
    return spec.config.rounds.explain_validation or writes(spec.config.method) == "rationale, then answer"


def samples_of(spec: TrainingSpec) -> tuple[int, ...]:
    """The numbers of samples to decide with; 0 alone for a student that writes no rationales."""
    known = dict.fromkeys(spec.config.answering.samples)
    return tuple(known) if writes(spec.config.method) != "answer" or not known else (0,)


def ask_round(
    training: Training,
    t: int,
    rows: Sequence[dict[str, Any]],
    *,
    explain: bool,
    samples: tuple[int, ...] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Answered]:
    """What the student that a round ended with says to questions.

    Args:
        training: which one.
        t: the round.
        rows: the questions, with `question` and `choices`.
        explain: ask for rationales, too, of a method that writes some.
        samples: numbers of sampled rationales for which answers will be weighed; none where they will not be.
        on_progress: called with (texts written, texts in all).
    """
    request = _Request(list(rows), t, explain, samples)
    if training.spec.config.rounds.processes == 1:
        return _ask(training, request, on_progress)
    with TemporaryDirectory() as folder:
        place = Path(folder)
        (place / _REQUEST).write_bytes(_REQUESTS.dump_json(request))
        with other_shares(training, t, "answers", folder) as share:
            ask_share(training, t, share, place, on_progress)
        told = [_ANSWERS.validate_json((place / str(number)).read_bytes()) for number in range(share.of)]
    return [told[number % share.of][number // share.of] for number in range(len(rows))]


@dataclass(frozen=True)
class _Request:
    """What a student is asked; as in `ask_round`."""

    rows: list[dict[str, Any]]
    t: int
    explain: bool
    samples: tuple[int, ...]


_REQUEST = "request"
# A log-probability may be minus infinity, which JSON has no number for.
_REQUESTS, _ANSWERS = (
    TypeAdapter(_Request),
    TypeAdapter(list[Answered], config=ConfigDict(ser_json_inf_nan="constants")),
)


def ask_share(
    training: Training, t: int, share: Share, folder: Path, on_progress: Callable[[int, int], None] | None = None
) -> None:
    """Asks one share of the questions in `folder`, and writes there what the student says to them."""
    request = _REQUESTS.validate_json((folder / _REQUEST).read_bytes())
    rows = [row for place, row in enumerate(request.rows) if share.has(place)]
    said = _ask(training, replace(request, rows=rows, t=t), on_progress)
    (folder / str(share.number)).write_bytes(_ANSWERS.dump_json(said))


def _ask(training: Training, request: _Request, on_progress: Callable[[int, int], None] | None) -> list[Answered]:
    rows, t, explain, samples = request.rows, request.t, request.explain, request.samples
    spec = training.spec
    config, asked = spec.config, writes(spec.config.method)
    device = torch_device(config.optimisation)
    asking = AskingConfig(
        writes=asked if explain or asked == "answer, then rationale" else "answer",
        answers_only=not explain,
        answer_tokens=config.rounds.answer_tokens,
        batch_size=config.rounds.evaluation_batch,
        samples=max(samples, default=0),
        temperature=config.answering.temperature,
    )
    return ask(
        training.dataset,
        load_student(training.model(t), config.student).to(device),
        [Question(row["question"], tuple(row["choices"])) for row in rows],
        asking,
        on_progress,
        _scorer(training, t) if samples else None,
        weigh=bool(samples),
    )


def _scorer(training: Training, t: int) -> Discriminator | Judge | None:
    """Who scores the rationales of the student that a round ended with; None where its method scores none."""
    if training.spec.config.method.quality_source == "judge":
        return scorer(training, t)
    quality = training.outcome(QualityUpdated, t)
    return None if quality is None or quality.version is None else scorer(training, quality.version)
