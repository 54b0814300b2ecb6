"""What people found to be the right answers (`qcrd audit`)."""

from storage.schemas import AUDITS
from storage.store import Store


def audited_answers(store: Store, partition: dict[str, str]) -> dict[str, str]:
    """example id -> the right answer, where a person typed one or judged one right; without those on which people
    differ."""
    with store.connect() as con:
        rows = store.execute(
            con,
            "SELECT example_id, min(known) AS answer FROM (SELECT example_id, coalesce(right_answer, "
            f"CASE WHEN verdict = 'right' THEN answer END) AS known FROM {store.relation(AUDITS, partition)}) "
            "WHERE known IS NOT NULL GROUP BY example_id HAVING count(DISTINCT known) = 1",
        )
    return dict(zip(rows["example_id"].to_pylist(), rows["answer"].to_pylist(), strict=True))
