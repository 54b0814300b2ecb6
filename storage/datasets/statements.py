"""Finds where a sampled text states its answer, and which part of the text is rationale.

A *statement* is a stretch of text that only announces the answer: "So the answer is (c) wooded area.", "The correct
answer is **neutral**.", "Answer: 42", "#### 42", "\\boxed{210}", "<answer>7</answer>", "Forest is the answer." A text
may have several ("Hence the answer is 2.\\nAnswer: 2"). This module finds them, in English; `other_languages.py` and
`json_in_text.py` find more. `numbers_in_text.py` and `options_in_text.py` read what they say.

Every pattern is anchored on a literal word and has bounded repetitions, so that even a hostile text takes time only in
proportion to its length.
"""

import re
from dataclasses import dataclass, replace

from storage.datasets.json_in_text import json_answers
from storage.datasets.other_languages import foreign_announcements

# Why a sample has no answer. Short, and never changed, since they are stored and counted.
NO_ANSWER = "no answer found"
SEVERAL_ANSWERS = "several answers named"
EMPTY_TEXT = "empty text"
UNFINISHED_THOUGHT = "thought not finished"
DENIED = "answer only denied"  # "The answer is not B."
NO_SINGLE_NUMBER = "no single number"  # a range, a list, a date, a time, two units, a formula with unknowns

NULL = "null"  # what a JSON object says that gives no answer
MAX_STATEMENTS = 64  # of each kind that are considered, from the end; ordinary texts have one to three
MAX_TAIL = 400  # characters read after "the answer is"; a statement is a sentence, not an essay


@dataclass(frozen=True)
class Statement:
    """One announcement of an answer.

    Attributes:
        start: offset in the text where the announcement begins ("So the answer ...").
        end: offset after its last character, full stop included.
        said: the words that name the answer, e.g. " (c) wooded area".
        strength: 2 for a mark meant for machines (####, \\boxed, <answer>, JSON), 1 for a sentence, 0 for a first line
            before "Rationale:".
        explanation: what a JSON object says beside its answer.
        only_letters: it counts only if it names a choice: "I would pick B".
        comma_decimals: it is in a language that writes 1.234,5.
    """

    start: int
    end: int
    said: str
    strength: int = 1
    explanation: str = ""
    only_letters: bool = False
    comma_decimals: bool = False


# "answer is", "answer: ", "answer would be", "answer choice is", "correct option is". _LEAD_IN then looks for the words
# before it (so, the, final ...), which is far cheaper than trying them at every position. Each alternative begins with
# a plain letter, for which Python looks much faster than for [Aa] or a word's boundary.
_ANNOUNCED = re.compile(
    r"(?P<noun>answers?|Answers?|ANSWER|Ans|choice|Choice|option|Option|conclusion|Conclusion|labels?|Labels?"
    r"|Prediction|Verdict"
    r"|Classification)\b\**"
    r"(?:\s{1,3}(?:choice|option|here|to (?:the|this) question))?"
    r"(?:\s{0,3}[(\[](?![A-Za-z][)\]])[^()\[\]\n]{1,60}[)\]])?"  # "the answer (yes or no) is"
    r"(?:\s{0,3}\**[:=]\**|\s{1,3}(?:is|are|would be|will be|should be|must be|was|were)\b:?"
    r"|(?=\s(?:(?:is|was|ca|could|would|are)n['’]t|cannot|can not|could not)\s))"
)
_LEAD_IN = re.compile(
    r"(?:\b(?:so|thus|hence|therefore|then|and|in conclusion|finally|overall|we conclude that|i think)\b,?:?\s{1,3})*"
    r"(?:\b(?:the|my|our|this|a)\s{1,3})?"
    r"(?:\b(?:final|correct|best|right|only|closest|(?:most|more) \w{2,12}|likely|logical|possible|appropriate)"
    r"\s{1,3}){0,3}$",
    re.IGNORECASE,
)
_LEAD_WINDOW = 80  # characters before the announcing word that _LEAD_IN sees
# "option is" alone is not an announcement, but "Label:" is where it begins a line.
_WEAK_NOUN = re.compile(r"choice|option|conclusion|label|prediction|verdict|classification", re.IGNORECASE)
_BEGINS_LINE = re.compile(r"(?:^|\n)[\s*#]{0,6}$")
_PRAISE = re.compile(r"\b(?:final|correct|best|right|only|closest|most \w{2,12})\s{1,3}$", re.IGNORECASE)
# "The possible answers are A, B and C": lists what is asked.
_LISTS_CHOICES = re.compile(
    r"\b(?:possible|available|given|following|candidate|remaining|potential|other|several|all|many|some|of|these"
    r"|both|any|their|plausible|likely)\s{1,3}(?:the\s)?$",
    re.IGNORECASE,
)
# "The wrong answer is", "to find the answer: ", "check your answer = ...": not announcements.
_DENIED = re.compile(
    r"\b(?:(?:wrong|incorrect|other|not|another|no|an)\s{1,3}(?:\w{1,12}\s{1,3})?"
    r"|(?:for|find|get|to|at|finding|getting|calculate|know|check|verify|given|this)\s{1,3}(?:(?:the|this|our|your"
    r"|an)\s{1,3}){0,2})$",
    re.IGNORECASE,
)
# "The most likely answer to the question 'Where ...?' is **(C) river**.": a quoted question comes between.
_ANNOUNCED_FAR = re.compile(r"\b(?P<noun>[Aa]nswer) (?:to|for) (?:the|this|that) (?!question (?:is|would)\b)")
_FAR_VERB = re.compile(r"\b(?:is|would be)(?: also| therefore| thus)?\b:?\s{1,3}(?=\*\*|\([A-Za-z]\))")
MAX_QUOTED = 700  # characters such a question may have
# "Forest is the answer."
_ANNOUNCED_BEHIND = re.compile(
    r"\s(?:is|would be|must be|are|seems to be)\s{1,3}(?:therefore |thus |clearly |likely )?(?:the|my)\s{1,3}"
    r"(?:(?:final|correct|best|right|only|closest|(?:most|more) \w{2,12}|likely|logical)\s{1,3}){0,3}"
    r"(?:answer|choice|option)\b(?!\s(?:is|for the|that))"
)
# "A: 43", but not where the choices are listed; "### Final answer", "**Answer**" above the answer.
_SHORT = re.compile(r"^\s{0,3}\**A\**:\**(?=\s)", re.MULTILINE)
_LISTED = re.compile(r"^\s{0,3}\**B\**:", re.MULTILINE)
_HEADING = re.compile(
    r"^\s{0,3}(?:#{1,6}\s{0,3}|\*\*)(?:the )?(?:(?:final|correct|my) )?answer:?\**:?\s{0,3}$",
    re.MULTILINE | re.IGNORECASE,
)
_BRACKETED = r"\**[(\[]?\**[A-Za-z]\**[)\]]?\**(?![\w'])"
# "I would pick B", "Option B is correct.", "Choice (b), the forest, is the best": a letter, or they announce nothing.
_PICKED = re.compile(
    r"\b(?:I|[Ww]e)(?:'d|'ll)?(?: would| will| am going to| must| have to)?(?: most likely| probably)? "
    rf"(?:pick|choose|select|go with|opt for|vote for) (?=(?:(?:option|choice|answer|letter) )?{_BRACKETED})"
)
_PICK_VERBS = (" pick ", " choose ", " select ", " go with ", " opt for ", " vote for ")
_JUDGED = re.compile(
    rf"(?P<said>(?:option|Option|choice|Choice|answer|Answer) {_BRACKETED}[^.;:\n]{{0,60}}?) "
    r"(?:is|must be|would be|seems|seems to be|appears to be) (?:(?:therefore|thus|clearly|likely|probably) )?"
    r"(?:the )?(?:most )?(?:correct|right|best|true|appropriate|logical|likely|suitable|accurate|fitting)\b"
)
_LABEL = r"\**(?:rationale|explanation|reasoning)\**\s?:"
_RATIONALE_LABEL = re.compile(rf"^\s{{0,8}}{_LABEL}\**\s{{0,8}}", re.IGNORECASE)
_FIRST_LINE = re.compile(rf"\s{{0,8}}([^\n:]{{1,80}})\n\s{{0,8}}(?={_LABEL})", re.IGNORECASE)
_BLANK = re.compile(r"\s{0,20}")
_FIRST_OF_A_LIST = re.compile(r"\s{0,20}(?<=\n)1[.)]\s{1,3}(?=\S)")  # "The answer is:\n1. entailment"
_ITEM = re.compile(r"\s{0,20}(?<=\n)[ \t]{0,8}(?:[-*•]|\d{1,2}[.)])[ \t]{1,4}")
_MORE_ITEMS = re.compile(r"(?:\n[ \t]{0,8}(?:[-*•]|\d{1,2}[.)])[ \t]{1,4}[^\n]{1,200}){1,20}")
_MACHINE_MARK = re.compile(
    r"####(?!#|\s{0,3}\**(?:Step|Part|Case|Method|Option|Choice)\b)|\\boxed\s?\{|\\fbox\s?\{|<answer>"
)
_PAIR = re.compile(r"(?<![\d,.])(\d{1,9}),(?=\d{1,2}(?![\d,.]))")  # \boxed{2,3} is a list; few box 2,5 for 2.5
MAX_BETWEEN = 60  # characters between two marks of one list
_BETWEEN_MARKS = re.compile(
    r"[\s$,;.&)\]*\\]{0,10}(?:(?:and|or|und|oder|et|ou|y|o)\b(?:\s{1,2}\$?[^\W\d_]{1,12}\$?){0,3}\s{0,2}=?)?[\s$(*]{0,6}"
)
# Not in "5! + 1", "1 hr. 20 min.", "5 ft. 6 in.".
_SENTENCE_END = re.compile(
    r"[.!?]+[*\"')\]]*(?=\s|$)(?!\s[+*/×÷=^]\s?[\d(])"
    r"(?!(?:(?<=\b(?:hr|ft|lb|oz|yr|mi|in|vs)\.)|(?<=\b(?:min|hrs|lbs|sec)\.))\s\d)|[。！？]|\n"
)
_CLOSING_DUST = " \t\r\n.*_`\"'!)]}$>\\。"


def find_statements(text: str, comma_decimals: bool = False) -> list[Statement]:
    """Every statement of the text, in order.

    Args:
        comma_decimals: numbers are known to be written as 1.234,5.
    """
    found = [
        *_first_line(text),
        *_marks(text, comma_decimals),
        *_sentences(text),
        *_sentences_behind(text),
        *_picks(text),
    ]
    fields = [
        Statement(answer.start, answer.end, NULL if answer.said is None else answer.said, 2, answer.explanation)
        for answer in json_answers(text, MAX_STATEMENTS)
    ]
    found += _joined(text, fields)
    if not found:
        found = [
            replace(_said_from(text, announced.start, announced.end), comma_decimals=announced.comma_decimals)
            for announced in foreign_announcements(text, MAX_STATEMENTS)
        ]
    return sorted(found, key=lambda statement: statement.start)


def by_trust(statements: list[Statement]) -> list[Statement]:
    """The strongest first; of equally strong ones, the last first."""
    return sorted(statements, key=lambda statement: (statement.strength, statement.start), reverse=True)


def rationale_of(text: str, statements: list[Statement]) -> str:
    """The text without the statements at its end and without a leading "Rationale:".

    Statements elsewhere are part of the argument and stay. A text that is only an answer gives "".
    """
    end = len(text)
    for statement in reversed(statements):
        if statement.start >= end:
            continue
        if text[statement.end : end].strip(_CLOSING_DUST):
            break
        end = statement.start
    if statements and statements[-1].explanation and not text[:end].strip():
        return statements[-1].explanation.strip()
    first = statements[0] if statements and statements[0].strength == 0 else None
    kept = text[first.end if first else 0 : end].strip()
    if end < len(text):
        kept = kept.rstrip(" \t\r\n,;:-*")
        if kept and kept[-1] not in ".!?)]}\"'":
            kept += "."
    return _RATIONALE_LABEL.sub("", kept, count=1).strip()


def split_sentences(text: str) -> list[str]:
    """The text in sentences. A line break ends one, too; so does the full stop of an abbreviation such as "St."."""
    out: list[str] = []
    position = 0
    for match in _SENTENCE_END.finditer(text):
        out.append(text[position : match.end()])
        position = match.end()
    out.append(text[position:])
    return [sentence for sentence in out if sentence.strip()]


def end_of_sentence(text: str, start: int) -> int:
    """Offset after the end of the sentence at `start`, at most MAX_TAIL further on."""
    match = _SENTENCE_END.search(text, start, min(len(text), start + MAX_TAIL))
    if match is None:
        return min(len(text), start + MAX_TAIL)
    # A line break is not part of the sentence.
    return match.start() if text[match.start()] == "\n" else match.end()


def _last(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    return list(pattern.finditer(text))[-MAX_STATEMENTS:]


def _first_line(text: str) -> list[Statement]:
    """Some teachers answer first: "(b) homely\\n\\nRationale: ..."."""
    match = _FIRST_LINE.match(text)
    return [Statement(0, match.end(), match.group(1), strength=0)] if match else []


def _marks(text: str, commas: bool) -> list[Statement]:
    marks = list(_last(_MACHINE_MARK, text))
    if not marks:
        return []
    # "Die Antwort ist \\boxed{2,5}": the language around the mark says what its comma is.
    commas = commas or any(announced.comma_decimals for announced in foreign_announcements(text, MAX_STATEMENTS))
    return _machine_marks(text, marks, commas)


def _machine_marks(text: str, marks: list[re.Match[str]], commas: bool) -> list[Statement]:
    out = []
    for match in marks:
        mark, start = match.group(), match.end()
        limit = min(len(text), start + MAX_TAIL)
        if mark == "####":
            end = text.find("\n", start, limit)
            end = limit if end < 0 else end
            out.append(Statement(match.start(), end, text[start:end], strength=2))
        elif mark == "<answer>":
            end = text.find("</answer>", start, limit)
            said_end = limit if end < 0 else end
            out.append(
                Statement(match.start(), said_end + len("</answer>") * (end >= 0), text[start:said_end], strength=2)
            )
        else:
            end = _closing_brace(text, start, limit)
            # Of "So the answer is $\\boxed{42}$." this is the second half; the sentence pattern finds the first.
            said = text[start:end] if commas else _PAIR.sub(r"\1, ", text[start:end])
            out.append(Statement(match.start(), min(end + 1, len(text)), said, strength=2))
    return _joined(text, [replace(mark, comma_decimals=commas) for mark in out])


def _joined(text: str, marks: list[Statement]) -> list[Statement]:
    """The marks, those that make one list as one: "\\boxed{5} and \\boxed{6}"."""
    out: list[Statement] = []
    for mark in marks:
        before = out[-1] if out else None
        between = text[before.end : min(mark.start, before.end + MAX_BETWEEN)] if before else ""
        apart = before is not None and before.end <= mark.start and before.said.strip() != mark.said.strip()
        if before and apart and _BETWEEN_MARKS.fullmatch(between):
            out[-1] = replace(before, end=mark.end, said=f"{before.said}, {mark.said}")
        else:
            out.append(mark)
    return out


def _closing_brace(text: str, start: int, limit: int) -> int:
    depth = 1
    for position in range(start, limit):
        if text[position] == "{":
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return position
    return limit


def _sentences(text: str) -> list[Statement]:
    out = []
    for match in _last(_ANNOUNCED, text):
        start = _announcement_start(text, match)
        if start is not None:
            out.append(_said_from(text, start, match.end()))
    for match in _last(_HEADING, text) if "nswer" in text else ():
        out.append(_said_from(text, match.start(), match.end()))
    for match in _last(_SHORT, text) if "A:" in text or "A*" in text else ():
        if not _LISTED.search(text):
            out.append(_said_from(text, match.start(), match.end()))
    reach = 0
    for match in _ANNOUNCED_FAR.finditer(text) if "nswer to " in text or "nswer for " in text else ():
        if match.start() < reach:
            continue  # so that a text of only these words takes time in proportion to its length
        reach = min(len(text), match.end() + MAX_QUOTED)
        verb = _FAR_VERB.search(text, match.end(), reach)
        start = _announcement_start(text, match)
        if verb is not None and start is not None:
            reach = verb.end()
            out.append(_said_from(text, start, verb.end()))
    return out


def _announcement_start(text: str, match: re.Match[str]) -> int | None:
    """Where "So the final answer ..." begins, given its noun; None if the words before it show that it is not one."""
    window_start = max(0, match.start() - _LEAD_WINDOW)
    before = text[window_start : match.start()]
    if before[-1:].isalnum():
        return None  # the end of another word
    if _DENIED.search(before):
        return None
    if match["noun"].endswith("s") and match.group().endswith(("are", "were")) and _LISTS_CHOICES.search(before):
        return None
    if _WEAK_NOUN.fullmatch(match["noun"]) and not _PRAISE.search(before):
        labelled = ":" in match.group() and match["noun"].lower() not in ("option", "conclusion")
        if not (labelled and _BEGINS_LINE.search(before)):
            return None
    supposed = text.rfind("or example, if", max(0, match.start() - MAX_QUOTED), match.start())
    if supposed >= 0 and not _SENTENCE_END.search(text, supposed, match.start()):
        return None  # "For example, if the premise were ..., then the answer is neutral."
    lead = _LEAD_IN.search(before)  # anchored at the end and possibly empty, so it always matches
    return window_start + (lead.start() if lead else len(before))


def _said_from(text: str, start: int, said_start: int) -> Statement:
    # "The answer is:\n\n42": the answer is on the next line that is not blank.
    blank = _BLANK.match(text, said_start)
    if listed := _FIRST_OF_A_LIST.match(text, said_start):
        blank, said_start = listed, listed.end()
    end = end_of_sentence(text, blank.end() if blank else said_start)
    more = _MORE_ITEMS.match(text, end) if "\n" in text[start:said_start] or _ITEM.match(text, said_start) else None
    if more is None:
        return Statement(start, end, text[said_start:end])
    return Statement(start, more.end(), _ITEM.sub("\n", text[said_start : more.end()]))


def _sentences_behind(text: str) -> list[Statement]:
    out = []
    for match in _last(_ANNOUNCED_BEHIND, text):
        window_start = max(0, match.start() - MAX_TAIL)
        before = text[window_start : match.start()]
        ends = [found.end() for found in _SENTENCE_END.finditer(before)]
        start = window_start + (ends[-1] if ends else 0)
        end = end_of_sentence(text, match.end())
        out.append(Statement(start, end, text[start : match.start()]))
    return out


def _picks(text: str) -> list[Statement]:
    out = []
    for match in _last(_PICKED, text) if any(verb in text for verb in _PICK_VERBS) else ():
        end = end_of_sentence(text, match.end())
        out.append(Statement(match.start(), end, text[match.end() : end], only_letters=True))
    for match in _last(_JUDGED, text) if any(noun in text for noun in ("ption ", "hoice ", "nswer ")) else ():
        end = end_of_sentence(text, match.end())
        out.append(Statement(match.start(), end, match["said"], only_letters=True))
    return out
