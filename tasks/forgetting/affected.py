"""What learned from examples: trainings of this state folder, and registered versions."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from storage.schemas import SCORES, VOTES
from storage.store import Store
from tasks.tracking.lineage import Origin, registered_origins
from tasks.tracking.start_from import started_from
from tasks.training.folder import Training, trainings_in


@dataclass(frozen=True)
class Affected:
    """What learned from some examples.

    Attributes:
        folders: trainings whose training set holds some; their folders quote them.
        trainings: training's id -> the examples that it learned from, itself or through the student that it began with.
        versions: registered version -> the same.
    """

    folders: list[Training]
    trainings: dict[str, set[str]]
    versions: dict[Origin, set[str]]


def affected_by(
    home: Path, store: Store, examples: Sequence[str], begun: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> Affected:
    """Asks the training sets, the store and MLflow.

    A training whose folder is gone is known by the samples and scores of its student. Of one that has neither, a
    version counts if it learned from votes on the examples.

    Args:
        begun: example that an earlier call has begun to forget -> the trainings that had learned from it.

    Raises:
        TrackingFailed: MLflow cannot be asked.
    """
    here = trainings_in(home)
    learned = _by_their_samples(store, examples)
    for example, trainings in begun.items():
        for key in trainings:
            learned.setdefault(key, set()).add(example)
    folders = []
    for training in here:
        found = training.learned_from(examples)
        learned.setdefault(training.folder.name, set()).update(found)
        if found or (training.is_forgotten and learned[training.folder.name]):  # the latter may be half removed
            folders.append(training)
    folder_names = {training.folder.name for training in here}
    origins = registered_origins(home)
    for origin in origins:
        if origin.training not in folder_names and not learned.get(origin.training):
            learned[origin.training] = _voted(store, examples, origin)
    _pass_on(here, origins, learned)
    learned = {key: found for key, found in learned.items() if found}
    versions = {origin: learned[origin.training] for origin in origins if origin.training in learned}
    return Affected(folders, learned, versions)


def tags(learned: Mapping[str, Collection[str]], moment: str) -> dict[str, str]:
    """What a mark says of each training."""
    return {key: f"{moment} {len(examples)} example{'s' * (len(examples) != 1)}" for key, examples in learned.items()}


def _by_their_samples(store: Store, examples: Sequence[str]) -> dict[str, set[str]]:
    """Training's id -> examples for which its student wrote samples, or its discriminator scored some."""
    found = store.query(
        "SELECT DISTINCT run_id, example_id FROM rationales WHERE source = 'student' AND run_id IS NOT NULL "
        "AND example_id IN (SELECT unnest($1::VARCHAR[]))",
        [list(examples)],
    )
    pairs = list(zip(found["run_id"].to_pylist(), found["example_id"].to_pylist(), strict=True))
    if store.parts(SCORES):
        found = store.query(
            "SELECT DISTINCT s.run_id, r.example_id FROM scores s JOIN rationales r USING (sample_id) "
            "WHERE r.example_id IN (SELECT unnest($1::VARCHAR[]))",
            [list(examples)],
        )
        pairs += zip(found["run_id"].to_pylist(), found["example_id"].to_pylist(), strict=True)
    learned: dict[str, set[str]] = {}
    for training, example in pairs:
        learned.setdefault(training, set()).add(example)
    return learned


def _voted(store: Store, examples: Sequence[str], origin: Origin) -> set[str]:
    if origin.vote is None or not store.parts(VOTES):
        return set()
    found = store.query(
        "SELECT DISTINCT example_id FROM votes WHERE vote_id = $1 AND example_id IN (SELECT unnest($2::VARCHAR[]))",
        [origin.vote, list(examples)],
    )
    return set(found["example_id"].to_pylist())


def _pass_on(here: Sequence[Training], origins: Sequence[Origin], learned: dict[str, set[str]]) -> None:
    """Adds the trainings that began with a student that learned from the examples."""
    training_of = {origin.version: origin.training for origin in origins}
    while True:
        new = {}
        for training in here:
            before = learned.get(training_of.get(started_from(training.spec.config.student) or "", ""), set())
            if not before <= learned.get(training.folder.name, set()):
                new[training.folder.name] = learned.get(training.folder.name, set()) | before
        if not new:
            return
        learned.update(new)
