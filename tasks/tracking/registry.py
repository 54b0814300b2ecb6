"""MLflow's model registry: a training's best student as a version of a named model, and who is the champion.

    challenger = register(tracking, name, logged, parts, {"student": "lab-qcrd-3f2a@4"})
    verdict = hold_gate(tracking, challenger, right_of, level=0.05)
    model = load_registered(home, name)              # the champion; answers questions

There are two aliases: `challenger` is the newest version, `champion` the one to use. Registering decides nothing. The
gate decides, and writes its reason into the version's tags. The tags also lead back to the MLflow run
(`qcrd.mlflow_run_id`), to the store (`qcrd.store`), the votes and the run in it (`qcrd.vote_id`, `qcrd.run_id`), and to
the predictions by which it was judged (`qcrd.student`).
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from storage.errors import UnknownName, UsageError, one_line
from tasks.errors import TrackingFailed
from tasks.tracking.backend import Backend, translated
from tasks.tracking.client import MODEL_ID, ROUND, TRAINING_ID, LoggedRound, Tracking
from tasks.tracking.gate import DEFAULT_LEVEL, Verdict, judge
from tasks.tracking.packaging import ToServe, package
from tasks.tracking.settings import CHAMPION

if TYPE_CHECKING:
    from tasks.serving.served_model import ServedStudent

CHALLENGER = "challenger"
GATE = "qcrd.gate"
AGAINST = f"{GATE}.against"
ROLLED_BACK = "qcrd.rolled_back"
COVERAGE = "qcrd.coverage"
VERSIONS_OF_MODEL = "mlflow.modelVersions"  # with this tag MLflow's pages link a logged model to its versions


@dataclass(frozen=True)
class Registered:
    """One version of a registered model."""

    name: str
    version: str
    tags: Mapping[str, str]

    @property
    def address(self) -> str:
        """Its URI for `mlflow.pyfunc.load_model` and `mlflow models serve`."""
        return f"models:/{self.name}/{self.version}"

    @property
    def answers_nothing(self) -> bool:
        """Whether it abstains from every question, because no risk could be certified (`registry.risk`)."""
        return self.tags.get(COVERAGE) == "0"


def register(
    tracking: Tracking, name: str, logged: LoggedRound, parts: ToServe, lineage: Mapping[str, str] | None = None
) -> Registered:
    """Packages a round's student and registers it; one that is registered already keeps its version.

    Args:
        tracking: the MLflow to register it with.
        name: the registered model's name; the model is created if there is none.
        logged: the round.
        parts: what is packaged.
        lineage: tags besides those of the round's run, without their prefix "qcrd.".

    Raises:
        TrackingFailed: MLflow refuses it, such as a name with "/" or ":" in it.
    """
    package(tracking, logged, parts)
    client, backend = tracking.client, tracking.backend
    with backend.lock("registry"), backend.current():
        run_tags = client.get_run(logged.run_id).data.tags
        tags = {key: value for key, value in run_tags.items() if key.startswith("qcrd.")}
        tags |= {MODEL_ID: logged.model_id, "qcrd.mlflow_run_id": logged.training}
        tags |= {f"qcrd.{key}": value for key, value in (lineage or {}).items()}
        if not client.search_registered_models(f"name = '{name}'", max_results=1):
            client.create_registered_model(name)
        found = client.search_model_versions(
            f"name = '{name}' AND tags.`{TRAINING_ID}` = '{tags[TRAINING_ID]}' AND tags.`{ROUND}` = '{tags[ROUND]}'"
        )
        version = found[0] if found else None
        if version is None:
            # The tags come with the version, not after it, so that it can always be found again.
            version = client.create_model_version(
                name, f"models:/{logged.model_id}", logged.run_id, tags, model_id=logged.model_id
            )
        known = json.loads(client.get_logged_model(logged.model_id).tags.get(VERSIONS_OF_MODEL, "[]"))
        mention = {"name": name, "version": str(version.version)}
        if mention not in known:
            client.set_logged_model_tags(logged.model_id, {VERSIONS_OF_MODEL: json.dumps([*known, mention])})
        newest = _with_alias(tracking, name, CHALLENGER)
        if newest is None or int(newest.version) < int(version.version):
            client.set_registered_model_alias(name, CHALLENGER, str(version.version))
    return _registered(version)


def champion_of(tracking: Tracking, name: str) -> Registered | None:
    """The champion of a registered model; None if there is none."""
    with translated(tracking.backend.uri):
        found = _with_alias(tracking, name, CHAMPION)
    return _registered(found) if found else None


def hold_gate(
    tracking: Tracking,
    challenger: Registered,
    right_of: Callable[[Registered], Mapping[str, bool]],
    level: float = DEFAULT_LEVEL,
) -> Verdict:
    """Moves `champion` to the challenger if it is better on the same test questions, or if there is no champion.

    Guesses count, so abstaining does not, with one exception: a challenger that abstains from every question does not
    replace a champion that answers some.

    Args:
        tracking: the MLflow that has both.
        challenger: from `register`.
        right_of: a version's answers to test questions: example id -> right or not. Empty if none are known.
        level: see `tasks.tracking.gate.judge`.

    Returns:
        The verdict, which is also written into the challenger's tags ("qcrd.gate", "qcrd.gate.p_value" ...).
    """
    backend = tracking.backend
    with backend.lock("registry"):
        champion = champion_of(tracking, challenger.name)
        if champion and champion.version == challenger.version:
            told = champion.tags.get(GATE, "it was made champion by hand")
            reason = f"version {champion.version} is the champion already: {told}"
            return Verdict(True, reason, level=level, against=champion.version)
        if when := challenger.tags.get(ROLLED_BACK):
            reason = f"version {challenger.version} was rolled back {when}; only by hand can it become champion again"
            return Verdict(False, reason, level=level, against=champion.version if champion else None)
        verdict = judge(right_of(challenger), right_of(champion) if champion else None, level)
        if verdict.promoted and champion and challenger.answers_nothing and not champion.answers_nothing:
            known = verdict.reason.removeprefix("promoted: ")
            verdict = replace(verdict, promoted=False, reason=f"not promoted: it abstains from every question; {known}")
        verdict = replace(verdict, against=champion.version if champion else None, moved=verdict.promoted)
        with translated(backend.uri):
            for key, value in _gate_tags(verdict, champion, level).items():
                tracking.client.set_model_version_tag(challenger.name, challenger.version, key, value)
            if verdict.promoted:
                tracking.client.set_registered_model_alias(challenger.name, CHAMPION, challenger.version)
    return verdict


def _gate_tags(verdict: Verdict, champion: Registered | None, level: float) -> dict[str, str]:
    tags = {
        GATE: verdict.reason,
        f"{GATE}.promoted": str(verdict.promoted).lower(),
        AGAINST: champion.version if champion else "none",
        f"{GATE}.level": f"{level:g}",
    }
    if verdict.p_value is not None:
        figures = ("questions", "only_challenger", "only_champion", "p_value", "difference", "low", "high")
        tags |= {f"{GATE}.{figure}": f"{getattr(verdict, figure):.6g}" for figure in figures}
    return tags


class LoadedStudent:
    """A registered student, loaded.

    Args:
        registered: which version.
        model: as MLflow loaded it.
    """

    def __init__(self, registered: Registered, model: Any) -> None:
        self.registered = registered
        self._model = model

    @property
    def served(self) -> "ServedStudent":
        """What answers: the student itself, and how it is asked."""
        found: ServedStudent = self._model.unwrap_python_model()
        return found

    def predict(
        self, questions: Iterable[str | Mapping[str, Any]], samples: int | None = None, *, guesses: bool = False
    ) -> list[dict[str, Any]]:
        """Answers questions.

        Args:
            questions: texts, or mappings with `question` and, if the dataset has choices, `choices`.
            samples: rationales to sample, whose answers vote; None takes as many as it was registered with.
            guesses: show answers, too, that the student withholds.

        Returns:
            For each one `answer`, `rationale`, `quality`, `confidence` and `abstained`; see `ServedStudent.predict`.

        Raises:
            UsageError: a question is empty or lacks its choices; the message says which.
        """
        asked = [{"question": one} if isinstance(one, str) else one for one in questions]
        columns = {"question": [one.get("question") for one in asked]}
        if any(one.get("choices") for one in asked):  # None for a question without: MLflow refuses a missing list
            columns["choices"] = [one.get("choices") or None for one in asked]
        if not asked:
            return []
        try:
            rows = pd.DataFrame(columns, dtype=object)
            params: dict[str, Any] = {} if samples is None else {"samples": samples}
            if guesses and self._withholds:
                params["guesses"] = True
            found: list[dict[str, Any]] = self._model.predict(rows, params=params or None).to_dict(orient="records")
        except MlflowException as error:
            raise UsageError(f"{one_line(error)}.") from error
        return [row | {"abstained": row.get("abstained", False)} for row in found]

    @property
    def _withholds(self) -> bool:
        """Whether it may abstain, which students that were registered by an earlier version never do."""
        return any(one.name == "guesses" for one in self._model.metadata.get_params_schema() or ())


def registered_models(home: Path) -> list[str]:
    """The names of all registered models, sorted."""
    tracking = Tracking(Backend(home))
    with translated(tracking.backend.uri):
        return sorted(model.name for model in tracking.client.search_registered_models())


def load_registered(home: Path, name: str, alias: str = CHAMPION) -> LoadedStudent:
    """Loads a registered student by its alias.

    Args:
        home: the state folder.
        name: the registered model's name.
        alias: champion, challenger, or one that was given by hand.

    Raises:
        UnknownName: there is no such model or alias; the message lists those there are.
        TrackingFailed: MLflow cannot be reached, or the model cannot be loaded, such as after its folder was moved.
    """
    tracking = Tracking(Backend(home))
    client, backend = tracking.client, tracking.backend
    with backend.current():
        models = client.search_registered_models()
        if name not in {model.name for model in models}:
            raise UnknownName(
                "registered model", name, [model.name for model in models], "Students are registered by `qcrd distill`."
            )
        version = _with_alias(tracking, name, alias)
        if version is None:
            aliases = client.get_registered_model(name).aliases
            raise UnknownName(f"alias of {name}", alias, aliases, "The gate names a champion, or you do, by hand.")
        stored = client.get_model_version_download_uri(name, version.version)
        if backend.artifacts is not None and stored.startswith("/") and not Path(stored).exists():
            raise TrackingFailed(
                f"The files of {name} version {version.version} are not in {stored}, where MLflow's database has them. "
                "If this state folder was moved, or copied from one that is gone, put it back there, or move "
                f"{backend.folder} away and distil again: what is trained is found, not trained again."
            )
        place = mlflow.artifacts.download_artifacts(
            f"models:/{name}/{version.version}", tracking_uri=backend.uri, registry_uri=backend.uri
        )
        paths = list(sys.path)
        try:
            model = mlflow.pyfunc.load_model(place)
        finally:
            sys.path[:] = paths  # MLflow leaves the package's code first in it; this process has its own
    return LoadedStudent(_registered(version), model)


def _with_alias(tracking: Tracking, name: str, alias: str) -> ModelVersion | None:
    """The version that has an alias; None if there is no such alias, or no such model."""
    models = tracking.client.search_registered_models(f"name = '{name}'", max_results=1)
    if not models or alias not in models[0].aliases:
        return None
    return tracking.client.get_model_version_by_alias(name, alias)


def _registered(version: ModelVersion) -> Registered:
    return Registered(version.name, str(version.version), dict(version.tags))
