"""Whether an answer is right, by a question's label."""

import json
from collections.abc import Mapping
from typing import Any

from storage.datasets.definition import Dataset


def judged_by_label(dataset: Dataset, row: Mapping[str, Any], answer: str | None) -> bool:
    """Whether an answer is right.

    Args:
        row: with `label` and `extra`, as `tasks.training.training_set.judged_questions` gives them.
        answer: None is wrong.
    """
    return answer is not None and dataset.equal(answer, row["label"], json.loads(row["extra"] or "{}"))
