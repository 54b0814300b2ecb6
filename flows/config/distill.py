"""The configuration of `distill`: one model per concern, each from beside the code it configures, composed here.

A configuration is a YAML file; `flows/configs/` holds the shipped ones. The same model is the flow's parameter, so
Prefect's UI shows it as a form.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.configs import DiscriminatorConfig, OptimisationConfig, StudentConfig
from models.methods import MethodConfig, MethodName
from storage.datasets.registry import BUILT_IN
from storage.errors import BadFile, UnknownName, UsageError, one_line
from storage.votes import VotesConfig
from tasks.cascade.settings import CascadeSettings
from tasks.questions.sets import DatasetConfig, VariantsConfig
from tasks.teacher.lab import lab_folder
from tasks.teacher.settings import LAB, TeacherSettings
from tasks.tracking.settings import RegistrySettings
from tasks.training.spec import AnsweringConfig, NegativesConfig, OwnSamplesConfig, RoundsConfig, TrainingConfig
from tasks.watching.drift import DriftConfig

NEVER_REPEATED = ("url", "key_secret", "server_args", "extra_body")
"""Keys in whose value somebody may have put a password; no error shows what was given."""
SHIPPED = Path(__file__).parents[1] / "configs"


class DistillConfig(BaseModel):
    """Everything that `distill` does, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    dataset: DatasetConfig = Field(description="Which questions.")
    teacher: TeacherSettings = Field(description="Where the rationales come from.")
    variants: VariantsConfig = Field(
        default=VariantsConfig(), description="Variants of the training questions that the teacher writes."
    )
    votes: VotesConfig = Field(default=VotesConfig(), description="Which of them are positives.")
    student: StudentConfig = Field(description="Which model learns.")
    method: MethodConfig = Field(default=MethodConfig(), description="qcrd, its ablations, or a baseline.")
    compare: tuple[MethodName, ...] = Field(
        default=(), description="Methods to train beside it on the same data and budget; they are never registered."
    )
    compare_rounds: int | None = Field(
        default=None,
        ge=1,
        description="Rounds of these methods; as many as the method's own by default. Fewer give one whose steps take "
        "longer the same time.",
    )
    negatives: NegativesConfig = Field(
        default=NegativesConfig(), description="The negatives that the student samples itself."
    )
    own: OwnSamplesConfig = Field(
        default=OwnSamplesConfig(), description="The student's own rationales, judged by their answers."
    )
    discriminator: DiscriminatorConfig = Field(
        default=DiscriminatorConfig(), description="The discriminator, and how it is trained."
    )
    optimisation: OptimisationConfig = Field(default=OptimisationConfig(), description="How the student is trained.")
    rounds: RoundsConfig = Field(
        default=RoundsConfig(), description="How many rounds there are, and what is kept of them."
    )
    answering: AnsweringConfig = Field(
        default=AnsweringConfig(), description="How the trained student's answer is chosen."
    )
    registry: RegistrySettings = Field(
        default=RegistrySettings(), description="How the best student is registered and judged."
    )
    cascade: CascadeSettings = Field(
        default=CascadeSettings(), description="How `qcrd answer` serves the champion before the teacher."
    )
    drift: DriftConfig = Field(default=DriftConfig(), description="When to warn that incoming data has changed.")

    @model_validator(mode="after")
    def _compare_with_others(self) -> Self:
        if self.method.name in self.compare or len(set(self.compare)) < len(self.compare):
            raise ValueError(f"`compare` names methods beside {self.method.name}, each once")
        return self

    @model_validator(mode="after")
    def _teachers_have_the_answer_target(self) -> Self:
        name = self.dataset.name
        taught = [method for method in self.methods() if method.answer_source == "teacher"]
        target = BUILT_IN[name]().target if taught and name in BUILT_IN else None
        if target is not None:
            setting = "method.labels=teacher" if self.method.labels == "teacher" else "label-distill"
            raise ValueError(
                f"{name} trains the gold {target}, and a teacher's majority answer comes with none: leave {setting} "
                f"out, or take dataset.name={BUILT_IN[name]().name}"
            )
        return self

    @model_validator(mode="after")
    def _somebody_writes_variants(self) -> Self:
        if not self.variants.kinds:
            return self
        if self.teacher.source != "sample":
            raise ValueError("`variants` belong to teacher.source: sample: a teacher has to be asked for them")
        if self.teacher.needs_lab():
            raise ValueError("the lab's teacher can only solve problems, not write them: take another for `variants`")
        if self.teacher.budget is not None:
            raise ValueError("`variants` are not counted by teacher.budget: take one of the two")
        return self

    def methods(self) -> list[MethodConfig]:
        """The method, then those it is compared with, as published: they share the labels and the weights of the
        losses that they have."""
        shared = self.method.model_dump(include={"labels", "label_weight", "rationale_weight", "mi_weight"})
        return [self.method, *(MethodConfig(name=name, **shared) for name in self.compare)]

    def training(self, method: MethodConfig, home: Path) -> TrainingConfig:
        """The training of one of the methods.

        Args:
            method: one of `methods`.
            home: the state folder, where the lab's tokenizer lies.
        """
        student = self.student
        if student.tokenizer == LAB:
            student = student.model_copy(update={"tokenizer": str(lab_folder(home))})
        rounds = self.rounds
        if method != self.method and self.compare_rounds is not None:
            rounds = rounds.model_copy(update={"rounds": self.compare_rounds})
        return TrainingConfig(
            student=student,
            method=method,
            negatives=self.negatives,
            own=self.own,
            discriminator=self.discriminator,
            optimisation=self.optimisation,
            rounds=rounds,
            answering=self.answering,
            risk=self.registry.risk,
        )


def shipped_configs() -> list[str]:
    """Names of the shipped configurations."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_config(name: str, settings: Iterable[str] = ()) -> DistillConfig:
    """A configuration from a file, or a shipped one by its name.

    Args:
        name: a path that ends in .yaml or .yml, or one of `shipped_configs`.
        settings: "section.key=value" each, values in YAML; they win over the file.

    Raises:
        UnknownName: no such shipped configuration, or no such key; names the nearest one.
        BadFile: the file is missing or no YAML mapping.
        UsageError: a value is not allowed.
    """
    return checked(with_settings(content_of(name), settings), f"{name}: ")


def content_of(name: str) -> dict[str, Any]:
    """What a configuration's file says, unchecked; `name` as in `load_config`, which says what is raised."""
    file = Path(name)
    if file.suffix.lower() not in (".yaml", ".yml"):
        file = SHIPPED / f"{name}.yaml"
        if not file.is_file():
            raise UnknownName("configuration", name, shipped_configs(), "Or the path of your own, ending in .yaml.")
    return read_mapping(file, DistillConfig.model_fields)


def checked(content: Mapping[str, Any], where: str = "") -> DistillConfig:
    """The configuration of some plain values.

    Raises:
        UsageError: one line per mistake, with key, value, what is allowed, and the nearest key.
    """
    try:
        return DistillConfig.model_validate(content)
    except ValidationError as error:
        places: dict[tuple[str, ...], list[Any]] = {}
        for detail in error.errors(include_url=False):
            # Where a value may be of several kinds, pydantic complains once for each, and puts its name for the kind
            # after the key.
            path = tuple(str(part) for part in detail["loc"] if not _KIND.fullmatch(str(part)))
            places.setdefault(path, []).append(detail)
        raise UsageError(where + " ".join(_complaint(list(path), found) for path, found in places.items())) from None


def with_settings(content: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """The content with settings of the form "section.key=value" put in.

    Raises:
        UsageError: one has no "=", or a value that is no YAML.
    """
    content = dict(content)
    for setting in settings:
        path, sign, text = setting.partition("=")
        keys = path.strip().split(".")
        if not sign or not all(keys):
            raise UsageError(f"--set takes section.key=value, such as rounds.rounds=4; got {setting!r}.")
        try:
            value = yaml.safe_load(text) if text.strip() else ""
        except yaml.YAMLError as error:
            raise UsageError(f"--set {path}: {text!r} is no YAML value: {one_line(error)}.") from error
        place = content
        for key in keys[:-1]:
            inner = place.get(key)
            place[key] = dict(inner) if isinstance(inner, Mapping) else {}
            place = place[key]
        place[keys[-1]] = value
    return content


def read_mapping(file: Path, keys: Iterable[str]) -> dict[str, Any]:
    """A YAML file's mapping.

    Args:
        keys: that it may have, for the message.

    Raises:
        BadFile: it is missing, or no mapping.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadFile(f"{file} cannot be read: {error.strerror}. Shipped: {', '.join(shipped_configs())}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadFile(f"{file} is no YAML: {one_line(error)}.") from error
    if not isinstance(content, dict):
        raise BadFile(f"{file} must be a mapping of sections ({', '.join(keys)}).")
    return content


_KIND = re.compile(r"(function|constrained)-.*|literal\[.*\]|int|float|str|bool")


def _complaint(path: list[str], details: list[Any]) -> str:
    """Pydantic's complaints about one place as a sentence: the key, what is wrong, and what is allowed."""
    key = ".".join(path) or "the configuration"
    detail = details[-1]
    if detail["type"] == "extra_forbidden":
        names = sorted(_keys(path[:-1]))
        nearest = get_close_matches(path[-1], names, n=1, cutoff=0.5)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        section = ".".join(part for part in path[:-1] if not part.isdigit())
        told = f"`{f'qcrd keys {section}'.strip()}` explains them."
        return f"Unknown key {key!r}.{hint} Allowed there: {', '.join(names)}. {told}"
    if detail["type"] == "missing":
        return f"{key} is missing."
    message = str(detail["msg"]).removeprefix("Value error, ").replace("a valid tuple", "a list, such as [a, b]")
    given = None if path[-1:] and path[-1] in NEVER_REPEATED else detail.get("input")
    if detail["type"] == "literal_error":
        words = str(detail["ctx"]["expected"])
        nearest = get_close_matches(
            str(given), [word.strip("' ") for word in words.replace(" or ", ",").split(",")], n=1
        )
        others = [str(other["msg"]).removeprefix("Input should be ").split(", unable")[0] for other in details[:-1]]
        others = [re.sub("^(?=greater|less)", "a number ", other) for other in others]
        return (
            f"{key}: {given!r} is not allowed."
            + (f" Did you mean {nearest[0]!r}?" if nearest else "")
            + f" Allowed: {', '.join([*others, words])}."
        )
    if detail["type"] == "model_type":
        return f"{key} is a section, with keys of its own ({', '.join(sorted(_keys(path)))}), not {given!r}."
    shown = "" if isinstance(given, (dict, list)) or given is None else f", not {given!r}"
    return f"{key}: {message}{shown}."


def _keys(path: list[str]) -> list[str]:
    """The keys allowed in a section."""
    kind: Any = DistillConfig
    for part in path:
        field = getattr(kind, "model_fields", {}).get(part)
        if field is None:
            continue  # a place in a list
        kind = model_in(field.annotation) or kind
    return list(kind.model_fields)


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model in an annotation such as `X | None` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = model_in(inner)
        if found is not None:
            return found
    return None
