"""The row of a rationale, whoever wrote it: a teacher, somebody's recording of one, or a student."""

from typing import Any, Literal, TypedDict, Unpack

from storage.datasets.definition import Parsed
from storage.ids import rationale_hash
from storage.store import now

Source = Literal["teacher", "student", "recorded"]


class HowSampled(TypedDict, total=False):
    """What is known of how a text was sampled; what is left out is null. `storage.schemas` says what each is."""

    model_revision: str | None
    round: int
    seed: int
    temperature: float
    top_p: float
    prompt_hash: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
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
        example_id, dataset, split: the question.
        model: who wrote it.
        sample_index: which of the model's samples of this question it is, counted from 0.
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
