"""How a student is registered and judged: the section `registry` of a distillation's configuration."""

import re

from pydantic import BaseModel, ConfigDict, Field, field_validator

CHAMPION = "champion"
"""The alias of the version to use."""
SCRATCH = "scratch"


class RegistrySettings(BaseModel):
    """How the best student is registered, and how the gate judges it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = Field(default=None, description="Name in MLflow's registry; qcrd-<dataset> by default.")
    level: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Significance level of the gate: `champion` moves when an exact McNemar test finds the challenger "
        "better.",
    )
    risk: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Largest share of the student's answers that may be wrong, with 95 % certainty: it abstains where "
        "it is less sure than that takes (docs/trust.md). Half of the validation questions are kept for it. null never "
        "abstains.",
    )
    register_model: bool = Field(
        default=True, description="Register the best student; `false` only trains and evaluates."
    )
    start_from: str = Field(
        default=SCRATCH,
        pattern=rf"^({SCRATCH}|{CHAMPION}|[1-9]\d*)$",
        description="What a training starts from: `scratch` (the configured student), `champion` (`scratch` while "
        "there is none), or the number of a version.",
    )

    @field_validator("name")
    @classmethod
    def _can_be_searched_for(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[^'\"`\\/:%\x00-\x1f\x7f]{1,250}", name):
            raise ValueError("it must be a name without quotes, control characters and any of / \\ : %")
        return name
