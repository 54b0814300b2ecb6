"""Three files such as people export them, and a stand-in for a teacher, for docs/own-data.md.

    python -m benchmarks.own_data                     # writes the files into the current folder, then serves
    python -m benchmarks.own_data --folder data --port 8765

The files are tickets with a class each (CSV), a German spreadsheet (CSV in Windows-1252 with semicolons) and documents
with any number of labels (JSONL). They are made up, and as untidy as such exports are: rows twice, cells left empty,
one class in several spellings. The teacher is no language model: it looks for words and says what they speak for, and
it is wrong in one text of six. So figures show that the way can be gone, and no quality.
"""

import argparse
import csv
import hashlib
import json
import random
import re
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

WRONG, WITHOUT_ANSWER = 0.16, 0.03
"""Shares of the teacher's texts."""
CUE = re.compile(r"\[(.+?)\]")

# Label -> what its texts say. The teacher looks for what stands in brackets.
TICKETS = {
    "Billing": (
        "Hello,\nwe were [charged twice] for {month}",
        "Hi team, [the invoice] for {month} lacks our VAT number",
        "Good morning, [a refund] for the {n} seats that we gave back is still open",
    ),
    "Outage": (
        "The page answers with [error 500] since {hour} o'clock, and {n} colleagues see the same",
        "The dashboard [does not load] since {hour} o'clock",
        'Everything "in the cloud" [is down] and {n} people cannot work',
    ),
    "Account": (
        "The [password] of {name} was reset {n} times and is refused",
        "{name} cannot [log in] with the new phone",
        "Our [two-factor] codes never reach {name}",
    ),
    "Feature request": (
        "It [would be great] to sort the list by {n} columns",
        "Hello,\n[could you add] an export for {month}?",
        "Nice tool, but [we miss] a dark page for the night shift of {name}",
    ),
}
ANFRAGEN = {
    "Buchhaltung": (
        "Mir wurden {euro} EUR [doppelt abgebucht], zuletzt im {monat}",
        "die [Rechnung] über {euro} EUR fehlt seit {monat}",
        "die [Gutschrift] über {euro} EUR ist nicht angekommen",
    ),
    "Versand": (
        "das [Paket] kam nach {n} Tagen und war geöffnet",
        "die [Lieferung] steht seit {n} Tagen in Köln",
        "die [Sendungsnummer] {n}4711 kennt niemand",
    ),
    "Technik": (
        "das Gerät [lässt sich nicht einschalten], seit {monat} schon",
        "die Lampe [blinkt rot], und nach {n} Minuten geht alles aus",
        "der Akku [wird zu heiß], schon nach {n} Minuten",
    ),
    "Kündigung": (
        "ich möchte zum {n}. {monat} [kündigen]",
        "unser [Vertrag] soll im {monat} enden",
        "ab {monat} wollen wir [nicht verlängern]",
    ),
}
BETREFFE = ("Frage", "Ärger", "Bitte um Prüfung", "Rückfrage")
DOCUMENTS = {
    "billing": (
        "Your [invoice] {n} shows a fee that nobody agreed to.",
        "We were [overcharged] by {n} dollars in {month}.",
        "The [payment] of {month} was taken from the wrong card.",
    ),
    "outage": (
        "The shop was [unreachable] for {n} hours in {month}.",
        "A [downtime] of {n} minutes stopped all our tills.",
        "The till software [crashed] {n} times before noon.",
    ),
    "privacy": (
        "The [personal data] of {n} customers was in the export.",
        "The [GDPR] asks you for an answer within {n} days.",
        "{name} wants all records about her to be [deleted].",
    ),
    "contract": (
        "Our [notice period] of {n} weeks begins in {month}.",
        "We do not want the [renewal] in {month}.",
        "As [clause] {n} says, the price is fixed.",
    ),
}
FILLING = (
    "We have worked with your company since {month} and were mostly content.",
    "The person on the telephone was friendly, took notes and promised that somebody would call back.",
    "Nobody called for {n} days, which is why I write this down now.",
    "Our office is open from eight to {hour}, and {name} can be asked about anything that is unclear.",
    "I attach the correspondence of the last weeks, in the order in which it came.",
    "Please understand that we have customers of our own who ask us the same questions every morning.",
    "My colleague {name} noticed it first, while looking for something else.",
    "This is not the first letter about it; the one before it had {n} pages and no reply.",
)
MONTHS = ("January", "March", "April", "June", "August", "October", "December")
MONATE = ("Januar", "März", "April", "Juni", "August", "Oktober", "Dezember")
NAMES = ("Ines", "Omar", "Petra", "Chen", "Zoë", "Jürgen")


def write_tickets(path: Path, count: int = 400) -> None:
    """Tickets of a help desk: a mark at the beginning, mixed headers, columns that nobody fills."""
    luck = random.Random(1)
    rows = []
    for number in range(count):
        label = luck.choice([*TICKETS, "Billing"])
        end = luck.choice(("", "\nThanks, {name}", " Please help!"))
        text = f"{_said(TICKETS[label], luck)}.{_filled(end, luck)}".replace("?.", "?")
        spelled = luck.choice((label, label, label, label.lower(), f"{label} ", label.upper()))
        day, minute = f"2024-0{luck.randint(1, 9)}-{luck.randint(10, 28)}", luck.randint(10, 59)
        rows.append([f"T-{1000 + number}", f"{day} 09:{minute}",
                     luck.choice(("Question", "Problem", "Help needed", "URGENT")), text, luck.choice(NAMES),
                     "" if luck.random() < 0.03 else spelled, "", ""])  # fmt: skip
    rows += luck.sample(rows, count // 40)  # exported twice
    header = ["Ticket ID", "created at", "Subject", "DESCRIPTION", "Assigned To", "Category", "Internal notes", ""]
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_anfragen(path: Path, count: int = 400) -> None:
    """A German spreadsheet, saved by an old program: Windows-1252, semicolons, decimal commas."""
    luck = random.Random(2)
    rows = []
    for number in range(count):
        label = luck.choice([*ANFRAGEN])
        text = luck.choice(("Guten Tag, {}. Viele Grüße", "{}; ich bitte um Rückruf.", "Es geht um Folgendes: {}!"))
        amount = "" if luck.random() < 0.5 else f"{luck.randint(5, 1900)},{luck.randint(10, 99)}"
        day, subject = f"{luck.randint(1, 28):02}.0{luck.randint(1, 9)}.2024", luck.choice(BETREFFE)
        rows.append([number + 1, day, luck.choice(NAMES), subject, text.format(_said(ANFRAGEN[label], luck)), amount,
                     "" if luck.random() < 0.03 else label, "", "", ""])  # fmt: skip
    rows += luck.sample(rows, count // 40)
    header = ["Nr.", "Eingang", "Bearbeiter/in", "Betreff", "Beschreibung des Problems", "Betrag (€)",
              "Zuständige Abteilung", "", "", ""]  # fmt: skip
    with path.open("w", encoding="cp1252", newline="") as file:
        csv.writer(file, delimiter=";").writerows([header, *rows, [""] * len(header)])


def write_documents(path: Path, count: int = 300) -> None:
    """Letters of any length with none, one or several labels; some were never labelled."""
    luck = random.Random(3)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            labels = luck.sample([*DOCUMENTS], luck.choice((0, 1, 1, 1, 2, 2, 3)))
            said = [_said(DOCUMENTS[label], luck) for label in labels]
            fill = luck.choices(FILLING, k=luck.choice((1, 2, 2, 3, 3, 4, 5, 6, 8, 50)))
            sentences = [*said, *(_filled(text, luck) for text in fill)]
            luck.shuffle(sentences)
            row: dict[str, Any] = {
                "doc_id": f"d{number:04}",
                "meta": {"source": luck.choice(("mail", "letter", "fax")), "pages": len(sentences) // 9 + 1},
                "title": luck.choice(("Complaint", "Our meeting", "Fwd: your letter", "Follow-up")),
                "text": " ".join(sentences),
                "labels": sorted(labels),
            }
            if luck.random() < 0.04:
                row["labels"] = None
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_files(folder: Path) -> None:
    """All three."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tickets(folder / "tickets.csv")
    write_anfragen(folder / "anfragen.csv")
    write_documents(folder / "documents.jsonl")


def explain(question: str, told: str, luck: random.Random) -> str:
    """What the stand-in says about a question.

    Args:
        told: the teacher's instruction, which lists the labels.
    """
    task: Mapping[str, tuple[str, ...]] = next(
        (labels for labels in (TICKETS, ANFRAGEN, DOCUMENTS) if all(label in told for label in labels)), TICKETS
    )
    cues = {cue: label for label, texts in task.items() for text in texts for cue in CUE.findall(text)}
    found = {label: cue for cue, label in cues.items() if cue in question}
    labels, several = [*found], task is DOCUMENTS
    if luck.random() < WRONG:
        other = luck.choice([*task])
        labels = [label for label in labels if label != other] if several and other in labels else [other]
    reasons = [
        f'"{found[label]}" speaks for {label}' if label in found else f"it sounds like {label}" for label in labels
    ]
    why = luck.choice(("", "Look at the words: ")) + (" and ".join(reasons) or "no word speaks for any of them") + "."
    why = why[0].upper() + why[1:]
    if luck.random() < WITHOUT_ANSWER:
        return f"{why} I would ask a colleague about this."
    return f"{why} So the answer is {', '.join(labels) or 'none'}."


class Standin(BaseHTTPRequestHandler):
    """An OpenAI-compatible endpoint: /v1/models and /v1/chat/completions."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer({"object": "list", "data": [{"id": "rules", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        told, question = body["messages"][0]["content"], body["messages"][-1]["content"]
        texts = [
            explain(question, told, random.Random(hashlib.sha256(f"{question}{body.get('seed')}{i}".encode()).digest()))
            for i in range(body.get("n") or 1)
        ]
        choices = [
            {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            for i, text in enumerate(texts)
        ]
        words = sum(len(text.split()) for text in texts)
        usage = {"prompt_tokens": len(f"{told} {question}".split()), "completion_tokens": words}
        self._answer({"object": "chat.completion", "model": "rules", "choices": choices, "usage": usage})

    def log_message(self, *_: Any) -> None:
        """Nothing is logged."""

    def _answer(self, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _said(texts: tuple[str, ...], luck: random.Random) -> str:
    return _filled(CUE.sub(r"\1", luck.choice(texts)), luck)


def _filled(text: str, luck: random.Random) -> str:
    return text.format(
        month=luck.choice(MONTHS), monat=luck.choice(MONATE), name=luck.choice(NAMES), n=luck.randint(2, 30),
        hour=luck.randint(8, 17), euro=f"{luck.randint(5, 1900)},{luck.randint(10, 99)}",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(), help="where the files are written (the current one)")
    parser.add_argument("--port", type=int, default=8765, help="of the teacher (%(default)s)")
    options = parser.parse_args()
    write_files(options.folder)
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Standin)
    print(f"Wrote tickets.csv, anfragen.csv and documents.jsonl. The teacher: --url http://127.0.0.1:{options.port}/v1 "
          "--model rules. Ctrl-C ends it.", flush=True)  # fmt: skip
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


if __name__ == "__main__":
    main()
