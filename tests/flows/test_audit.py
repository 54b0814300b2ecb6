"""`qcrd audit` at a real terminal: keys, what is shown, undo, resume."""

import json
import os
import pty
import select
import subprocess
import termios
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from flows.terminal import CONTROLS
from storage.store import Store
from tasks.watching import audit as audited
from tests.conftest import ROOT, Qcrd, figures, qcrd_command

QUESTIONS = 4
WAIT_S = 120
KEYS = "q quit"


class Terminal:
    """A person at a pseudo-terminal."""

    def __init__(self, home: Path, *arguments: object) -> None:
        self._end, other = pty.openpty()
        self._process = subprocess.Popen(
            qcrd_command(home, *arguments), stdin=other, stdout=other, stderr=other, cwd=ROOT,
            env={**os.environ, "COLUMNS": "300", "TERM": "dumb"}, start_new_session=True,
        )  # fmt: skip
        os.close(other)
        self.seen = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._end)

    def until(self, text: str) -> str:
        """Reads on until a text comes; returns what came up to it."""
        while text not in self.seen:
            ready, _, _ = select.select([self._end], [], [], WAIT_S)
            assert ready, f"no {text!r} in {self.seen!r}"
            try:
                self.seen += os.read(self._end, 65536).decode()
            except OSError as error:  # the process has ended
                raise AssertionError(f"no {text!r} in {self.seen!r}") from error
        before, _, self.seen = self.seen.partition(text)
        return before

    def press(self, keys: str) -> str:
        """Waits for a question, then presses keys as soon as they are read one by one; returns what was shown."""
        shown = self.until(KEYS)
        self.again(keys)
        return shown

    def again(self, keys: str) -> None:
        """Presses keys at the same question."""
        while termios.tcgetattr(self._end)[3] & termios.ICANON:
            assert self._process.poll() is None, self.seen
        os.write(self._end, keys.encode())

    def type(self, prompt: str, line: str) -> str:
        """Types a line after a prompt; returns what was shown before that."""
        shown = self.until(prompt)
        os.write(self._end, (line + "\n").encode())
        return shown

    def end(self) -> tuple[str, int]:
        """What is shown until it ends, and the exit code."""
        shown = self.seen
        while True:
            try:
                found = os.read(self._end, 65536)
            except OSError:
                break
            if not found:
                break
            shown += found.decode()
        return shown, self._process.wait()


@pytest.fixture
def voted(tmp_path: Path, qcrd: Qcrd, home: Path) -> Path:
    """A state folder with questions that have no label; the majority says 7 to each."""
    file = tmp_path / "samples.jsonl"
    rows = [
        {"question": f"Question {number} [bold red]x[/] \x1b[2J\x1b]0;owned\x07?",
         "samples": [{"teacher": "big", "text": f"It is 3 + 4 = {one}. So the answer is {one}."} for one in (7, 7, 8)]}
        for number in range(QUESTIONS)
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    qcrd("import", file, "--dataset", "svamp")
    qcrd("vote", "--dataset", "svamp")
    return home


def stored(home: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (
        Store(home / "store").query("SELECT * FROM audits WHERE verdict IS NOT NULL ORDER BY created_at").to_pylist()
    )
    return rows


def last_line(text: str, _choices: tuple[str, ...]) -> str:
    """A dataset's own parser."""
    return text.splitlines()[-1]


def audit(home: Path, *more: object) -> Terminal:
    return Terminal(home, "audit", "--dataset", "svamp", *more)


def test_keys_judge_and_the_next_session_goes_on(voted: Path, qcrd: Qcrd) -> None:
    with audit(voted) as person:
        first = person.press("r")
        assert "1 of 4" in first
        assert "answer: 7" in first
        assert "[bold red]x[/]" in first, "no markup"
        assert not CONTROLS.search(first.replace("\r\n", "\n")), "nor anything that the terminal acts on"
        assert "It is 3 + 4" not in first, "the explanation comes on demand"
        assert "2 of 4" in person.press("e")
        person.until("It is 3 + 4 = 7.")
        assert [row["verdict"] for row in stored(voted)] == ["right"], "at once"
        for keys in ("x", "\x1b[A", "rr"):
            person.again(keys)
            person.until("Press one key")
        person.again("w")
        assert "3 of 4" in person.press("b"), "what is no key, or several at once, judges nothing"
        assert "2 of 4" in person.press("t")
        person.type("The right answer", "lots")
        person.type("The right answer", " 9.0 ")
        assert "wrong; right is 9" in person.press("q")
        shown, code = person.end()
    assert code == 0
    assert "1 of 2 right: 50.0 % (9.5 to 90.5)." in shown
    assert "2 of 4 are left" in shown
    before = stored(voted)
    assert [(row["verdict"], row["right_answer"], row["auditor"], row["blind"]) for row in before] == [
        ("right", None, "", False), ("wrong", "9", "", False),
    ]  # fmt: skip

    with audit(voted) as person:
        assert "3 of 4" in person.press("c")
        assert "4 of 4" in person.press("\x03")
        shown, code = person.end()
    assert code == 130
    assert "1 could not be told" in shown
    with audit(voted) as person:
        assert "4 of 4" in person.press("b")
        assert "taken back" in person.press("r")
        person.press("r")
        shown, code = person.end()
    assert code == 0
    assert "3 of 4 right: 75.0 % (30.1 to 95.4)." in shown
    assert [row["verdict"] for row in stored(voted)] == ["right", "wrong", "right", "right"]
    done = qcrd("audit", "--dataset", "svamp", "--keep")
    assert done.stdout.strip() == "3 of 4 right: 75.0 % (30.1 to 95.4)."
    assert "4 questions got a gold label: " in " ".join(done.stderr.split())
    again = qcrd("audit", "--dataset", "svamp", "--keep")
    told = ["No question got a gold label.", "4 questions had this gold label already."]
    assert again.stderr.splitlines()[-2:] == told
    assert figures(qcrd("vote", "--dataset", "svamp", "--json"))["majority_accuracy"] == 0.75


def test_blind_hides_the_answer_until_the_person_has_one(voted: Path) -> None:
    with audit(voted, "--blind", "--by", "Ann", "--sample", 3) as person:
        assert "answer: 7" not in person.type("> ", "7")
        assert "answer: 7" in person.until("  right; right is 7")
        person.type("> ", "none")
        person.type("> ", "5")
        person.until("wrong; right is 5")
        person.type("> ", "<")
        person.until("taken back")
        person.type("> ", "?")
        person.until("cannot tell")
        person.type("> ", "\x04")
        shown, code = person.end()
    assert code == 0
    assert "1 of 1 right" in shown
    rows = [(row["verdict"], row["right_answer"], row["auditor"], row["blind"]) for row in stored(voted)]
    assert rows == [("right", "7", "Ann", True), ("unsure", None, "Ann", True)]


def test_of_free_text_the_person_says_whether_another_answer_is_right_too(
    tmp_path: Path, qcrd: Qcrd, home: Path
) -> None:
    definition = {
        "name": "free", "answers": "custom", "parser": "tests.flows.test_audit:last_line", "question": "{asked}",
        "fields": {"asked": "question"}, "splits": {"train": "samples.jsonl"},
    }  # fmt: skip
    (tmp_path / "free.yaml").write_text(json.dumps(definition))
    rows = [{"question": f"Why {n}?", "samples": [{"teacher": "big", "text": "Well.\nso"}]} for n in range(2)]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    qcrd("import", tmp_path / "samples.jsonl", "--dataset", tmp_path / "free.yaml")
    qcrd("vote", "--dataset", tmp_path / "free.yaml")
    with Terminal(home, "audit", "--dataset", tmp_path / "free.yaml", "--blind") as person:
        person.type("> ", "because")
        person.press("r")
        person.type("> ", "because")
        person.press("w")
        shown, code = person.end()
    assert code == 0
    assert "1 of 2 right" in shown
    assert [(row["verdict"], row["right_answer"]) for row in stored(home)] == [("right", None), ("wrong", "because")]


def test_who_stops_early_learns_of_what_came_before_alone(voted: Path, qcrd: Qcrd, tmp_path: Path) -> None:
    """Questions without an answer count from where they come in the sample on."""
    rows = [{"question": f"None {n}?", "samples": [{"teacher": "big", "text": "I do not know."}]} for n in range(6)]
    (tmp_path / "none.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    qcrd("import", tmp_path / "none.jsonl", "--dataset", "svamp")
    qcrd("vote", "--dataset", "svamp")
    found = audited.of_vote(Store(voted / "store"), "svamp", "train")
    items = audited.sampled(Store(voted / "store"), "svamp", "train", found, 10)
    answered = [place for place, item in enumerate(items) if item.answer is not None]
    assert len(items) == 10
    assert answered != [0, 1, 2, 3], "this would show nothing"
    for judged, place in enumerate(answered):
        told = figures(qcrd("audit", "--dataset", "svamp", "--json"))
        none = place - judged if judged else 0
        later = 10 - (place if judged else 0) - (4 - judged)
        assert (told["right"], told["none"], told["left"], told["later"]) == (judged, none, 4 - judged, later)
        with audit(voted) as person:
            assert f"  {items[place].example_id}" in person.press("r"), "in the sample's order"
            if judged < 3:
                person.press("q")
            shown, code = person.end()
        assert code == 0
        reached = answered[judged + 1] if judged < 3 else 10
        assert f"{judged + 1} of {reached} right: " in shown
        assert ("count once those before them are judged" in " ".join(shown.split())) == (reached + 3 - judged < 10)


def test_without_a_terminal_it_says_so_in_one_line(voted: Path, qcrd: Qcrd) -> None:
    done = qcrd("audit", "--dataset", "svamp", code=2)
    assert done.stdout == ""
    assert done.stderr == (
        "qcrd: Nothing of this sample has been judged yet, so there is no estimate. 4 are left to judge, which takes a "
        "terminal: this is none. --json prints what is known so far.\n"
    )
    told = figures(qcrd("audit", "--dataset", "svamp", "--json"))
    assert (told["sample"], told["left"], told["share"]) == (4, 4, None)
    nothing = qcrd("audit", "--dataset", "svamp", "--keep", "--json").stderr
    assert nothing.splitlines() == ["No question got a gold label: no right answer is known."]
    assert "There are no votes" in qcrd("audit", "--dataset", "svamp", "--split", "test", code=2).stderr
    assert "at least 1" in qcrd("audit", "--dataset", "svamp", "--sample", 0, code=2).stderr
    assert "champion, teacher" in qcrd("audit", "--dataset", "svamp", "--of", "me", code=2).stderr
    assert stored(voted) == []
