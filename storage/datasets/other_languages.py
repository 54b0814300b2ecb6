"""Finds sentences that announce an answer in other languages than English: "Die richtige Antwort ist B."

Only the announcement is told by its words. What is announced is a letter, a number or one of the dataset's own choices
and labels, which need no language.
"""

import re
from dataclasses import dataclass

# Most of these write 1.234,5; those that write 1,234.5 are in _POINT_DECIMALS.
_NOUN = (
    "antwort(?:en)?|lösung(?:en)?|réponses?|reponses?|respuestas?|respostas?|rispost[ae]|antwoord(?:en)?|svaret|svar|vastaus|odpowiedź|odpověď|odpoveď|"
    "válasz|răspunsul|răspuns|cevap|yanıt|jawaban(?:nya)?|jawapan(?:nya)?|đáp án|câu trả lời|ответ|відповідь|отговор|"
    "απάντηση|الإجابة|الجواب|پاسخ|उत्तर|คำตอบ"
)
# Few texts have one of these; looking for them is far cheaper than the pattern.
_ASCII_STEMS = (
    "antwoor",
    "antwort",
    "reponse",
    "respuesta",
    "resposta",
    "risposta",
    "svar",
    "vastaus",
    "cevap",
    "jawa",
)
_VERB = (
    "ist|sind|lautet|lauten|wäre|sei|est|sont|son|são|sono|zijn|serait|es|sería|é|seria|è|sarebbe|is|zou|är|er|on|to|brzmi|je|jest|este|là|είναι|هو|هي|है|คือ|"
    "adalah|ialah|это|—|–|-"
)
_NO = r"n['’]|(?:no|não|nao|non|nu|ne|nie|не)\s"  # "La respuesta no es B"
_SPACED = re.compile(
    rf"(?<!\w)(?:{_NOUN})\**(?:\s[^\W\d]{{1,14}}){{0,3}}?\s{{0,2}}\**(?:[:=]\**"
    rf"|\s(?P<no>{_NO})?(?:{_VERB})(?=[\s:(*])\s?:?)",
    re.IGNORECASE,
)
_UNSPACED = re.compile(
    r"(?:答案|答え|正解|解答|回答|정답|답)(?:应该|應該|应当|選項|选项)?(?:是|为|為|就是|选择|选|選|は|은|는|:|=)[\s:]{0,3}(?:选项|選項)?"
)
_THAI = re.compile(r"คำตอบ(?:ที่ถูกต้อง)?(?:คือ|:)\s{0,3}")
_POINT_DECIMALS = re.compile(r"उत्तर|الإجابة|الجواب|پاسخ|คำตอบ", re.IGNORECASE)
# "Die falsche Antwort ist": announces nothing.
_DENIED = re.compile(
    r"(?:falsch\w{0,2}|keine|andere|mauvaise|fausse|autre|incorrecta|errónea|errada|sbagliata|altra|verkeerde|foute"
    r"|fel|"
    r"неправильн\w{2}|неверн\w{2}|другой|错误的?|錯誤的?|不正确的?|틀린)\s?$",
    re.IGNORECASE,
)
_LEAD_IN = re.compile(
    r"(?:(?<!\w)(?:also|daher|somit|die|der|das|richtige|korrekte|donc|ainsi|la|le|bonne|correcte|por lo tanto|"
    r"entonces|el|correcta|portanto|logo|a|correta|quindi|pertanto|il|corretta|dus|het|juiste|правильный|итак"
    r"|поэтому)[\s,:]{1,2}|"
    r"所以|因此|正确的?|正確的?|最终|따라서|したがって|よって|正しい|[,，、])*$",
    re.IGNORECASE,
)
_WINDOW = 60  # characters before the noun that are looked at


@dataclass(frozen=True)
class Announcement:
    """Where an announcement begins and where what it says begins; whether its language writes 1.234,5."""

    start: int
    end: int
    comma_decimals: bool


def foreign_announcements(text: str, limit: int) -> list[Announcement]:
    """The announcements in other languages, in order; at most the last `limit` of each pattern."""
    if text.isascii():
        lowered = text.lower()
        if not any(stem in lowered for stem in _ASCII_STEMS):
            return []
    patterns = (_SPACED,) if text.isascii() else (_SPACED, _UNSPACED, _THAI)
    found = []
    for pattern in patterns:
        for match in list(pattern.finditer(text))[-limit:]:
            window = max(0, match.start() - _WINDOW)
            before = text[window : match.start()]
            if _DENIED.search(before):
                continue
            lead = _LEAD_IN.search(before)
            start = window + (lead.start() if lead else len(before))
            commas = pattern is _SPACED and not _POINT_DECIMALS.search(match.group())
            said = match.start("no") if pattern is _SPACED and match["no"] else match.end()
            found.append(Announcement(start, said, commas))
    return found
