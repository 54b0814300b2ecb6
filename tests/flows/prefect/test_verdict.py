"""The gate's verdict as a page and as an event's payload."""

from dataclasses import replace

from flows.prefect.verdict import payload, verdict_markdown
from tasks.tracking.gate import Verdict, judge
from tasks.tracking.registry import Registered

CHALLENGER = Registered("qcrd-sums", "3", {"qcrd.student": "sums-qcrd-x@1"})


def verdict(both: int, only_challenger: int, only_champion: int, neither: int) -> Verdict:
    """The gate's, of so many questions."""
    rights = [(True, True)] * both + [(True, False)] * only_challenger
    rights += [(False, True)] * only_champion + [(False, False)] * neither
    challenger, champion = ({str(i): one[who] for i, one in enumerate(rights)} for who in (0, 1))
    judged = judge(challenger, champion)
    return replace(judged, against="2", moved=judged.promoted)


def test_the_page_has_the_table_of_who_was_right() -> None:
    lines = verdict_markdown(CHALLENGER, verdict(21, 60, 34, 1000)).splitlines()
    assert lines[0] == r"# qcrd\-sums version 3 is the champion"
    assert "- champion before: version 2" in lines
    assert "| 1,115 test questions | champion right | champion wrong |" in lines
    assert "| **challenger right** | 21 | 60 |" in lines
    assert "| **challenger wrong** | 34 | 1,000 |" in lines
    assert "- exact McNemar test: p = 0.0095; the champion is replaced at 0.05 or less" in lines


def test_worse_beyond_doubt_is_said_and_a_little_worse_is_not() -> None:
    worse, little = verdict(10, 2, 30, 10), verdict(10, 4, 6, 30)
    assert worse.dropped
    assert "worse than the champion" in verdict_markdown(CHALLENGER, worse)
    assert not little.dropped
    assert "worse than the champion" not in verdict_markdown(CHALLENGER, little)
    assert verdict_markdown(CHALLENGER, little).startswith(r"# qcrd\-sums version 3 does not become the champion")


def test_the_payload_says_who_is_champion_now() -> None:
    kept, moved = payload(CHALLENGER, verdict(10, 4, 6, 30)), payload(CHALLENGER, verdict(10, 40, 6, 30))
    assert (kept["champion"], kept["champion_before"], kept["neither"]) == ("2", "2", 30)
    assert (moved["champion"], moved["champion_before"]) == ("3", "2")
    first = replace(judge({"1": True}, None), moved=True)
    assert (payload(CHALLENGER, first)["champion"], payload(CHALLENGER, first)["champion_before"]) == ("3", None)
