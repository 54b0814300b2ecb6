"""Tells a teacher's thought from the final text behind it, where both come as one text.

Teachers that reason write a draft first: `<think>12 * 4 = 48 ...</think> So the answer is 43.` What stands in the draft
may be taken back later, so the answer is read from the final text alone. Where an endpoint sends the thought apart
(`reasoning_content` and its like), there is nothing to split.

Every pattern is anchored on literal characters and has bounded repetitions: time is proportional to the text's length.
"""

import re
from dataclasses import dataclass

_NAMES = r"(?i:\w{1,8}:)?(?i:think|thinking|thoughts?|reasoning|scratchpad)"
# Tags of DeepSeek, Qwen and most others; Magistral; Kimi-VL; Command A; OpenThoughts; PLaMo; Gemma 4; gpt-oss.
_OPENING = (
    rf"<{_NAMES}(?:\s[^<>]{{0,80}})?>",
    r"\[THINK\]",
    r"◁think▷",
    r"<\|START_THINKING\|>",
    r"<\|begin_of_thought\|>",
    r"<\|plamo:begin_think:plamo\|>",
    r"<\|channel>thought\b",
    r"<\|channel\|>(?:analysis|commentary)[^<]{0,80}<\|message\|>",
    r"\A\s{0,8}analysis(?=[A-Z])",  # gpt-oss, where the server took the marks out
    r"\A\s{0,8}Here(?: i|')s my thought process:(?=[\s\S]*Here(?: i|')s my response:)",  # Granite
)
_CLOSING = (
    rf"</{_NAMES}\s?>",
    r"\[/THINK\]",
    r"◁/think▷",
    r"<\|END_THINKING\|>",
    r"<\|end_of_thought\|>",
    r"<\|plamo:end_think:plamo\|>",
    r"<channel\|>",
    r"<\|channel\|>final[^<]{0,80}<\|message\|>",
)
# Words that a text may also hold for their own sake, so they close only what their counterpart opened.
_CLOSING_WORDS = re.compile(r"assistantfinal(?=[A-Z\d\s*\\])|Here(?: i|')s my response:")
_MARK = re.compile(rf"(?P<opening>{'|'.join(_OPENING)})|(?P<closing>{'|'.join(_CLOSING)})")
# Few texts hold one of these; looking for them is far cheaper than the pattern.
_HINTS = ("<", "THINK]", "◁")
_BEGINNING = re.compile(r"\s{0,8}(?:analysis|Here)")
# Marks around the parts of a text, which say nothing of their own.
_FRAME = re.compile(
    r"<\|(?:end|return|start|eot|im_end|START_RESPONSE|END_RESPONSE|START_TEXT|END_TEXT"
    r"|begin_of_solution|end_of_solution)\|>(?:assistant(?=\s{0,4}<|\s{0,4}\Z))?"
)
_WORD = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{2}|\w+")
EXPLAINS = 6
"""Words from which on a rationale explains something: "She keeps 43 apples" does not, "48 - 5 = 43, so she keeps 43"
does. Where a script sets no spaces, two characters are about a word."""


@dataclass(frozen=True)
class Split:
    """The parts of a sampled text.

    Attributes:
        thought: the draft, without its marks and the space around it; None where there is none.
        final: the text behind it (the whole text, as it is, where there is no thought); None where the thought was
            begun and never ended.
    """

    thought: str | None
    final: str | None


def split_thought(text: str) -> Split:
    """The thought and the final text of a sampled text.

    The final text stands behind the last mark that ends a thought. Where nothing stands there, it is what stands before
    the first thought: some teachers answer first. A closing mark needs no opening one: chat templates often write that
    one into the prompt.
    """
    if not (any(hint in text for hint in _HINTS) or _BEGINNING.match(text)):
        return Split(None, text)
    marks = [(match.start(), match.end(), match.lastgroup == "opening") for match in _MARK.finditer(text)]
    if marks and marks[0][2]:
        marks = sorted([*marks, *[(m.start(), m.end(), False) for m in _CLOSING_WORDS.finditer(text)][-1:]])
    if not marks:
        return Split(None, text)
    if marks[-1][2]:
        return Split(_outside(marks, text, 0, len(text)) or None, None)
    behind = marks[-1][1]
    if (final := _outside(marks, text, behind, len(text))) or not marks[0][2]:
        return Split(_outside(marks, text, 0, behind) or None, final)
    first = marks[0][0]
    return Split(_outside(marks, text, first, behind) or None, _outside(marks, text, 0, first))


def explains(rationale: str) -> bool:
    """Whether a rationale is more than an answer in a short sentence."""
    return len(_WORD.findall(rationale)) >= EXPLAINS


def _outside(marks: list[tuple[int, int, bool]], text: str, start: int, end: int) -> str:
    """A stretch of the text without the marks in it."""
    inside = [(from_, to) for from_, to, _ in marks if start <= from_ < end]
    edges = [start, *(edge for mark in inside for edge in mark), end]
    pieces = [text[edges[i] : edges[i + 1]] for i in range(0, len(edges), 2)]
    return "\n".join(kept for piece in pieces if (kept := _FRAME.sub("", piece).strip()))
