"""Charts as SVG that stands in an HTML page: no script, no font of its own, text that stays text.

Colours are those of Okabe and Ito, which people with any kind of colour blindness tell apart; every series also has
dashes and a marker of its own. Names are somebody else's texts, so all text is escaped here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from flows.report.document import escaped

COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("", "7 3", "2.5 2.5", "9 3 2 3", "5 2 1 2 1 2")
_MARKS = (
    '<circle cx="{x}" cy="{y}" r="3.4" {fill}/>',
    '<rect x="{x0}" y="{y0}" width="6.4" height="6.4" {fill}/>',
    '<path d="M{x} {top}l4.2 7.2h-8.4z" {fill}/>',
    '<path d="M{x} {top}l4.4 4.4l-4.4 4.4l-4.4 -4.4z" {fill}/>',
    '<path d="M{x} {bottom}l4.2 -7.2h-8.4z" {fill}/>',
)
LEFT, RIGHT, TOP, BOTTOM = 66, 24, 12, 42
"""Room around the drawing area, in the units of a chart's own size (pixels on a screen that shows it whole)."""

Point = tuple[float, float, float, float]
"""(x, y, lowest y, highest y)."""


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: for people who rest the pointer on it.
        style: its place among all variants; decides colour, dashes and marker.
        points: in order of x.
    """

    name: str
    style: int
    points: Sequence[Point]


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        label: what is measured, with its unit.
        percent: values are shares, 0 to 1.
        whole: ticks are whole numbers.
        least, most: ends that the axis has at least; None leaves them to the data.
    """

    label: str
    percent: bool = False
    whole: bool = False
    least: float | None = None
    most: float | None = None


def line_chart(title: str, series: Sequence[Series], x: Axis, y: Axis, width: int = 520, height: int = 300) -> str:
    """Lines with markers, each with a band from its lowest to its highest values."""
    area = _Area(
        [point[0] for one in series for point in one.points],
        [value for one in series for point in one.points for value in point[1:]],
        x, y, width, height,
    )  # fmt: skip
    bands = [_band(one, area) for one in series if any(low < high for _, _, low, high in one.points)]
    lines = [_line(one, area) for one in series]
    return _svg(title, width, height, [*area.frame(), *bands, *lines])


def step_chart(title: str, series: Sequence[Series], x: Axis, y: Axis, width: int = 520, height: int = 300) -> str:
    """Distributions as outlines of their bins; a point's x is the left end of its bin, the last one ends the axis."""
    area = _Area(
        [point[0] for one in series for point in one.points], [point[1] for one in series for point in one.points],
        x, y, width, height,
    )  # fmt: skip
    outlines = []
    for one in series:
        corners = [f"{area.x(one.points[0][0]):.1f},{area.y(0):.1f}"]
        for here, there in pairwise(one.points):
            corners += [f"{area.x(end):.1f},{area.y(here[1]):.1f}" for end in (here[0], there[0])]
        corners.append(f"{area.x(one.points[-1][0]):.1f},{area.y(0):.1f}")
        outlines.append(f"<g>{_title(one.name)}<polyline points='{' '.join(corners)}' {_stroke(one.style)}/></g>")
    return _svg(title, width, height, [*area.frame(), *outlines])


def interval_bar(mean: float, low: float, high: float, reach: float, style: int, width: int = 220) -> str:
    """A difference with its interval around zero, for a table's cell; `reach` is where the cell ends on both sides."""
    height, middle = 22, width / 2

    def place(value: float) -> float:
        return middle + max(-1.0, min(1.0, value / reach)) * (middle - 8)

    drawn = [
        f"<line x1='{middle}' x2='{middle}' y1='1' y2='{height - 1}' class='zero'/>",
        f"<line x1='{place(low):.1f}' x2='{place(high):.1f}' y1='11' y2='11' stroke='{_colour(style)}' "
        "stroke-width='2'/>",
        _mark(place(mean), 11, style),
    ]
    return _svg(f"{100 * mean:+.1f} points, {100 * low:+.1f} to {100 * high:+.1f}", width, height, drawn, "small")


def shares_bar(parts: Sequence[tuple[str, int, str]], width: int = 260) -> str:
    """Counts as parts of one bar: (name, count, colour)."""
    total, left, drawn = sum(count for _, count, _ in parts), 0.0, []
    for name, count, colour in parts:
        wide = width * count / total if total else 0
        drawn.append(
            f"<g>{_title(f'{name}: {count:,}')}<rect x='{left:.1f}' y='1' width='{wide:.1f}' height='20' "
            f"fill='{colour}'/></g>"
        )
        left += wide
    return _svg(", ".join(f"{count:,} {name}" for name, count, _ in parts), width, 22, drawn, "small")


def bars(rows: Sequence[tuple[str, Sequence[tuple[str, float, str]]]], unit: str, width: int = 520) -> str:
    """Horizontal bars in parts: (name, parts as (name, value, colour)); the sum stands behind each bar."""
    room, height = 150, 26
    most = max((sum(value for _, value, _ in parts) for _, parts in rows), default=0.0) or 1.0
    drawn = []
    for row, (name, parts) in enumerate(rows):
        y, left = row * height, float(room)
        drawn.append(f"<text x='{room - 8}' y='{y + 17}' text-anchor='end'>{escaped(_short(name, 18))}</text>")
        for part, value, colour in parts:
            wide = (width - room - 100) * value / most
            told = _title(f"{name}, {part}: {value:,.1f} {unit}")
            drawn.append(
                f"<g>{told}<rect x='{left:.1f}' y='{y + 4}' width='{wide:.1f}' height='18' fill='{colour}'/></g>"
            )
            left += wide
        total = sum(value for _, value, _ in parts)
        drawn.append(f"<text x='{left + 6:.1f}' y='{y + 17}'>{_number(total)} {escaped(unit)}</text>")
    return _svg(unit, width, height * len(rows), drawn)


def swatch(style: int, *, marked: bool = True) -> str:
    """A short piece of a series' line, for the legend."""
    drawn = [f"<line x1='1' x2='39' y1='7' y2='7' {_stroke(style)}/>", _mark(20, 7, style) if marked else ""]
    return f"<svg class='swatch' viewBox='0 0 40 14' width='40' height='14' aria-hidden='true'>{''.join(drawn)}</svg>"


class _Area:
    """The drawing area of a chart: from values to places."""

    def __init__(self, xs: Sequence[float], ys: Sequence[float], x: Axis, y: Axis, width: int, height: int) -> None:
        self.width, self.height, self.x_axis, self.y_axis = width, height, x, y
        self.x_ticks, self.y_ticks = _ticks(xs, x), _ticks(ys, y)
        # The lines go to the right edge, wherever the last tick is.
        ends = [value for value in (x.least, x.most) if value is not None]
        self.x_ends = min([*xs, *ends], default=0.0), max([*xs, *ends], default=1.0)
        if self.x_ends[0] == self.x_ends[1]:
            self.x_ends = self.x_ticks[0], self.x_ticks[-1]
        self.x_ticks = [tick for tick in self.x_ticks if self.x_ends[0] <= tick <= self.x_ends[1] * (1 + 1e-9)]

    def x(self, value: float) -> float:
        first, last = self.x_ends
        return LEFT + (self.width - LEFT - RIGHT) * (value - first) / (last - first)

    def y(self, value: float) -> float:
        first, last = self.y_ticks[0], self.y_ticks[-1]
        return self.height - BOTTOM - (self.height - TOP - BOTTOM) * (value - first) / (last - first)

    def frame(self) -> list[str]:
        """Grid, ticks and labels."""
        bottom = self.height - BOTTOM
        drawn = []
        for value in self.y_ticks:
            y = self.y(value)
            drawn.append(f"<line x1='{LEFT}' x2='{self.width - RIGHT}' y1='{y:.1f}' y2='{y:.1f}' class='grid'/>")
            drawn.append(f"<text x='{LEFT - 6}' y='{y + 4:.1f}' text-anchor='end'>{_tick(value, self.y_axis)}</text>")
        for value in self.x_ticks:
            x = self.x(value)
            drawn.append(f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{bottom}' y2='{bottom + 4}' class='axis'/>")
            drawn.append(f"<text x='{x:.1f}' y='{bottom + 17}' text-anchor='middle'>{_tick(value, self.x_axis)}</text>")
        middle, centre = (TOP + bottom) / 2, (LEFT + self.width - RIGHT) / 2
        drawn += [
            f"<line x1='{LEFT}' x2='{self.width - RIGHT}' y1='{bottom}' y2='{bottom}' class='axis'/>",
            f"<text x='{centre:.1f}' y='{self.height - 6}' text-anchor='middle'>{escaped(self.x_axis.label)}</text>",
            f"<text x='14' y='{middle:.1f}' text-anchor='middle' transform='rotate(-90 14 {middle:.1f})'>"
            f"{escaped(self.y_axis.label)}</text>",
        ]
        return drawn


def _line(one: Series, area: _Area) -> str:
    places = [(area.x(x), area.y(y)) for x, y, _, _ in one.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    every = max(1, math.ceil(len(places) / 16))  # a marker at each of a hundred rounds would be a thick line
    marks = "".join(_mark(x, y, one.style) for x, y in places[::every])
    return f"<g>{_title(one.name)}<polyline points='{path}' {_stroke(one.style)}/>{marks}</g>"


def _band(one: Series, area: _Area) -> str:
    there = [f"{area.x(x):.1f},{area.y(high):.1f}" for x, _, _, high in one.points]
    back = [f"{area.x(x):.1f},{area.y(low):.1f}" for x, _, low, _ in reversed(one.points)]
    return f"<polygon points='{' '.join(there + back)}' fill='{_colour(one.style)}' fill-opacity='0.13'/>"


def _mark(x: float, y: float, style: int) -> str:
    places = {"x": x, "y": y, "x0": x - 3.2, "y0": y - 3.2, "top": y - 4.4, "bottom": y + 4.4}
    shown = {name: f"{value:.1f}" for name, value in places.items()}
    return _MARKS[style % len(_MARKS)].format(**shown, fill=f'fill="{_colour(style)}"')


def _stroke(style: int) -> str:
    dashes = DASHES[style % len(DASHES)]
    dashed = f" stroke-dasharray='{dashes}'" if dashes else ""
    return f"fill='none' stroke='{_colour(style)}' stroke-width='2'{dashed}"


def _colour(style: int) -> str:
    return COLOURS[style % len(COLOURS)]


def _svg(title: str, width: int, height: int, drawn: Sequence[str], kind: str = "chart") -> str:
    return (
        f"<svg class='{kind}' viewBox='0 0 {width} {height}' width='{width}' height='{height}' role='img' "
        f"aria-label='{escaped(title)}'>{''.join(drawn)}</svg>"
    )


def _title(text: str) -> str:
    return f"<title>{escaped(text)}</title>"


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _ticks(values: Sequence[float], axis: Axis) -> list[float]:
    """About five round numbers that hold all values."""
    low = min([*values, *([axis.least] if axis.least is not None else [])], default=0.0)
    high = max([*values, *([axis.most] if axis.most is not None else [])], default=1.0)
    if low == high:
        spare = 0.05 if axis.percent else 1.0
        low, high = (low, high + spare) if axis.whole or axis.least is not None else (low - spare, high + spare)
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    factors = (1, 2, 5, 10) if axis.whole else (1, 2, 2.5, 5, 10)
    step = next(factor * unit for factor in factors if factor * unit >= rough * 0.999)
    step = max(1.0, step) if axis.whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if axis.percent:
        first, last = max(0, first), min(math.floor(1 / step + 1e-9), last)
    return [place * step for place in range(first, max(last, first + 1) + 1)]


def _tick(value: float, axis: Axis) -> str:
    if axis.percent:
        return f"{100 * value:.3g} %"
    return _number(value)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"
