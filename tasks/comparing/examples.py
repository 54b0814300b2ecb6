"""Questions on which variants disagree, with what was said to them, for people to read."""

from collections.abc import Mapping
from dataclasses import dataclass

from storage.ids import content_id
from storage.schemas import EXAMPLES, RATIONALES
from storage.store import Store
from tasks.comparing.answers import Told


@dataclass(frozen=True)
class Shown:
    """A question to show.

    Attributes:
        example_id: its id.
        question: its text.
        choices: empty if there are none.
        label: the right answer; None if it is unknown.
        teacher: a rationale of a teacher's; a right one if there is one, None if none is stored.
    """

    example_id: str
    question: str
    choices: tuple[str, ...]
    label: str | None
    teacher: str | None


def disagreements(told: Mapping[str, Told], count: int) -> list[str]:
    """Ids of the questions that divide the variants most evenly into right and wrong, at most `count`.

    Args:
        told: what one training of each variant told. Questions about which all of them are right, or all wrong, come
            last; of equal ones a hash decides.
    """
    rights = [one.right["answers"] for one in told.values()]
    common = set.intersection(*(set(right) for right in rights)) if rights else set()

    def unevenness(example: str) -> int:
        return abs(2 * sum(right[example] for right in rights) - len(rights))

    return sorted(common, key=lambda example: (unevenness(example), content_id("shown", example)))[:count]


def shown(store: Store, partition: dict[str, str], examples: list[str]) -> list[Shown]:
    """The questions with these ids, in their order."""
    with store.connect() as con:
        rows = store.execute(
            con,
            f"SELECT e.example_id, e.question, e.choices, e.label, "
            f"arg_min(r.text, (r.answer IS DISTINCT FROM e.label, r.sample_id)) AS teacher "
            f"FROM {store.relation(EXAMPLES, partition)} e "
            f"LEFT JOIN (SELECT * FROM {store.relation(RATIONALES, partition)} WHERE source <> 'student') r "
            "ON r.example_id = e.example_id WHERE list_contains($1, e.example_id) GROUP BY ALL",
            [examples],
        ).to_pylist()
    found = {
        row["example_id"]: Shown(
            row["example_id"], row["question"], tuple(row["choices"]), row["label"], row["teacher"]
        )
        for row in rows
    }
    return [found[example] for example in examples]
