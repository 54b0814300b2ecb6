"""The row of a rationale."""

from storage.datasets.definition import Parsed
from storage.ids import rationale_hash
from storage.rationales import HowSampled, rationale_row
from storage.schemas import RATIONALES


def test_a_row_has_every_column_once() -> None:
    row = rationale_row(
        "recorded", sample_id="s", example_id="e", dataset="svamp", split="train", model="m", sample_index=2,
        text="3 + 4 = 7. So the answer is 7.", parsed=Parsed("3 + 4 = 7.", "7", None), prompt_tokens=5,
    )  # fmt: skip
    assert (row["rationale"], row["answer"], row["parse_error"]) == ("3 + 4 = 7.", "7", None)
    assert (row["source"], row["prompt_tokens"], row["rationale_hash"]) == ("recorded", 5, rationale_hash("3 + 4 = 7."))
    always = set(row) - {"prompt_tokens"}
    assert sorted([*always, *HowSampled.__annotations__]) == sorted(RATIONALES.schema.names)
