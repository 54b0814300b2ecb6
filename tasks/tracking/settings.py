"""How a student is registered and judged: the section `registry` of a distillation's configuration."""

import re

from pydantic import BaseModel, ConfigDict, Field, field_validator

CHAMPION = "champion"
"""The alias of the version to use."""
SCRATCH = "scratch"


class RegistrySettings(BaseModel):
    """The registered model.

    Attributes:
        name: in MLflow's registry; "qcrd-<dataset>" if left out.
        level: the gate moves `champion` where an exact McNemar test finds a better challenger at this level.
        register_model: false trains and evaluates only.
        start_from: what a training starts from: scratch (the configured student), champion (scratch, too, where there
            is none yet), or the number of a version.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = None
    level: float = Field(default=0.05, gt=0, lt=1)
    register_model: bool = True
    start_from: str = Field(default=SCRATCH, pattern=rf"^({SCRATCH}|{CHAMPION}|[1-9]\d*)$")

    @field_validator("name")
    @classmethod
    def _can_be_searched_for(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[^'\"`\\/:%\x00-\x1f\x7f]{1,250}", name):
            raise ValueError("it must be a name without quotes, control characters and any of / \\ : %")
        return name
