"""What the measurements found: printed row by row, and kept in FOLDER/results.json and FOLDER/results.md."""

import json
import time
from pathlib import Path
from typing import Any

Figure = str | int | float | bool | None


class Report:
    """Tables of figures, and the time that is left for more.

    Both files are written anew after every row, so that a run that is cut off loses no figure. A later run into the
    same folder replaces the tables that it fills and keeps the others.

    Args:
        folder: for the two files; created if missing.
        seconds: time limit of the whole run.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._json, self._markdown = folder / "results.json", folder / "results.md"
        self._until = time.monotonic() + seconds
        self._started = time.monotonic()
        self._tables: dict[str, list[dict[str, Figure]]] = {}
        self._notes: dict[str, list[str]] = {}
        if self._json.is_file():
            before = json.loads(self._json.read_text(encoding="utf-8"))
            self._tables, self._notes = before["tables"], before["notes"]
        self._own: set[str] = set()  # tables of this run
        self.failed = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._started

    def allows(self, seconds: float) -> bool:
        """Whether so many seconds are left."""
        return time.monotonic() + seconds < self._until

    def row(self, table: str, **figures: Figure) -> None:
        """Adds a row to a table, which begins with its first row."""
        self._open(table)
        self._tables[table].append(figures)
        print(f"{table}: " + ", ".join(f"{name} {_shown(value)}" for name, value in figures.items()), flush=True)
        self._write()

    def note(self, table: str, text: str) -> None:
        """A sentence below a table."""
        self._open(table)
        self._notes[table].append(text)
        print(f"{table}: {text}", flush=True)
        self._write()

    def check(self, table: str, what: str, value: float, limit: float) -> None:
        """A row that passes where the value is at most the limit; NaN fails."""
        passed = value <= limit
        self.failed += not passed
        self.row(table, what=what, value=value, limit=limit, result="PASS" if passed else "FAIL")

    def _open(self, table: str) -> None:
        if table not in self._own:
            self._own.add(table)
            self._tables[table], self._notes[table] = [], []

    def _write(self) -> None:
        kept: dict[str, Any] = {"tables": self._tables, "notes": self._notes}
        self._json.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        blocks = [_block(title, rows, self._notes[title]) for title, rows in self._tables.items()]
        self._markdown.write_text("\n".join(blocks), encoding="utf-8")


def _block(title: str, rows: list[dict[str, Figure]], notes: list[str]) -> str:
    """One table in Markdown; a figure that a row does not have is an empty cell."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"### {title}", ""]
    if rows:
        lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        cells = ([_shown(row.get(name, "")).replace("|", "\\|") for name in columns] for row in rows)
        lines += ["| " + " | ".join(row) + " |" for row in cells]
        lines.append("")
    lines += [f"{note}\n" for note in notes]
    return "\n".join(lines)


def _shown(value: Figure) -> str:
    """A figure for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.3g}"
    return "" if value is None else str(value)
