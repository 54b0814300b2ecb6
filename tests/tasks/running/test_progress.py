"""The line of a step's progress."""

import pytest

from tasks.running.progress import progress_line
from tasks.running.progress_file import LiveStep


@pytest.mark.parametrize(
    ("state", "note", "line"),
    [
        (LiveStep(done=0, wanted=1500), "", "x: 0 of 1,500"),
        (LiveStep(done=30, wanted=120, seconds_left=42.4), "loss 0.5", "x: 30 of 120, loss 0.5, about 42 s left"),
        (
            LiveStep(done=4855, wanted=7500, tokens_per_second=8757.2, cost=0.01234, seconds_left=600),
            "", "x: 4,855 of 7,500, 8,757 tokens/s, cost 0.0123, about 10 min left",
        ),
        (LiveStep(done=1, wanted=9, seconds_left=9000), "", "x: 1 of 9, about 2.5 h left"),
        (LiveStep(done=9, wanted=9, seconds_left=0.0), "", "x: 9 of 9"),
    ],
)  # fmt: skip
def test_it_says_what_is_known(state: LiveStep, note: str, line: str) -> None:
    assert progress_line("x", state, note) == line
