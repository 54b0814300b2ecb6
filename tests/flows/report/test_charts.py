"""Charts: well-formed, every series told apart in three ways, axes that hold the data."""

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.report.charts import (
    COLOURS,
    DASHES,
    Axis,
    Series,
    _ticks,
    bars,
    interval_bar,
    line_chart,
    shares_bar,
    step_chart,
    swatch,
)

SHARE = Axis("right", percent=True)
FIGURES = st.floats(-1e6, 1e6)


def drawn(svg: str) -> ElementTree.Element:
    """The chart, read as XML."""
    return ElementTree.fromstring(svg)  # noqa: S314 - our own


def numbers(points: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in points.split())]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 60))
def test_lines_and_bands_lie_within_the_chart(values: list[float], style: int) -> None:
    points = [(float(t), y, y / 2, (1 + y) / 2) for t, y in enumerate(values)]
    svg = drawn(line_chart("a", [Series("<b>", style, points)], Axis("round", whole=True), SHARE))
    lines = [*svg.iter("polyline"), *svg.iter("polygon")]
    assert len(lines) == 2
    for line in lines:
        for x, y in numbers(line.attrib["points"]):
            assert 0 <= x <= 520
            assert 0 <= y <= 300


@given(st.lists(FIGURES, min_size=1, max_size=20))
def test_ticks_hold_the_values_and_are_few(values: list[float]) -> None:
    found = _ticks(values, Axis("x"))
    spare = 1e-6 * (max(map(abs, values)) + 1)
    assert found[0] <= min(values) + spare
    assert found[-1] >= max(values) - spare
    assert 2 <= len(found) <= 8


def test_ticks_are_round() -> None:
    assert _ticks([0, 11], Axis("round", whole=True)) == [0, 5, 10, 15]
    assert _ticks([0, 1], Axis("round", whole=True)) == [0, 1]
    assert _ticks([0, 0], Axis("round", whole=True)) == [0, 1]
    assert [round(tick, 6) for tick in _ticks([0.412, 0.63], SHARE)] == [0.4, 0.45, 0.5, 0.55, 0.6, 0.65]
    assert _ticks([1.0, 1.0], SHARE)[-1] == 1
    assert _ticks([0.0, 0.0], SHARE)[0] == 0
    assert _ticks([0.5, 0.9], Axis("score", least=0.0, most=1.0)) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])


def test_the_higher_value_is_higher_on_the_page_and_the_later_more_to_the_right() -> None:
    points = [(0.0, 0.2, 0.2, 0.2), (1.0, 0.6, 0.6, 0.6)]
    svg = drawn(line_chart("a", [Series("one", 1, points)], Axis("round"), SHARE))
    [line] = svg.iter("polyline")
    (x0, y0), (x1, y1) = numbers(line.attrib["points"])
    assert x0 < x1
    assert y0 > y1
    assert not list(svg.iter("polygon")), "no band where there is no spread"


def test_series_are_told_apart_without_colours() -> None:
    assert len(set(COLOURS)) == len(COLOURS) == 7
    uncoloured = {swatch(style).replace(COLOURS[style % 7], "") for style in range(len(DASHES))}
    assert len(uncoloured) == len(DASHES)
    assert len({swatch(style) for style in range(35)}) == 35


def test_distributions_stand_on_the_axis() -> None:
    points = [(0.0, 0.25, 0.25, 0.25), (0.5, 0.75, 0.75, 0.75), (1.0, 0.0, 0.0, 0.0)]
    axes = Axis("score", least=0.0, most=1.0), Axis("share", percent=True, least=0.0)
    svg = drawn(step_chart("a", [Series("right", 1, points)], *axes))
    [outline] = svg.iter("polyline")
    corners = numbers(outline.attrib["points"])
    assert corners[0][1] == corners[-1][1] == 300 - 42
    assert [y for _, y in corners[1:5]] == [corners[1][1]] * 2 + [corners[3][1]] * 2
    assert corners[3][1] < corners[1][1]


def test_bars_are_as_long_as_what_they_count() -> None:
    svg = drawn(shares_bar([("wins", 30, "#000"), ("ties", 0, "#111"), ("losses", 10, "#222")], 400))
    assert [float(one.attrib["width"]) for one in svg.iter("rect")] == [300, 0, 100]
    assert drawn(shares_bar([("wins", 0, "#000")])) is not None
    chart = drawn(bars([("a & b", [("student", 30.0, "#000"), ("rest", 10.0, "#111")])], "seconds"))
    widths = [float(one.attrib["width"]) for one in chart.iter("rect")]
    assert widths[0] == pytest.approx(3 * widths[1], rel=0.01)
    assert "40 seconds" in "".join(chart.itertext())
    assert drawn(bars([("none", [("student", 0.0, "#000")])], "seconds")) is not None


def test_an_interval_lies_around_zero_as_it_should() -> None:
    svg = drawn(interval_bar(0.02, -0.01, 0.05, 0.05, 1, 200))
    zero, line = svg.iter("line")
    assert float(zero.attrib["x1"]) == 100
    assert (float(line.attrib["x1"]), float(line.attrib["x2"])) == pytest.approx((100 - 92 / 5, 192))
    assert svg.attrib["aria-label"] == "+2.0 points, -1.0 to +5.0"
