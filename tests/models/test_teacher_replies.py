"""Replies as endpoints send them: thoughts apart from the text, parts, counts, errors in disguise."""

import json
from typing import Any

import pytest

from models.teacher import SamplingConfig, TeacherReply
from models.teacher_replies import ErrorInReplyError, NonsenseError, read_reply
from tests.models.endpoint import ask

CHAT = SamplingConfig(api="chat")
DRAFT, SAID = "2 * 3 = 6, and one more.", "So the answer is 7."


def read(*choices: dict[str, Any], n: int = 1, **more: Any) -> TeacherReply:
    request = ask(n=n)
    body = json.dumps({"choices": list(choices), **more}).encode()
    return read_reply(body, CHAT, request, {"seed": request.seed, "temperature": 0.7, "top_p": 1.0})


def message(**fields: Any) -> dict[str, Any]:
    return {"finish_reason": "stop", "message": {"role": "assistant", **fields}}


@pytest.mark.parametrize(
    "fields",
    [
        {"content": SAID, "reasoning_content": DRAFT},
        {"content": SAID, "reasoning": DRAFT},
        {"content": SAID, "reasoning_content": None, "reasoning": DRAFT},
        {"content": SAID, "reasoning_details": [{"type": "reasoning.text", "text": DRAFT}]},
        {"content": SAID, "reasoning_details": [{"type": "reasoning.summary", "summary": DRAFT}]},
        {"content": SAID, "thinking_blocks": [{"type": "thinking", "thinking": DRAFT, "signature": "x"}]},
        {"content": [{"type": "thinking", "thinking": DRAFT}, {"type": "text", "text": SAID}]},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": DRAFT}]},
                {"type": "text", "text": "So the answer "},
                {"type": "text", "text": "is 7."},
            ]
        },
        {"content": [{"type": "reasoning", "text": DRAFT}, {"type": "output_text", "text": SAID}]},
    ],
)
def test_a_thought_is_read_wherever_it_stands(fields: dict[str, Any]) -> None:
    [sample] = read(message(**fields)).samples
    assert (sample.thought, sample.text) == (DRAFT, SAID)


@pytest.mark.parametrize(
    ("fields", "text", "thought"),
    [
        ({"content": SAID}, SAID, None),
        ({"content": SAID, "reasoning": ""}, SAID, None),
        ({"content": None, "reasoning": DRAFT}, "", DRAFT),
        ({"reasoning": DRAFT}, "", DRAFT),
        ({"content": None, "tool_calls": []}, "", None),
        ({"content": []}, "", None),
        ({"content": ["So the ", "answer is 7."]}, SAID, None),
        ({"content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "", None),
    ],
)
def test_a_text_may_be_missing_or_in_parts(fields: dict[str, Any], text: str, thought: str | None) -> None:
    [sample] = read(message(**fields)).samples
    assert (sample.text, sample.thought) == (text, thought)


@pytest.mark.parametrize("fields", [{}, {"content": 7}, {"content": {"type": "image"}}])
def test_a_choice_without_a_text_is_nonsense(fields: dict[str, Any]) -> None:
    with pytest.raises(NonsenseError, match="a choice without a text"):
        read(message(**fields))


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 50}, (9, 50, 0)),
        (
            {"prompt_tokens": 9, "completion_tokens": 50, "completion_tokens_details": {"reasoning_tokens": 40}},
            (9, 50, 40),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 50, "reasoning_tokens": 40}, (9, 50, 40)),
        (  # thoughts that are counted beside the completion
            {
                "prompt_tokens": 9, "completion_tokens": 50, "total_tokens": 99,
                "completion_tokens_details": {"reasoning_tokens": 40},
            },
            (9, 90, 40),
        ),
        (None, (None, None, 0)),
        ({"prompt_tokens": 9}, (9, None, 0)),
    ],
)  # fmt: skip
def test_tokens_are_counted_as_far_as_they_are_told(usage: Any, counts: tuple[int | None, ...]) -> None:
    reply = read(message(content=SAID), usage=usage)
    assert (reply.prompt_tokens, reply.completion_tokens, reply.reasoning_tokens) == counts
    [sample] = reply.samples
    assert sample.completion_tokens == counts[1]


def test_tokens_of_a_thought_that_nobody_counts_are_not_known() -> None:
    reply = read(message(content=SAID, reasoning=DRAFT), usage={"prompt_tokens": 9, "completion_tokens": 50})
    assert reply.reasoning_tokens is None


def test_a_choice_that_failed_is_no_sample_and_the_others_keep_their_places() -> None:
    choices = [message(content=f"{i}") | {"index": i} for i in range(4)]
    choices[2] |= {"finish_reason": "error", "message": {"content": "half a"}}
    reply = read(*choices, n=4)
    assert [(sample.index, sample.seed, sample.text) for sample in reply.samples] == [
        (0, 100, "0"), (1, 101, "1"), (3, 103, "3"),
    ]  # fmt: skip
    assert [(part.first_index, part.n, part.seed) for part in ask(n=4).without({0, 1, 3})] == [(2, 1, 102)]


@pytest.mark.parametrize(
    "reply",
    [
        {"error": {"message": "upstream failed", "code": 502}, "choices": [message(content=None)]},
        {"error": "upstream failed"},
        {"choices": [message(content="") | {"finish_reason": "error"}]},
        {"choices": [message(content="half a") | {"error": {"message": "upstream failed"}}]},
    ],
)
def test_nothing_of_a_reply_with_an_error_is_a_sample(reply: dict[str, Any]) -> None:
    with pytest.raises(ErrorInReplyError):
        read_reply(json.dumps(reply).encode(), CHAT, ask(n=1), {})


def test_a_byte_order_mark_is_no_nonsense() -> None:
    body = b"\xef\xbb\xbf" + json.dumps({"choices": [message(content=SAID)]}).encode()
    assert read_reply(body, CHAT, ask(n=1), {}).samples[0].text == SAID
