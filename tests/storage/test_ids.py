"""Content ids: the same for the same content, different for different content, in every process."""

import json

from hypothesis import given
from hypothesis import strategies as st

from storage.ids import ALPHABET, LENGTH, RowsId, content_id, example_id, rationale_hash, recorded_sample_id

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values, json_values)
def test_equal_content_and_only_equal_content_shares_an_id(one: object, other: object) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (content_id(one) == content_id(other)) == same
    assert len(content_id(one)) == LENGTH
    assert set(content_id(one)) <= set(ALPHABET)


def test_ids_are_the_same_in_every_version() -> None:
    """Ids are stored; a change here would make everybody's samples look missing."""
    assert content_id("example", 1, None) == "X2Vlki33AeWa"


def test_fields_do_not_run_into_each_other() -> None:
    assert example_id("a", "bc", "q", []) != example_id("ab", "c", "q", [])
    assert example_id("a", "b", "q", ["x", "y"]) != example_id("a", "b", "q", ["xy"])
    assert recorded_sample_id("e", "t", "text", 0) != recorded_sample_id("e", "t", "text", 1)


def test_a_rationale_is_its_words() -> None:
    assert rationale_hash("3 + 4  = 7.\n") == rationale_hash("3 + 4 = 7.")
    assert rationale_hash("3 + 4 = 8.") != rationale_hash("3 + 4 = 7.")
    assert -(2**63) <= rationale_hash("x") < 2**63


@given(st.lists(st.dictionaries(st.text(st.characters()), st.none() | st.integers() | st.lists(st.text())), max_size=4))
def test_the_id_of_rows_is_that_of_all_of_them_at_once(rows: list[dict[str, object]]) -> None:
    given_one_by_one = RowsId('training "set"')
    for row in rows:
        given_one_by_one.add(row)
    text = json.dumps(rows, ensure_ascii=False, sort_keys=True)
    assert given_one_by_one.id() == content_id('training "set"', text)
    given_one_by_one.add({"\ud800": '\n"'})  # the id so far leaves it open to more
    longer = json.dumps([*rows, {"\ud800": '\n"'}], ensure_ascii=False, sort_keys=True)
    assert given_one_by_one.id() == content_id('training "set"', longer)
