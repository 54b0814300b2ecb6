"""Prepares a training: its data, its folder, and the student before round 0."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from models.precision import decided_precision
from storage.datasets.definition import LABEL_SETS, Dataset
from storage.datasets.registry import get_dataset
from storage.errors import NothingToDo, UsageError
from storage.ids import content_id
from storage.store import Store
from storage.votes import VoteRule
from tasks.running.worker import Worker
from tasks.serving.settings import REFUSAL
from tasks.training.folder import Training
from tasks.training.in_worker import make_initial
from tasks.training.outcomes import Preparation, Prepared
from tasks.training.spec import Parts, TrainingConfig, TrainingSpec, training_id
from tasks.training.training_set import TrainingSet, judged_questions, training_set


def prepare_training(
    trainings: Path,
    store: Store,
    dataset: str,
    rule: VoteRule,
    parts: Parts,
    config: TrainingConfig,
    worker: Worker | None = None,
) -> Prepared:
    """Makes `trainings/<training id>`, or finds it there.

    Args:
        trainings: the folder of all trainings.
        dataset: name of the dataset, or path of its definition.
        rule: the rule of the stored votes.
        parts: the questions for training, validation and test.
        config: the training.
        worker: makes the student, if one has to be made; None makes it in this process.

    Raises:
        NothingToDo: there is nothing to train on, or no validation or test question has a label or majority answer.
        UsageError: `registry.risk` can come to nothing, or `method.abstain_below` has no word to teach.
        BadStudent: there is no such student.
        UsageError: questions were forgotten meanwhile.
    """
    with TemporaryDirectory(prefix="qcrd-") as folder:
        file = Path(folder) / "examples.parquet"
        definition = get_dataset(dataset)
        if config.method.abstain_below is not None:
            _refuse_vain_refusal(definition)
        found = training_set(
            store, parts.train, rule, config.method, file, definition.target, parts.sampled_only, parts.further
        )
        return _prepared(trainings, store, dataset, rule, parts, config, worker, found, file)


def refuse_vain(store: Store, dataset: str, parts: Parts, config: TrainingConfig) -> None:
    """Refuses what can come to nothing, as far as that is known before a teacher is asked, who costs money.

    Raises:
        UsageError: as `prepare_training` does.
    """
    definition = get_dataset(dataset)
    if config.method.abstain_below is not None:
        _refuse_vain_refusal(definition)
    if config.risk is not None:
        _refuse_vain_risk(config, definition, len(parts.validation.half(1).ids(store)))


def _prepared(
    trainings: Path,
    store: Store,
    dataset: str,
    rule: VoteRule,
    parts: Parts,
    config: TrainingConfig,
    worker: Worker | None,
    found: TrainingSet,
    file: Path,
) -> Prepared:
    """The training of a training set, which lies in a file."""
    if config.risk is not None:
        parts = replace(parts, validation=parts.validation.half(0))
    validation = content_id("validation", sorted(parts.validation.ids(store)))

    def is_known(one: TrainingConfig) -> bool:
        return Training(trainings / training_id(one, found.digest, validation)).is_one

    config = with_precision(config, is_known)
    identity = training_id(config, found.digest, validation)
    training = Training(trainings / identity)
    spec = TrainingSpec(
        training_id=identity,
        dataset=dataset,
        store=store.files.given,
        rule=rule,
        train=parts.train,
        validation=parts.validation,
        test=parts.test,
        data_digest=found.digest,
        test_digest=content_id("test", sorted(parts.test.ids(store))) if parts.test else None,
        config=config,
    )

    for questions in filter(None, (parts.validation, parts.test)):  # now, not after hours of training
        judged_questions(store, questions, rule)
    if spec.certifying and config.risk is not None:
        _refuse_vain_risk(config, get_dataset(dataset), len(judged_questions(store, spec.certifying, rule)[0]))

    def prepare() -> Preparation:
        training.write_examples(file)
        if gone := training.learned_from(store.forgotten.ids()):  # while the set was made
            training.forget(datetime.now(UTC))
            raise UsageError(f"{len(gone):,} of the questions were forgotten just now; run the same command again.")
        arguments = (training.folder, dataset, config)
        made = worker.run(make_initial, *arguments) if worker else make_initial(*arguments)
        if made.too_long.questions == found.questions:
            raise NothingToDo(
                f"All {found.questions:,} questions are longer than student.max_input_tokens "
                f"({config.student.max_input_tokens}); the longest has {made.too_long.longest:,}. Raise it."
            )
        preparation = Preparation(
            questions=found.questions,
            positives=found.positives,
            negatives=found.negatives,
            without_answer=found.without_answer,
            without_positives=found.without_positives,
            without_negatives=found.without_negatives,
            refusals=found.refusals,
            left_out=found.left_out,
            parameters=made.parameters,
            too_long=made.too_long,
        )
        training.write_spec(spec)
        training.write_outcome(preparation)
        return preparation

    preparation = training.outcome(Preparation)
    if preparation is None:
        with training.preparing():
            preparation = training.outcome(Preparation) or prepare()
    # The state folder may have moved since, or its path be given in another way.
    return Prepared(folder=training.folder, spec=spec, **preparation.model_dump())


def _refuse_vain_refusal(dataset: Dataset) -> None:
    """
    Raises:
        UsageError: `method.abstain_below` means nothing for this dataset.
    """
    if dataset.answer_kind == LABEL_SETS:
        raise UsageError(
            f"method.abstain_below goes by the majority's share of the votes, and the labels of {dataset.name} are "
            "voted on one by one. Leave it out."
        )
    choices = ("yes", "no") if dataset.answer_kind == "choice" else ()
    if dataset.normalise(REFUSAL, choices) is not None:
        raise UsageError(
            f"method.abstain_below teaches a student to answer {REFUSAL!r}, which {dataset.name} takes for an answer "
            "like any other. Leave it out, or let the dataset's normaliser turn that text away."
        )


def _refuse_vain_risk(config: TrainingConfig, dataset: Dataset, certifying: int) -> None:
    """
    Raises:
        UsageError: `registry.risk` can come to nothing, whatever the student learns.
    """
    risk = config.risk or 0.0
    if dataset.target is not None or not config.answering.samples:
        reason = (
            f"students of {dataset.name} write the {dataset.target}, not the answer"
            if dataset.target is not None
            else "answering.samples is []"
        )
        raise UsageError(f"registry.risk needs a student that says how sure it is, and {reason}. Leave it out.")
    from tasks.training.risk_control import least_answered  # here, because it imports scipy

    if certifying < (least := least_answered(risk)):
        raise UsageError(
            f"registry.risk is {risk:g}, which takes at least {least:,} certifying questions, all answered rightly, "
            f"and there are {certifying:,}: half of the validation questions. Name more of them (about {4 * least:,} "
            "leave room for errors), allow a larger risk, or leave it out."
        )


def with_precision(config: TrainingConfig, is_known: Callable[[TrainingConfig], bool]) -> TrainingConfig:
    """The training's configuration, with a definite precision in place of `optimisation.precision: auto`.

    The precision is then part of the id, as if somebody had named it, and every round is computed in it on whatever
    machine. If a training exists in either precision, it is continued, so that nothing is trained again in a state
    folder from another machine. Otherwise this machine decides.

    Args:
        is_known: whether a training of a configuration with a definite precision exists.
    """
    if config.optimisation.precision != "auto":
        return config
    here = decided_precision(config.optimisation)
    definite = [
        config.model_copy(update={"optimisation": config.optimisation.model_copy(update={"precision": precision})})
        for precision in (here, "float32" if here == "bfloat16" else "bfloat16")
    ]
    return next(filter(is_known, definite), definite[0])
