"""The row of a rationale, whether a teacher, a recording or a student is its source."""

from typing import Any, Literal, TypedDict, Unpack

from storage.datasets.definition import Parsed
from storage.ids import rationale_hash
from storage.store import now

Source = Literal["teacher", "student", "recorded"]


class HowSampled(TypedDict, total=False):
    """How a text was sampled, as far as it is known; `storage.schemas` describes each column. Missing keys are null."""

    model_revision: str | None
    round: int
    seed: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    token_ids: list[int]
    prompt_hash: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    reasoning_tokens: int | None
    thought: str | None
    rationale_from: str
    logprob: float | None
    run_id: str | None


def rationale_row(
    source: Source,
    *,
    sample_id: str,
    example_id: str,
    dataset: str,
    split: str,
    model: str,
    sample_index: int,
    text: str,
    parsed: Parsed,
    **how: Unpack[HowSampled],
) -> dict[str, Any]:
    """One row of the rationales table.

    Args:
        sample_id: from `storage.ids`.
        example_id, dataset, split: the question it explains.
        model: the teacher or student that wrote it.
        sample_index: counts the model's samples of this question from 0.
        text: exactly as sampled.
        parsed: what the dataset read from it.
    """
    return {
        "sample_id": sample_id,
        "example_id": example_id,
        "dataset": dataset,
        "split": split,
        "source": source,
        "model": model,
        "sample_index": sample_index,
        "text": text,
        "rationale": parsed.rationale,
        "rationale_hash": rationale_hash(parsed.rationale),
        "answer": parsed.answer,
        "parse_error": parsed.parse_error,
        "created_at": now(),
        **how,
    }
