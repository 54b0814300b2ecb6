"""When a served distillation runs."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class When:
    """A schedule: an interval, or a cron expression.

    Attributes:
        timezone: of the cron expression.
        interval: time between two starts.
        cron: five fields, as cron(8) has them.
    """

    timezone: str
    interval: timedelta | None = None
    cron: str | None = None
