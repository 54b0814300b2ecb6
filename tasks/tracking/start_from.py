"""What a training starts from: the student as configured, or the champion of the registered model.

Weekly trainings on growing data need not begin from scratch: with `registry.start_from: champion` each goes on from the
weights of the best student so far. The discriminator and the optimizer begin anew.
"""

import shutil
import tempfile
from pathlib import Path

import mlflow

from models.configs import StudentConfig
from models.folders import whole_folder
from storage.datasets.registry import get_dataset
from storage.errors import UnknownName
from tasks.questions.sets import DatasetConfig
from tasks.serving.settings import STUDENT
from tasks.tracking.client import Tracking, open_tracking
from tasks.tracking.packaging import model_name
from tasks.tracking.registry import champion_of
from tasks.tracking.settings import CHAMPION, SCRATCH, RegistrySettings

FOLDER = "started-from"


def choose_start(
    home: Path, dataset: DatasetConfig, student: StudentConfig, registry: RegistrySettings
) -> tuple[StudentConfig, RegistrySettings]:
    """Resolves `registry.start_from`: "champion" becomes the version that it is now.

    Args:
        home: the state folder; the version's weights are copied to `<home>/started-from`.
        dataset, student, registry: of the configuration.

    Returns:
        The student to begin with, and the registry's settings with "scratch" or a version's number in `start_from`.
        If there is no champion yet, that is the student as configured.

    Raises:
        UnknownName: there is no such version.
        TrackingFailed: MLflow cannot be reached, or has lost the version's files.
    """
    if registry.start_from == SCRATCH:
        return student, registry
    name, tracking = registry.name or model_name(get_dataset(dataset.name).name), open_tracking(home)
    if registry.start_from == CHAMPION:
        champion = champion_of(tracking, name)
        version = champion.version if champion else SCRATCH
    else:
        version = registry.start_from
    settings = registry.model_copy(update={"start_from": version})
    if version == SCRATCH:
        return student, settings
    folder = _fetched(tracking, name, version, home.resolve() / FOLDER)
    own = {"model": str(folder), "revision": None, "new": None, "tokenizer": None}
    return StudentConfig.model_validate(student.model_dump() | own), settings


def started_from(student: StudentConfig) -> str | None:
    """The version whose copy a student is, such as "qcrd-lab version 3"; None if it is none."""
    folder = Path(student.model)
    if folder.parent.name != FOLDER:
        return None
    name, version, _ = folder.name.rsplit("-", 2)
    return f"{name} version {version}"


def _fetched(tracking: Tracking, name: str, version: str, place: Path) -> Path:
    """A copy of a version's student, under `place`."""
    backend = tracking.backend
    with backend.current():
        known = {str(one.version): one for one in tracking.client.search_model_versions(f"name = '{name}'")}
        if version not in known:
            raise UnknownName(
                f"version of {name}", version, known, "registry.start_from takes scratch or champion, too."
            )
        # Another registry's version with the same number was made at another moment.
        folder = place / f"{name}-{version}-{known[version].creation_timestamp}"
        if folder.is_dir():
            return folder
        with tempfile.TemporaryDirectory() as download, whole_folder(folder) as partial:
            found = mlflow.artifacts.download_artifacts(
                f"models:/{name}/{version}/artifacts/{STUDENT}",
                dst_path=download, tracking_uri=backend.uri, registry_uri=backend.uri,
            )  # fmt: skip
            shutil.copytree(found, partial, dirs_exist_ok=True)
    return folder
