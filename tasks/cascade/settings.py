"""How `qcrd answer` serves the champion before the teacher: the section `cascade` of a configuration."""

from pydantic import BaseModel, ConfigDict, Field


class CascadeSettings(BaseModel):
    """Who answers a question: the champion where it is sure enough, else the teacher, within a budget."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Which questions are passed on
    below: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Pass on what the champion is less sure of than this, 0 to 1; null passes on what it abstains from "
        "by its promise (`registry.risk`), or because it has learnt to (`method.abstain_below`).",
    )
    questions_a_day: int | None = Field(
        default=1000, ge=0, description="Questions that the teacher may be asked in a day (UTC); null for any number."
    )
    cost_a_day: float | None = Field(
        default=None, ge=0, description="What that may cost in a day, by `teacher.price`; null for any sum."
    )

    # The service
    wait_s: float = Field(
        default=60.0,
        gt=0,
        description="Seconds that the service waits for the teacher; later the question goes unanswered, but what the "
        "teacher says of it is stored.",
    )
    queue: int = Field(
        default=1024, ge=1, description="Questions that may wait for the champion; more are turned away with 503."
    )
    batch: int = Field(default=64, ge=1, description="Questions that the champion answers at once, at most.")
    look_s: float = Field(default=60.0, gt=0, description="Seconds between two looks for a new champion.")
