"""Part files as the first version of the schema wrote them, made without the store's own code.

The schemas are written out here, so that a change of `storage.schemas` cannot change them.
"""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.store import Store

_TARGETS = pa.list_(pa.struct([("sample_id", pa.string()), ("count", pa.int32())]))
_TIME = pa.timestamp("us", tz="UTC")
SCHEMAS = {
    "examples": pa.schema(
        [
            ("example_id", pa.string()),
            ("dataset", pa.string()),
            ("split", pa.string()),
            ("question", pa.string()),
            ("choices", pa.list_(pa.string())),
            ("label", pa.string()),
            ("extra", pa.string()),
            ("created_at", _TIME),
        ]
    ),
    "rationales": pa.schema(
        [
            ("sample_id", pa.string()),
            ("example_id", pa.string()),
            ("dataset", pa.string()),
            ("split", pa.string()),
            ("source", pa.string()),
            ("model", pa.string()),
            ("model_revision", pa.string()),
            ("round", pa.int32()),
            ("sample_index", pa.int32()),
            ("seed", pa.int64()),
            ("temperature", pa.float64()),
            ("top_p", pa.float64()),
            ("prompt_hash", pa.string()),
            ("text", pa.string()),
            ("rationale", pa.string()),
            ("rationale_hash", pa.int64()),
            ("answer", pa.string()),
            ("parse_error", pa.string()),
            ("finish_reason", pa.string()),
            ("prompt_tokens", pa.int32()),
            ("completion_tokens", pa.int32()),
            ("logprob", pa.float64()),
            ("created_at", _TIME),
            ("run_id", pa.string()),
        ]
    ),
    "votes": pa.schema(
        [
            ("vote_id", pa.string()),
            ("example_id", pa.string()),
            ("dataset", pa.string()),
            ("split", pa.string()),
            ("winner", pa.string()),
            ("n_sampled", pa.int32()),
            ("n_parsed", pa.int32()),
            ("n_votes", pa.int32()),
            ("share", pa.float64()),
            ("entropy", pa.float64()),
            ("tie", pa.bool_()),
            ("correct", pa.bool_()),
            ("n_correct", pa.int32()),
            ("positives", _TARGETS),
            ("negatives", _TARGETS),
            ("rule", pa.string()),
            ("created_at", _TIME),
            ("run_id", pa.string()),
        ]
    ),
    "scores": pa.schema(
        [
            ("sample_id", pa.string()),
            ("round", pa.int32()),
            ("run_id", pa.string()),
            ("dataset", pa.string()),
            ("split", pa.string()),
            ("score", pa.float64()),
            ("created_at", _TIME),
        ]
    ),
    "predictions": pa.schema(
        [
            ("example_id", pa.string()),
            ("model", pa.string()),
            ("split", pa.string()),
            ("dataset", pa.string()),
            ("answer", pa.string()),
            ("rationale", pa.string()),
            ("correct", pa.bool_()),
            ("created_at", _TIME),
            ("run_id", pa.string()),
        ]
    ),
    "runs": pa.schema(
        [
            ("run_id", pa.string()),
            ("dataset", pa.string()),
            ("state", pa.string()),
            ("config", pa.string()),
            ("versions", pa.string()),
            ("prefect_run_id", pa.string()),
            ("mlflow_run_id", pa.string()),
            ("created_at", _TIME),
        ]
    ),
    "figures": pa.schema(
        [
            ("run_id", pa.string()),
            ("name", pa.string()),
            ("dataset", pa.string()),
            ("value", pa.float64()),
            ("detail", pa.string()),
            ("created_at", _TIME),
        ]
    ),
    "judgements": pa.schema(
        [
            ("judgement_id", pa.string()),
            ("example_id", pa.string()),
            ("dataset", pa.string()),
            ("split", pa.string()),
            ("judge", pa.string()),
            ("judge_revision", pa.string()),
            ("first", pa.string()),
            ("second", pa.string()),
            ("prompt_hash", pa.string()),
            ("text", pa.string()),
            ("preferred", pa.string()),
            ("prompt_tokens", pa.int32()),
            ("completion_tokens", pa.int32()),
            ("created_at", _TIME),
            ("run_id", pa.string()),
        ]
    ),
    "chosen": pa.schema(
        [
            ("run_id", pa.string()),
            ("example_id", pa.string()),
            ("dataset", pa.string()),
            ("split", pa.string()),
            ("place", pa.int64()),
            ("choose", pa.string()),
            ("student", pa.string()),
            ("created_at", _TIME),
        ]
    ),
    "variants": pa.schema(
        [
            ("variant_id", pa.string()),
            ("example_id", pa.string()),
            ("dataset", pa.string()),
            ("split", pa.string()),
            ("kind", pa.string()),
            ("variant_index", pa.int32()),
            ("model", pa.string()),
            ("model_revision", pa.string()),
            ("prompt_hash", pa.string()),
            ("text", pa.string()),
            ("question", pa.string()),
            ("prompt_tokens", pa.int32()),
            ("completion_tokens", pa.int32()),
            ("created_at", _TIME),
            ("run_id", pa.string()),
        ]
    ),
    "forgotten": pa.schema(
        [
            ("example_id", pa.string()),
            ("question_id", pa.string()),
            ("dataset", pa.string()),
            ("split", pa.string()),
            ("chosen_by", pa.string()),
            ("state", pa.string()),
            ("rows", pa.string()),
            ("trainings", pa.list_(pa.field("element", pa.string()))),
            ("versions", pa.list_(pa.field("element", pa.string()))),
            ("forgotten_at", _TIME),
            ("created_at", _TIME),
        ]
    ),
    "audits": pa.schema(
        [
            ("example_id", pa.string()),
            ("answer", pa.string()),
            ("auditor", pa.string()),
            ("dataset", pa.string()),
            ("split", pa.string()),
            ("judged", pa.string()),
            ("verdict", pa.string()),
            ("right_answer", pa.string()),
            ("blind", pa.bool_()),
            ("created_at", _TIME),
        ]
    ),
}
FOLDERS = {
    "examples": "dataset=svamp/split=train",
    "rationales": "dataset=svamp/split=train/source=teacher",
    "votes": "dataset=svamp/split=train",
    "scores": "dataset=svamp/split=train",
    "predictions": "dataset=svamp/split=train",
    "runs": "dataset=svamp",
    "figures": "dataset=svamp",
    "judgements": "dataset=svamp/split=train",
    "chosen": "dataset=svamp/split=train",
    "variants": "dataset=svamp/split=train",
    "audits": "dataset=svamp/split=train",
    "forgotten": "dataset=svamp",
}
_OF_ITS_FOLDER: dict[str, Any] = {
    "dataset": "svamp",
    "split": "train",
    "source": "teacher",
    "created_at": datetime(2026, 11, 21, 8, 1, 2, tzinfo=UTC),
}
ROW: dict[str, Any] = {
    "example_id": "e0",
    "sample_id": "s0",
    "vote_id": "v0",
    "judgement_id": "j0",
    "variant_id": "a0",
    "run_id": "r0",
    "question": "Ann has 3 apples and buys 4. How many has she?",
    "choices": [],
    "label": "7",
    "extra": "{}",
    "model": "big",
    "round": 0,
    "sample_index": 0,
    "text": "She has 3 + 4 = 7. So the answer is 7.",
    "rationale": "She has 3 + 4 = 7.",
    "rationale_hash": 1,
    "answer": "7",
    "score": 0.5,
    "auditor": "Ann",
    "verdict": "right",
    "name": "agreement",
    "value": 0.5,
}
"""One row of every table; each takes the columns that it has."""


def write_part(store: Store, table: str, rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> str:
    """Writes rows, completed with what their folder says, as one part file; returns its path."""
    full = [{**_OF_ITS_FOLDER, **row} for row in rows]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(full, schema or SCHEMAS[table]), sink)
    known = len(store.files.sizes(table))
    path = f"{table}/{FOLDERS[table]}/part-20261121T080102-{known:04d}.parquet"
    store.files.publish("store.json", b'{"schema_version": 1}\n')
    store.files.publish(path, sink.getvalue())
    return path
