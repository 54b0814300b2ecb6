"""The page of votes: one file that needs nothing else. Its script filters, searches and turns pages; texts stay so."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome

from benchmarks.screenshots import chromium
from flows.report import votes
from flows.report.votes import SCRIPT, Page, write_page
from flows.terminal import CONTROLS, inert
from storage.datasets.registry import get_dataset
from storage.errors import NothingToDo
from storage.store import Store
from storage.voted import Wanted
from storage.votes import VoteRule, vote
from tasks.teacher.recorded import import_recorded
from tests.flows.report.test_page import HOSTILE, Read

SVAMP = get_dataset("svamp")
SCRIPTS = [*HOSTILE, "</script><h1>owned</h1>", "<!--<script>", "\u2028alert(1)\u2029 ]]> \\u003c", '"}],"x":[{"y":"']
RULE = VoteRule(dataset="svamp")


def question(number: int, label: int | None, *answers: int | str, text: str = "") -> dict[str, Any]:
    return {
        "question": f"{text} What is {number} + 0?",
        "label": label,
        "samples": [
            {"teacher": f"big {text}", "text": f"{text} It is {answer}. So the answer is {answer}."}
            if isinstance(answer, int)
            else {"teacher": "big", "text": answer}
            for answer in answers
        ],
    }


QUESTIONS = [
    question(1, 1, 1, 1, 2),  # right
    question(2, 2, 3, 3, 2),  # wrong
    question(3, 3, 3, 4),  # a tie
    question(4, 4, "Who knows?", "Nobody."),  # no answer
    question(5, None, 5, 5),  # no label
    question(6, 6, "3 + 4 = 6. So the answer is 6.", 6, "Pears."),  # wrong arithmetic, and one without an answer
    *(question(number, number, number, number) for number in range(7, 40)),
]


def written(folder: Path, rows: list[dict[str, Any]], **wanted: Any) -> tuple[Path, Page]:
    """The page of a store with these questions."""
    folder.mkdir(exist_ok=True)
    file = folder / "samples.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    store = Store(folder / "store")
    import_recorded(store, SVAMP, str(file), "train")
    vote(store, SVAMP, RULE)
    page = write_page(store, SVAMP, Wanted(vote_id=RULE.vote_id, **wanted), folder / "page.html")
    return folder / "page.html", page


def data_of(text: str) -> list[dict[str, Any]]:
    found = re.search(r"<script type='application/json' id='data'>(.*?)</script>", text, re.DOTALL)
    assert found
    rows: list[dict[str, Any]] = json.loads(found[1])
    return rows


def test_the_page_runs_its_own_script_alone_and_loads_nothing(tmp_path: Path) -> None:
    file, _ = written(tmp_path, QUESTIONS)
    text = file.read_text(encoding="utf-8")
    read = Read(text.replace("<input", "<br").replace("checked>", ">"))  # void tags, too
    [policy] = re.findall(r"Content-Security-Policy' content=\"(.*?)\"", text)
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    assert policy == (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{digest}'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    assert text.count("<script") == 2
    assert f"<script>{SCRIPT}</script>" in text
    assert not [name for name in read.attributes if name.startswith("on") or name in ("src", "href", "style")]
    assert "url(" not in text
    assert "@import" not in text
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function\(", SCRIPT)


def test_hostile_texts_are_data(tmp_path: Path) -> None:
    rows = [question(number, number, number, number + 1, text=text) for number, text in enumerate(SCRIPTS)]
    pages = [written(tmp_path / name, some)[0] for name, some in (("plain", QUESTIONS), ("hostile", rows))]
    plain, text = (page.read_text(encoding="utf-8") for page in pages)
    assert not CONTROLS.search(text)
    without = [re.sub(r"(id='data'>).*?(</script>)", r"\1\2", one, flags=re.DOTALL) for one in (plain, text)]
    assert without[0].count("<") == without[1].count("<")
    found = data_of(text)
    for hostile in SCRIPTS:
        shown = inert(hostile).strip()
        [row] = [
            row for row in found if " ".join(row["question"].split()).startswith(" ".join(f"{shown} What".split()))
        ]
        assert {shown in one["model"] for one in row["samples"]} == {True}


def test_the_rows_say_what_the_vote_says(tmp_path: Path) -> None:
    file, page = written(tmp_path, QUESTIONS)
    rows = {row["question"].strip(): row for row in data_of(file.read_text(encoding="utf-8"))}
    assert (page.questions, page.left_out, len(rows)) == (39, 0, 39)
    right = rows["What is 1 + 0?"]
    assert (right["winner"], right["correct"], right["tally"], right["votes"], right["voters"]) == (
        "1", True, [["1", 2], ["2", 1]], 2, 3,
    )  # fmt: skip
    assert sorted(one["words"] for one in right["samples"]) == ["negative", "positive ×2", "same text as a positive"]
    assert [row["id"] for row in rows.values() if row["tie"]] == [rows["What is 3 + 0?"]["id"]]
    assert [one["text"] for one in rows["What is 4 + 0?"]["samples"]] == ["Who knows?", "Nobody."]
    mixed = rows["What is 6 + 0?"]
    assert (mixed["unparsed"], mixed["miscalculated"]) == (True, True)
    lead = " ".join(file.read_text(encoding="utf-8").split())
    assert "39 questions of <b>svamp</b>, voted on by 81 samples. The majority is right on" in lead
    assert "of 38 labelled questions" in lead


def test_a_page_that_is_full_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, page = written(tmp_path, QUESTIONS, limit=10)
    assert (page.questions, page.left_out) == (10, 29)
    assert "<b>Shown are 10 of 39 questions</b>" in file.read_text(encoding="utf-8")
    monkeypatch.setattr(votes, "BYTES", 3000)
    file, page = written(tmp_path, QUESTIONS)
    assert 0 < page.questions < 10
    assert page.left_out == 39 - page.questions
    assert "a page holds at most 0 MB" in file.read_text(encoding="utf-8")
    monkeypatch.setattr(votes, "QUESTIONS", 4)
    assert written(tmp_path, QUESTIONS, only="wrong")[1].left_out == 0
    with pytest.raises(NothingToDo):
        written(tmp_path, QUESTIONS, split="test")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """With a page whose first questions are QUESTIONS and whose last ones are hostile."""
    rows = [*QUESTIONS, *(question(100 + at, 1, 1, 1, 2, text=text) for at, text in enumerate(SCRIPTS))]
    file, _ = written(tmp_path_factory.mktemp("page"), rows)
    with chromium(1000) as opened:
        opened.get(file.as_uri())
        yield opened


def articles(browser: Chrome) -> list[str]:
    return list(browser.execute_script("return [...document.querySelectorAll('.asked')].map(one => one.textContent)"))


def status(browser: Chrome) -> str:
    return str(browser.execute_script("return document.getElementById('status').textContent"))


def pick(browser: Chrome, majority: str = "any", *, search: str = "", size: int = 20, **boxes: bool) -> list[str]:
    """Sets the controls as a person would, and returns the questions that are shown."""
    script = """
        const [majority, search, size, boxes] = arguments;
        document.querySelector(`input[value=${majority}]`).click();
        for (const name of ["unparsed", "miscalculated"]) {
            const box = document.getElementById(name);
            if (box.checked !== Boolean(boxes[name])) box.click();
        }
        const sizes = document.getElementById("size");
        sizes.value = String(size); sizes.dispatchEvent(new Event("change"));
        const field = document.getElementById("search");
        field.value = search; field.dispatchEvent(new Event("input"));
        const done = arguments[arguments.length - 1];
        setTimeout(done, 300);
    """
    browser.execute_async_script(script, majority, search, size, boxes)
    return sorted(text.strip() for text in articles(browser))


@pytest.mark.slow
def test_filters_and_search_find_what_they_say(browser: Chrome) -> None:
    every = len(QUESTIONS) + len(SCRIPTS)
    assert len(pick(browser)) == 20
    assert status(browser) == f"Questions 1 to 20 of {every}"
    assert pick(browser, "wrong") == ["What is 2 + 0?", "What is 4 + 0?"]
    assert pick(browser, "tie") == ["What is 3 + 0?"]
    assert pick(browser, "none") == ["What is 4 + 0?"]
    assert pick(browser, "unknown") == ["What is 5 + 0?"]
    assert pick(browser, unparsed=True) == ["What is 4 + 0?", "What is 6 + 0?"]
    assert pick(browser, unparsed=True, miscalculated=True) == ["What is 6 + 0?"]
    assert pick(browser, search="  is 17 +") == ["What is 17 + 0?"]
    assert pick(browser, search="PEARS") == ["What is 6 + 0?"]
    assert pick(browser, "wrong", search="pears") == []
    assert status(browser) == "No question is like that."


@pytest.mark.slow
def test_pages_turn_and_hold_every_question_once(browser: Chrome) -> None:
    every = len(QUESTIONS) + len(SCRIPTS)
    assert len(pick(browser, size=100)) == every
    seen = [*pick(browser)]
    button = "document.querySelector(`[data-step='${arguments[0]}']`)"
    for count in (20, every - 40):
        browser.execute_script(f"{button}.click()", 1)
        seen += [text.strip() for text in articles(browser)]
        assert len(articles(browser)) == count
    assert browser.execute_script(f"return {button}.disabled", 1)
    assert sorted(seen) == pick(browser, size=100)


@pytest.mark.slow
def test_a_browser_shows_hostile_texts_and_runs_nothing(browser: Chrome) -> None:
    shown = pick(browser, size=100)
    for text in SCRIPTS:
        assert [one for one in shown if inert(text).strip() in one], text
    browser.execute_script("document.getElementById('open').click()")
    assert browser.title == "svamp: questions and votes"
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.execute_script("return document.querySelectorAll('img, svg, link, iframe, h1').length") == 1
    assert browser.execute_script("return document.querySelectorAll('script').length") == 2
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]
    for width in (1000, 700, 360):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    # What is not ours cannot become HTML even if the script tried.
    blocked = "try { document.body.innerHTML = '<b>x</b>'; return 'written' } catch (error) { return error.name }"
    assert browser.execute_script(blocked) == "TypeError"
