"""The report: one file that needs nothing else, says what the result says, and shows hostile texts as what they are."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks.screenshots import chromium
from flows.report.document import escaped
from flows.report.page import page
from flows.terminal import CONTROLS, inert
from tasks.comparing.quality import COMPARED, QUALITIES
from tests.flows.report.made_up import contents

HOSTILE = [
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "</title></style></pre></details></body><h1>owned</h1>",
    "'><svg onload=document.title='owned'>",
    "\" onmouseover=\"document.title='owned'",
    "<a href='javascript:alert(1)'>click</a> <link rel=stylesheet href=//e.vil/x.css>",
    "&lt;b&gt; &amp; &#60;script&#62; <!-- ",
    "{{7*7}} ${7*7} url(http://e.vil/x.png) @import 'http://e.vil'",
    "\x1b[2J\x07\x9b31m \u202eevil\u2066 \x7f",
]
VOID = {"meta", "br"}
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "section", "h1", "h2", "h3", "p", "i", "b", "ul", "li", "br"),
    *(
        "div",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "small",
        "span",
        "figure",
        "figcaption",
        "details",
        "summary",
    ),
    *("dl", "dt", "dd", "pre", "svg", "g", "line", "polyline", "polygon", "rect", "circle", "path", "text"),
}


class Read(HTMLParser):
    """A page's tags, attributes and texts; fails where a tag is not closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.headings: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):  # type: ignore[union-attr]
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open[-1:] == ["h2"]:
            self.headings.append(data)


def test_it_needs_nothing_else_and_every_tag_is_closed() -> None:
    text = page(contents())
    read = Read(text)
    assert read.tags <= ALLOWED
    assert not [name for name in read.attributes if name.startswith("on") or name in ("src", "href", "xlink:href")]
    assert "default-src 'none'" in text
    assert "url(" not in text
    assert "@import" not in text
    assert read.headings == [
        "What may be said", "Variants", "Differences", "Rationales", "Chosen answers", "Preferred by a judge",
        "Round by round",
        "Training time", "The discriminator's scores", "Examples", "What was compared",
    ]  # fmt: skip
    assert "More training questions" in Read(page(contents(shares=(0.5, 1.0)))).headings


def test_it_says_what_the_result_says() -> None:
    made = contents()
    read = Read(page(made))
    words = " ".join(read.text.split())
    sentences = [one.sentence for one in made.result.differences] + [one.sentence for one in made.result.judged]
    assert len(sentences) == 7
    for sentence in sentences:
        assert sentence in words
    for row in made.result.variants:
        for interval in (
            *row.figures.values(),
            *(row.quality[name] for name in ("right_steps",) if name in row.quality),
        ):
            mean, low, high = (100 * value for value in interval)
            assert f"{mean:.1f} % {low:.1f} – {high:.1f}" in words
    of_rationales = made.result.rationales
    assert [(one.variant, one.figure) for one in of_rationales] == [
        (variant, quality) for quality in COMPARED for variant in ("qcrd", "divergence")
    ]
    titles = dict[str, str](QUALITIES.items())
    for one in of_rationales:
        assert f"{titles[one.figure]}{one.variant} − dss{100 * one.difference:+.1f}" in words
    assert "compared with the baseline dss on lab" in words
    assert "3 seeds on the same questions (1,998 to 2,000)" in words


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_texts_are_texts(hostile: str) -> None:
    plain, made = Read(page(contents("qcrd"))), contents(hostile, hostile)
    text = page(made)
    read = Read(text)
    assert (read.tags, read.headings) == (plain.tags, plain.headings)
    assert read.attributes == plain.attributes
    assert not CONTROLS.search(text)
    shown = re.sub(r"\s+", " ", inert(hostile)).strip()
    told = re.sub(r"\s+", " ", read.text)
    # title, heading, variants and their settings; of every example question, label, answer, teacher ...
    assert told.count(shown) > 60


def test_a_page_without_judge_discriminator_or_rationales_leaves_them_out() -> None:
    made = contents()
    bare = type(made)(
        config=made.config.model_copy(update={"judge": None}),
        result=made.result.model_copy(
            update={
                "judged": [],
                "variants": [row.model_copy(update={"quality": {}}) for row in made.result.variants],
            }
        ),
        dataset=made.dataset, trained_on=(10, 10), parameters=1, curves=made.curves, scores={}, examples=[], told={},
        chosen={},
    )  # fmt: skip
    read = Read(page(bare))
    assert read.headings == [
        "What may be said", "Variants", "Differences", "Round by round", "Training time", "What was compared",
    ]  # fmt: skip
    assert "on the same questions (10)" in read.text


@pytest.mark.slow
def test_a_browser_shows_it_whole_and_runs_nothing(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(page(contents("<img src=x onerror=\"document.title='owned'\">", HOSTILE[0])), encoding="utf-8")
    with chromium(1200) as browser:
        browser.get(file.as_uri())
        assert browser.title.startswith("lab: dss, <img")
        assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
        assert browser.execute_script("return document.querySelectorAll('script, img, link, iframe').length") == 0
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 1200
        assert browser.execute_script("return document.querySelectorAll('svg.chart').length") == 10
        # Nothing of a chart lies outside it.
        outside = """
            return [...document.querySelectorAll('svg.chart')].flatMap(svg => {
                const whole = svg.getBoundingClientRect();
                return [...svg.querySelectorAll('text, polyline, rect')].filter(one => {
                    const box = one.getBoundingClientRect();
                    return box.left < whole.left - 1 || box.right > whole.right + 1
                        || box.top < whole.top - 1 || box.bottom > whole.bottom + 1;
                }).map(one => one.outerHTML);
            })
        """
        assert browser.execute_script(outside) == []


def test_escaped() -> None:
    assert escaped("<a b='c\" & \x1b\u202e") == "&lt;a b=&#x27;c&quot; &amp; \ufffd\ufffd"


def test_it_shows_what_abstaining_gives() -> None:
    made = contents()
    read = Read(page(made))
    assert "Risk and coverage" in read.text
    assert "AURC" in read.text
    assert "answered" in read.text
    fewest = made.chosen["qcrd"][0]
    assert fewest.aurc == pytest.approx(0.28)
    assert fewest.coverage is not None
    assert f"{100 * fewest.coverage[0]:.1f}" in read.text
    earlier = {name: [replace(one, aurc=None, risks=(), coverage=None, risk=None) for one in several]
               for name, several in made.chosen.items()}  # fmt: skip
    old = Read(page(replace(made, chosen=earlier)))
    assert "Reliability" in old.text
    assert "AURC" not in old.text
    assert "Risk and coverage" not in old.text
