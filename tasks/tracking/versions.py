"""The versions of a registered model with their figures and lineage, and the rollback to an earlier one.

    for version in versions_of(home, "qcrd-lab"):
        print(version.version, version.aliases, version.accuracy)
    roll_back(home, "qcrd-lab")                      # the champion before this one is champion again

The alias `champion` moves in one step, so there is always a champion. The gate never promotes a version again that was
rolled back, however often its run is repeated: somebody found it wanting, whatever its test answers say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from storage.errors import NothingToDo, UnknownName
from tasks.tracking.backend import Backend, translated
from tasks.tracking.client import MODEL_ID, Tracking
from tasks.tracking.registry import AGAINST, GATE, ROLLED_BACK
from tasks.tracking.settings import CHAMPION

TEST_ACCURACY, TEST_EXPLANATIONS = "test/accuracy", "test/explanation_accuracy"


@dataclass(frozen=True)
class Version:
    """One version of a registered model.

    Attributes:
        version: its number.
        aliases: champion, challenger, and others that were given by hand.
        created_at: when it was registered, UTC.
        accuracy, explanation_accuracy: on the test questions, 0 to 1; None if there were none.
        gate: the gate's reason; None if it has not decided yet.
        rolled_back: when and to what it was rolled back; None if never.
        tags: its lineage ("qcrd.student", "qcrd.training_id", "qcrd.run_id", "qcrd.vote_id" ...).
    """

    version: str
    aliases: tuple[str, ...]
    created_at: datetime
    accuracy: float | None
    explanation_accuracy: float | None
    gate: str | None
    rolled_back: str | None
    tags: Mapping[str, str]


@dataclass(frozen=True)
class RolledBack:
    """A completed rollback.

    Attributes:
        name: the registered model's name.
        champion: the version that is champion now.
        before: the one that was champion before.
    """

    name: str
    champion: str
    before: str


def versions_of(home: Path, name: str) -> list[Version]:
    """All versions of a registered model, the newest first.

    Raises:
        UnknownName: there is no such model.
    """
    tracking = Tracking(Backend(home))
    with translated(tracking.backend.uri):
        aliases = _aliases(tracking, name)
        found = tracking.client.search_model_versions(f"name = '{name}'")
        rows = [_version(tracking, one, aliases) for one in found]
    return sorted(rows, key=lambda row: int(row.version), reverse=True)


def roll_back(home: Path, name: str, to: str | None = None) -> RolledBack:
    """Makes an earlier version champion.

    Args:
        home: the state folder.
        name: the registered model's name.
        to: which version; None takes the one that was champion when the gate promoted the present one.

    Raises:
        UnknownName: there is no such model or version.
        NothingToDo: it is the champion already, there is no champion, or none before it.
    """
    tracking = Tracking(Backend(home))
    client, backend = tracking.client, tracking.backend
    with backend.lock("registry"), translated(backend.uri):
        before = _aliases(tracking, name).get(CHAMPION)
        if before is None:
            raise NothingToDo(f"{name} has no champion to roll back. Name one: qcrd rollback --to VERSION.")
        numbers = {str(one.version): one for one in client.search_model_versions(f"name = '{name}'")}
        wanted = to or _champion_before(name, numbers[before], numbers)
        if wanted not in numbers:
            raise UnknownName(f"version of {name}", wanted, sorted(numbers, key=int))
        if wanted == before:
            raise NothingToDo(f"{name} version {wanted} is the champion already; nothing was changed.")
        # First the mark, then the alias: if killed in between, the old champion stays, and the same command goes on.
        moment = datetime.now(UTC).isoformat(timespec="seconds")
        client.set_model_version_tag(name, before, ROLLED_BACK, f"{moment} to version {wanted}")
        client.set_registered_model_alias(name, CHAMPION, wanted)
        if ROLLED_BACK in numbers[wanted].tags:
            client.delete_model_version_tag(name, wanted, ROLLED_BACK)
    return RolledBack(name, wanted, before)


def _champion_before(name: str, champion: ModelVersion, known: Mapping[str, ModelVersion]) -> str:
    against = champion.tags.get(AGAINST, "none")
    if against in known:
        return str(against)
    gone = f"version {against}, the champion before it, is gone" if against != "none" else "no champion was before it"
    others = [number for number in sorted(known, key=int) if number != str(champion.version)]
    advice = f"Name another one with --to: {', '.join(others)}." if others else "It is the only version."
    raise NothingToDo(f"{name} version {champion.version} cannot be rolled back: {gone}. {advice}")


def _aliases(tracking: Tracking, name: str) -> dict[str, str]:
    """alias -> version.

    Raises:
        UnknownName: there is no such model.
    """
    models = tracking.client.search_registered_models()
    found = next((model for model in models if model.name == name), None)
    if found is None:
        raise UnknownName(
            "registered model", name, [model.name for model in models], "Students are registered by `qcrd distill`."
        )
    return {alias: str(version) for alias, version in found.aliases.items()}


def _version(tracking: Tracking, found: ModelVersion, aliases: Mapping[str, str]) -> Version:
    tags, number = dict(found.tags), str(found.version)
    figures = _figures(tracking, tags.get(MODEL_ID))
    return Version(
        version=number,
        aliases=tuple(sorted(alias for alias, version in aliases.items() if version == number)),
        created_at=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
        accuracy=figures.get(TEST_ACCURACY),
        explanation_accuracy=figures.get(TEST_EXPLANATIONS),
        gate=tags.get(GATE),
        rolled_back=tags.get(ROLLED_BACK),
        tags={key: value for key, value in tags.items() if not key.startswith(GATE)},
    )


def _figures(tracking: Tracking, model_id: str | None) -> dict[str, float]:
    """The figures of a version's model; empty if somebody registered a model of their own, or deleted it."""
    if model_id is None:
        return {}
    try:
        metrics: Sequence[object] = tracking.client.get_logged_model(model_id).metrics or []
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
    return {str(metric.key): float(metric.value) for metric in metrics}  # type: ignore[attr-defined]
