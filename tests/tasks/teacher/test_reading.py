"""What is read from a teacher's sample: its thought, its rationale, its answer; and from a stored one, again."""

import asyncio
import json
from pathlib import Path
from typing import Any, get_args

import pytest
from aiohttp import web

from storage.datasets.parsing import UNFINISHED_THOUGHT
from storage.datasets.registry import get_dataset
from storage.schemas import RATIONALES
from storage.store import Store
from storage.votes import VoteRule, vote
from tasks.teacher.read_again import read_thoughts_again
from tasks.teacher.reading import CUT_OFF, ONLY_A_THOUGHT, Rationale, read_sample
from tasks.teacher.recorded import import_recorded
from tests.models.endpoint import serving
from tests.storage.first_schema import ROW, write_part
from tests.tasks.teacher.test_sampling import questions, sample

SVAMP, ESNLI = get_dataset("svamp"), get_dataset("esnli")
THOUGHT = "Ann has 9 nuts. So the answer is 9? She eats 4 of them: 9 - 4 = 5."
LONG = "Ann has 9 nuts and eats 4 of them, so 9 - 4 = 5 are left."


def read(text: str, **more: Any) -> tuple[str | None, str, str | None, str | None]:
    reading = read_sample(SVAMP, (), text, **more)
    return reading.thought, reading.parsed.rationale, reading.parsed.answer, reading.parsed.parse_error


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize(
    ("final", "rationale", "expected"),
    [
        (f"{LONG} So the answer is 5.", "auto", LONG),
        (f"{LONG} So the answer is 5.", "final", LONG),
        (f"{LONG} So the answer is 5.", "thought", THOUGHT),
        (f"{LONG} So the answer is 5.", "both", f"{THOUGHT}\n\n{LONG}"),
        ("So the answer is 5.", "auto", THOUGHT),
        ("5", "auto", THOUGHT),
        ("**5** nuts", "auto", THOUGHT),
        ("5", "final", ""),
        ("5", "both", THOUGHT),
    ],
)
def test_the_rationale_is_of_the_part_that_is_chosen_and_the_answer_of_the_final_text(
    final: str, rationale: Rationale, expected: str, apart: bool
) -> None:
    text, given = (final, THOUGHT) if apart else (f"<think>\n{THOUGHT}\n</think>\n\n{final}", None)
    assert read(text, thought=given, rationale=rationale) == (THOUGHT, expected, "5", None)


@pytest.mark.parametrize("rationale", get_args(Rationale))
def test_without_a_thought_nothing_is_read_in_another_way_than_before(rationale: Rationale) -> None:
    for text in ("5", f"{LONG} So the answer is 5.", "", "It cannot be said.", "9 - 4 = 5"):
        reading = read_sample(SVAMP, (), text, rationale=rationale, finish_reason="stop")
        assert (reading.thought, reading.parsed) == (None, SVAMP.parse(text, ()))


def test_a_label_is_read_behind_the_thought() -> None:
    reading = read_sample(ESNLI, (), "<think>Perhaps entailment? Nobody says so.</think>\n\nneutral")
    assert (reading.parsed.answer, reading.parsed.rationale) == ("neutral", "Perhaps entailment? Nobody says so.")


@pytest.mark.parametrize(
    ("text", "more", "answer", "reason"),
    [
        ("<think>So the answer is 9? Let me", {}, None, UNFINISHED_THOUGHT),
        ("<think>So the answer is 9.</think>", {}, None, ONLY_A_THOUGHT),
        ("", {"thought": THOUGHT}, None, ONLY_A_THOUGHT),
        ("", {"thought": THOUGHT, "finish_reason": "length"}, None, CUT_OFF),
        ("<think>So the answer is 9? Let me", {"finish_reason": "length"}, None, CUT_OFF),
        ("Ann has 9 nuts and 4 of", {"finish_reason": "length"}, None, CUT_OFF),
        ("Ann has 9 nuts and 4 of", {"finish_reason": "content_filter"}, None, CUT_OFF),
        ("", {"finish_reason": "length"}, None, CUT_OFF),
        ("So the answer is 1", {"finish_reason": "length"}, None, CUT_OFF),  # of 15, perhaps
        ("So the answer is 9? No. 9 - 4 = 5, and", {"finish_reason": "length"}, "9", None),
        ("9 - 4 = 5. So the answer is 5. This is", {"finish_reason": "length"}, "5", None),
        ("9 - 4 = 5. So the answer is 5.", {"finish_reason": "length"}, "5", None),
        ("9 - 4 = 5. #### 5\n", {"finish_reason": "length"}, None, CUT_OFF),
        ("It is \\boxed{5} because", {"finish_reason": "length"}, "5", None),
        ("9 - 4 = 5, and", {"finish_reason": "length"}, None, CUT_OFF),
        ("9 - 4 = 5, and", {"finish_reason": "stop"}, "5", None),
    ],
)
def test_a_text_that_is_not_finished_has_only_an_answer_that_it_announced(
    text: str, more: dict[str, Any], answer: str | None, reason: str | None
) -> None:
    assert read(text, **more)[2:] == (answer, reason)


def thinking(body: dict[str, Any]) -> web.Response:
    """A teacher that thinks, and whose third sample of a question is cut off."""
    messages: list[dict[str, Any]] = [{"content": "5", "reasoning_content": THOUGHT} for _ in range(body["n"])]
    messages[2] = {"content": None, "reasoning_content": "Ann has 9 nuts"}
    choices = [
        {"index": i, "finish_reason": "length" if i == 2 else "stop", "message": message}
        for i, message in enumerate(messages)
    ]
    details = {"reasoning_tokens": 60}
    usage = {"prompt_tokens": 11, "completion_tokens": 70, "completion_tokens_details": details}
    return web.json_response({"choices": choices, "usage": usage})


def test_thoughts_are_stored_counted_and_priced_and_another_choice_asks_for_nothing(tmp_path: Path, home: Path) -> None:
    async def scenario() -> None:
        prices = ("--price-prompt", 1, "--price-completion", 10, "--price-reasoning", 100, "--max-tokens", 64)
        async with serving(habit=thinking) as endpoint:
            file = questions(tmp_path, 2)
            code, out, err = await sample(home, endpoint, file, "--api", "chat", *prices)
            assert code == 0, err
            figures = json.loads(out)
            counts = ("sampled", "unparsed", "cut_off", "prompt_tokens", "completion_tokens", "reasoning_tokens")
            assert [figures[name] for name in counts] == [10, 2, 2, 22, 140, 120]
            assert figures["cost"] == pytest.approx((22 + 20 * 10 + 120 * 100) / 1e6)
            first = rows(home)
            assert {row["thought"] for row in first} == {THOUGHT, "Ann has 9 nuts"}
            assert {row["rationale"] for row in first if row["answer"]} == {THOUGHT}
            asked = len(endpoint.bodies)
            code, out, err = await sample(home, endpoint, file, "--api", "chat", *prices, "--rationale", "final")
            assert (code, len(endpoint.bodies)) == (0, asked)
            assert "10 stored samples with thoughts, or cut off, were read again" in err
            second = rows(home)
            assert {row["rationale"] for row in second} == {""}
            assert [row["sample_id"] for row in second] == [row["sample_id"] for row in first]
            code, _, err = await sample(home, endpoint, file, "--api", "chat", *prices, "--rationale", "final")
            assert "read again" not in err

    asyncio.run(scenario())


def rows(home: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Store(home / "store").query("SELECT * FROM rationales ORDER BY sample_id").to_pylist()
    return found


def test_what_an_older_version_stored_is_read_again_only_where_it_was_misread(tmp_path: Path) -> None:
    """Ordinary samples stay as they are; their ids, with those of the others, too."""
    store = Store(tmp_path)
    write_part(store, "examples", [ROW])
    parsed = {"model": "big", "rationale": "old", "answer": "0", "parse_error": None, "finish_reason": "stop"}
    texts = {
        "ordinary": {"text": "9 - 4 = 5. So the answer is 5."},
        "of thinking": {"text": "I think of thoughts. So the answer is 5."},
        "new": {"text": "Ann has 9 nuts and 4", "finish_reason": "length", "rationale_from": "auto"},
        "thought": {"text": "<think>So the answer is 9?</think>9 - 4 = 5 nuts are left for Ann. So the answer is 5."},
        "cut off": {"text": "Ann has 9 nuts and 4", "finish_reason": "length"},
    }
    rows_of_both = [{**ROW, **parsed, "sample_id": key, **more} for key, more in texts.items()]
    write_part(store, "rationales", [row for row in rows_of_both if "rationale_from" not in row])
    write_part(store, "rationales", [row for row in rows_of_both if "rationale_from" in row], RATIONALES.schema)
    before = store.query("SELECT * FROM rationales ORDER BY sample_id").to_pylist()
    assert read_thoughts_again(store, SVAMP, "train", [ROW["example_id"]], "big", "auto") == 2
    after = store.query("SELECT * FROM rationales ORDER BY sample_id").to_pylist()
    told = {row["sample_id"]: (row["thought"], row["rationale"], row["answer"], row["parse_error"]) for row in after}
    assert told["thought"] == ("So the answer is 9?", "9 - 4 = 5 nuts are left for Ann.", "5", None)
    assert told["cut off"] == (None, "Ann has 9 nuts and 4", None, CUT_OFF)
    same = ("ordinary", "of thinking", "new")
    assert [row for row in after if row["sample_id"] in same] == [row for row in before if row["sample_id"] in same]
    assert read_thoughts_again(store, SVAMP, "train", [ROW["example_id"]], "big", "auto") == 0


def test_a_cut_off_text_votes_for_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    file = tmp_path / "recorded.jsonl"
    samples = [
        {"text": "9 - 4 = 5. So the answer is 5.", "finish_reason": "stop"},
        {"text": "Ann has 9 nuts. Of these 4", "finish_reason": "length"},
        {"text": "5", "reasoning_content": THOUGHT},
    ]
    file.write_text(json.dumps({"question": "Ann has 9 nuts and eats 4. Left?", "label": "5", "samples": samples}))
    import_recorded(store, SVAMP, str(file), "train")
    again = import_recorded(store, SVAMP, str(file), "train", rationale="final")
    assert (again.added, again.changed) == (0, 1)
    import_recorded(store, SVAMP, str(file), "train")
    vote(store, SVAMP, VoteRule(dataset="svamp"))
    [row] = store.query("SELECT * FROM votes").to_pylist()
    assert (row["winner"], row["n_sampled"], row["n_parsed"], row["share"]) == ("5", 3, 2, 1.0)
    assert (len(row["positives"]), row["negatives"]) == (2, [])
