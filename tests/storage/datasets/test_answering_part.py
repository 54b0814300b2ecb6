"""What of a text is the answer: not the draft before it, and not the next question."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.datasets.answering_part import answering_part, plain_characters
from storage.datasets.inference import NLI_LABELS
from storage.datasets.parsing import UNFINISHED_THOUGHT, parse_choice, parse_number


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>\nSo the answer is 30. No, 4 are lost.\n</think>\n\n30 - 4 = 26.", "26"),
        ("So the answer is 30? No, 4 are lost.</think>26", "26"),
        ("<think>30</think><think>or 31</think>It is 26.", "26"),
        ("<thinking>30?</thinking> 26", "26"),
        ("[THINK]30[/THINK]26", "26"),
        ("<|channel|>analysis<|message|>30?<|end|><|start|>assistant<|channel|>final<|message|>26.<|return|>", "26"),
        ("<think></think>26", "26"),
        ("3 < 4, so 26 are left.", "26"),
    ],
)
def test_the_answer_stands_behind_the_thought(text: str, answer: str) -> None:
    assert parse_number(text).answer == answer


@pytest.mark.parametrize(
    "text",
    [
        "<think>So the answer is 30.",
        "<|channel|>analysis<|message|>The answer is 30.",
        "The answer is 26.<think>Or is it 30",
    ],
)
def test_a_thought_without_an_end_has_no_answer(text: str) -> None:
    parsed = parse_number(text)
    assert (parsed.answer, parsed.parse_error) == (None, UNFINISHED_THOUGHT)
    assert parse_choice(text, ("30", "26")).parse_error == UNFINISHED_THOUGHT


def test_a_thought_alone_has_no_answer() -> None:
    assert parse_number("<think>So the answer is 30.</think>").answer is None
    assert NLI_LABELS.parse("<think>It is entailed.</think>\n\nneutral", ()).answer == "neutral"


@pytest.mark.parametrize(
    "next_question",
    [
        "Q: A boat holds 9. How many hold 18?\nA: 2",
        "Question: A boat holds 9.\nAnswer: 2",
        "Question 2: A boat holds 9.\nAnswer: 2",
        "### Question\nA boat holds 9.\n#### 2",
        "Human: And with 9?\n\nAssistant: So the answer is 2.",
        "User: And with 9?",
        "<|im_start|>user\n9 boats\n<|im_start|>assistant\n2",
        "### Instruction:\nCount 9 boats.\n\n#### 2",
    ],
)
@pytest.mark.parametrize("answer", ["#### 26", "30 - 4 = 26, so 26 are left.", "So the answer is 26."])
def test_what_follows_a_new_question_belongs_to_it(answer: str, next_question: str) -> None:
    parsed = parse_number(f"{answer}\n\n{next_question}")
    assert parsed.answer == "26"
    assert "boat" not in parsed.rationale


@pytest.mark.parametrize(
    "text",
    [
        "Question: 30 birds, 4 leave. How many stay?\nAnswer: 26",
        "Q: 30 birds, 4 leave?\nA: 30 - 4 = 26.\n\nQ: 9 birds?\nA: 2",
        "Question 1: How many birds came? 30.\nQuestion 2: How many stay? 26.",
    ],
)
def test_its_own_question_may_be_repeated_or_taken_apart(text: str) -> None:
    assert parse_number(text).answer == "26"


@given(st.text(max_size=200))
def test_plain_characters_keep_their_places(text: str) -> None:
    assert len(plain_characters(text)) == len(text)


@given(st.text(alphabet=st.characters(exclude_characters="<◁[#:：\n"), max_size=200))
def test_a_text_without_marks_stays(text: str) -> None:
    assert answering_part(text) == text
