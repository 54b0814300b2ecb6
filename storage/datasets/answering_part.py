"""Which part of a sampled text answers the question: what stands behind the thought and before the next question.

Teachers that reason write a draft first, "<think>So 48? No ...</think> She keeps 43." Base models go on with a question
of their own after the answer. Neither is the answer, and both are full of numbers and announcements.
"""

import re
import unicodedata

from storage.datasets.statements import find_statements
from storage.thoughts import split_thought

_END_MARK = re.compile(r"<\|(?:end|return|im_end|eot_id|endoftext|end_of_text|eom_id)\|>\s*$|</s>\s*$")

_NEXT_QUESTION = re.compile(
    r"^[ \t]{0,4}(?:#{1,6}[ \t]?|\*\*)?"
    r"(?:(?:Q|Question|Human|User|Frage|Pregunta|Domanda|Pergunta|Вопрос|问题|問題|질문)"
    r"[ \t]?(?P<number>\d{1,3})?\**[ \t]?[:：]"
    r"|Problem[ \t](?P<problem>\d{1,3})[:.]|#{1,6}[ \t]?(?:Instruction|Question|Problem)\b"
    r"|<\|im_start\|>user|<\|user\|>|<\|start_header_id\|>user|\[INST\])",
    re.MULTILINE,
)

_BLANK_LINE = re.compile(r"\n[ \t]*\n\s*$")
_GIVEN = re.compile(r"\W{0,5}(?:given|known|facts?|problem|gegeben|已知)\b", re.IGNORECASE)

# Full-width forms (Ｂ, ４, ：) and the digits of other scripts, each for one character, so that offsets stay.
_PLAIN = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20, 0x066B: 0x2E, 0x066C: 0x2C}
_PLAIN |= {
    code: ord("0") + unicodedata.decimal(chr(code))
    for code in (*range(0x660, 0x1_0000), *range(0x1_0000, 0x2_0000))
    if chr(code).isdecimal()
}


def answering_part(text: str) -> str | None:
    """The part of a text that answers, as it is written; None where the text breaks off inside its thought."""
    final = split_thought(text).final
    return None if final is None else _before_next_question(_END_MARK.sub("", final))


def plain_characters(text: str) -> str:
    """The text with full-width letters and the digits of every script as ASCII; as long as it was."""
    return text if text.isascii() else text.translate(_PLAIN)


def _before_next_question(text: str) -> str:
    """The text up to where it asks another question. One that it begins with is its own, repeated."""
    numbered = False
    for match in _NEXT_QUESTION.finditer(text):
        number = match["number"] or match["problem"]
        if not text[: match.start()].strip():
            numbered = number is not None
        elif not (number and numbered):  # "Question 1: ... Question 2: ...": a question taken apart
            before = text[: match.start()]
            # "Given: 8 apples. Question: How many are left?" repeats its own; what answers stands behind it.
            if find_statements(before) or (_BLANK_LINE.search(before) and not _GIVEN.match(text)):
                return before.rstrip()
    return text
