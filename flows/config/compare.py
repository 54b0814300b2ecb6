"""The configuration of `compare`: which methods, on what, how often."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flows.config.distill import DistillConfig, checked, content_of, read_mapping
from models.configs import NEW
from storage.errors import UsageError
from tasks.comparing.settings import JudgeSettings


class CompareConfig(BaseModel):
    """A comparison: every variant with every seed, on every fold and share of the training questions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str = Field(
        description="The configuration of `qcrd distill` that all variants share: a shipped one, or a file's path."
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="Sections and keys that win over the base, for all variants."
    )
    variants: dict[str, dict[str, Any]] = Field(
        min_length=2, description="Name of each variant, and the sections and keys that it alone has."
    )
    baseline: str = Field(description="The variant that the others are compared with.")
    seeds: int = Field(
        default=5, ge=1, description="Trainings of each variant. A seed decides weights, order, dropout and sampling."
    )
    folds: int | None = Field(
        default=None, ge=2, description="Folds of the training split, each of which is once the test questions."
    )
    shares: tuple[float, ...] = Field(
        default=(1.0,), description="Shares of the training questions (of `dataset.limit`) to compare on, 0 to 1."
    )
    part: Literal["validation", "test"] = Field(
        default="test",
        description="Questions that are compared. Choose between variants on `validation`, and read `test` once.",
    )
    equal: Literal["steps", "time"] = Field(
        default="steps",
        description="`steps`: all have the base's rounds. `time`: the baseline is trained again for each slower "
        "variant, with as many rounds as take as long, and the variant is compared with that.",
    )
    judge: JudgeSettings | None = Field(
        default=None, description="A model that is asked which rationales are better, a variant's or the baseline's."
    )
    side_by_side: int | None = Field(
        default=None, ge=1, description="Trainings at once; null takes as many as the machine has room for."
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.baseline not in self.variants:
            raise ValueError(f"baseline: {self.baseline!r} is no variant; there are {', '.join(self.variants)}")
        if not self.shares or any(not 0 < share <= 1 for share in self.shares):
            raise ValueError(f"shares must lie above 0 and be at most 1, not {list(self.shares)}")
        return self

    def cells(self, variant: str, rounds: int | None = None) -> Iterator["Cell"]:
        """All trainings of a variant, `rounds` in place of its own where given."""
        for share in self.shares:
            for seed in range(self.seeds):
                for fold in range(self.folds) if self.folds else (None,):
                    yield Cell(variant, share, seed, fold, rounds)

    def all_cells(self) -> list["Cell"]:
        """All trainings, seed by seed: a comparison that is stopped has all variants of the seeds that it came to."""
        alike = zip(*(self.cells(variant) for variant in self.variants), strict=True)
        return [cell for variants in alike for cell in variants]

    def distillation(self, cell: "Cell", base: dict[str, Any]) -> DistillConfig:
        """The configuration of one training.

        Args:
            cell: which one.
            base: the content of `base`.

        Raises:
            UsageError: a key or value is not allowed; names the variant.
        """
        content = merged(merged(base, self.settings), self.variants[cell.variant])
        content = merged(content, {"registry": {"register_model": False}, "compare": []})
        seeds: dict[str, Any] = {"optimisation": {"seed": cell.seed}, "discriminator": {"seed": cell.seed}}
        if content.get("student", {}).get("model") == NEW:
            seeds["student"] = {"new": {"seed": cell.seed}}
        content = merged(content, seeds)
        if cell.fold is not None:
            content = merged(content, {"dataset": {"folds": self.folds, "fold": cell.fold}})
        if cell.rounds is not None:
            content = merged(content, {"rounds": {"rounds": cell.rounds}})
        if cell.share < 1:
            limit = content.get("dataset", {}).get("limit")
            if limit is None:
                raise UsageError("shares below 1 need dataset.limit, of which they are shares.")
            content = merged(content, {"dataset": {"limit": max(1, round(cell.share * limit))}})
        config = checked(content, f"variant {cell.variant}: ")
        if config.teacher.budget is not None or config.variants.kinds:
            raise UsageError(
                f"variant {cell.variant}: a comparison asks all questions of its store and no others, so leave "
                "teacher.budget and the section variants out; benchmarks/choosing.py compares ways to choose."
            )
        return config


@dataclass(frozen=True)
class Cell:
    """One training of a comparison.

    Attributes:
        variant: its name.
        share: of the training questions.
        seed: of all that is random.
        fold: which one is the test set; None without folds.
        rounds: how many in place of the configuration's; None for those.
    """

    variant: str
    share: float
    seed: int
    fold: int | None
    rounds: int | None = None

    def __str__(self) -> str:
        words = [self.variant, f"seed {self.seed}"]
        words += [f"{self.share:.0%} of the questions"] if self.share < 1 else []
        words += [f"fold {self.fold}"] if self.fold is not None else []
        words += [f"{self.rounds} rounds"] if self.rounds is not None else []
        return ", ".join(words)


def merged(content: dict[str, Any], wins: dict[str, Any]) -> dict[str, Any]:
    """Sections of both, key by key; a value of `wins` takes the place of another one."""
    result = dict(content)
    for key, value in wins.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return result


def load_comparison(file: Path) -> tuple[CompareConfig, dict[str, Any]]:
    """A comparison from a YAML file, and the content of its base.

    Raises:
        BadFile: the file, or its base, is missing or no YAML mapping.
        UsageError: a value is not allowed, in the comparison or in any variant.
    """
    content = read_mapping(file, CompareConfig.model_fields)
    try:
        config = CompareConfig.model_validate(content)
    except ValidationError as error:
        told = [f"{'.'.join(map(str, one['loc'])) or 'the comparison'}: {one['msg'].removeprefix('Value error, ')}"
                for one in error.errors(include_url=False)]  # fmt: skip
        raise UsageError(f"{file}: {'; '.join(told)}. Allowed: {', '.join(CompareConfig.model_fields)}.") from None
    base = content_of(config.base)
    for variant in config.variants:
        for cell in config.cells(variant):
            config.distillation(cell, base)
            break
    return config, base
