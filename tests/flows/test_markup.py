"""Whatever a text holds, it reaches Prefect's pages and the terminal as itself and does nothing there."""

import html
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console

from flows.prefect.report import LONGEST_SHOWN, escaped
from flows.terminal import CONTROLS, inert, plain, print_json
from storage.files import folder_name, folder_value

# Pieces that mean something somewhere, more often side by side than chance would put them.
PIECES = [
    *("<script>", "</", "<!--", "&lt;", "&#35;", "[x](javascript:y)", "![", "](", "http://e.vil", "www.e.vil", "a@b.c"),
    *("**", "`", "~~", "|", "\\", "- ", "1. ", "# ", "> ", "\n", "\n\n", "---", "===", "{{x}}", "$x$", "it's"),
    *("\x1b[31m", "\x9b2J", "\x00", "\u202e", "[red]", "[/]", "'; DROP TABLE", "../"),
]
HOSTILE = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=12).map("".join)
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def flat(tokens: list[Token]) -> list[Token]:
    return [inner for token in tokens for inner in [token, *flat(token.children or [])]]


@given(HOSTILE)
def test_markdown_shows_the_text_and_nothing_else(text: str) -> None:
    tokens = flat(MARKDOWN.parse(f"- round 0: {escaped(text)}"))
    kinds = {token.type for token in tokens}
    assert kinds <= {
        *("bullet_list_open", "list_item_open", "paragraph_open", "inline", "text", "text_special"),
        *("paragraph_close", "list_item_close", "bullet_list_close"),
    }
    shown = "".join(token.content for token in tokens if token.type in ("text", "text_special"))
    assert " ".join(shown.split()) == f"round 0: {inert(' '.join(text.split()))}".strip()


@given(HOSTILE)
def test_no_address_is_left_that_a_page_would_make_a_link_of(text: str) -> None:
    """What GitHub's kind of markdown adds: bare addresses, which hold a colon, a dot or an at sign."""
    assert not set(":.@") & set(re.sub(r"\\.", "", escaped(text)))


@given(HOSTILE)
def test_only_references_that_prefects_pages_turn_back_are_used(text: str) -> None:
    """They know &lt; &gt; &amp; (and quotes); any other would be shown as it is."""
    left = escaped(text).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert html.unescape(escaped(text).replace("\\", "")) == left.replace("\\", "")


def test_the_longest_text_is_cut_and_none_is_a_dash() -> None:
    assert len(escaped("x" * 1_000_000)) == LONGEST_SHOWN
    assert escaped(None) == "-"


@given(HOSTILE, st.booleans())
def test_a_terminal_shows_the_text_and_nothing_else(text: str, terminal: bool) -> None:
    stream = io.StringIO()
    Console(file=stream, force_terminal=terminal, width=10_000, color_system=None, highlight=False).print(plain(text))
    shown = stream.getvalue()
    assert not CONTROLS.search(shown)
    for mark in ("[red]", "[/]"):
        assert shown.count(mark) == text.count(mark)


@given(HOSTILE)
def test_json_is_the_text_and_nothing_that_a_terminal_acts_on(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stream = io.StringIO()
        patch.setattr("sys.stdout", stream)
        print_json({"text": text, text: 1})
    assert not CONTROLS.search(stream.getvalue())
    assert json.loads(stream.getvalue()) == {"text": text, text: 1}


@given(HOSTILE)
def test_a_value_stays_in_its_folder(value: str) -> None:
    name = folder_name("split", value)
    assert folder_value(name) == value
    assert "/" not in name
    assert name.isascii()
    assert name.isprintable()
    assert name.startswith("split=")
