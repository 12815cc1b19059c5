"""Line and bar charts as SVG: pure functions from numbers to text, dark and light, readable without a script.

The charts stand alone as files (an image of a README) and inside the report, whose script reads `data-chart` to show
values under the pointer.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 706, 34, 240
_MOST_POINTS = 1000
"""Largest number of points drawn for a series: more than the chart has columns of pixels."""

STYLE = (
    "svg.chart{font:12px system-ui,sans-serif}"
    ".chart text{fill:#57606a}.chart .title{fill:#1f2328;font-weight:600}"
    ".chart .grid{stroke:#d0d7de;stroke-width:1}.chart .cursor{stroke:#8c959f;stroke-dasharray:3 3}"
    ".chart .line{fill:none;stroke-width:1.8;stroke-linejoin:round}"
    ".chart .s0{stroke:#0969da}.chart .s1{stroke:#bc4c00}.chart .dot.s0,.chart .bar{fill:#0969da}"
    ".chart .dot.s1{fill:#bc4c00}"
    "@media screen and (prefers-color-scheme:dark){"
    ".chart text{fill:#9198a1}.chart .title{fill:#f0f6fc}.chart .grid{stroke:#3d444d}"
    ".chart .s0{stroke:#4493f8}.chart .s1{stroke:#f0883e}.chart .dot.s0,.chart .bar{fill:#4493f8}"
    ".chart .dot.s1{fill:#f0883e}}"
)
"""Style of all charts; its rules apply only inside a chart."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line: its name, and its points from left to right (finite numbers)."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A linear scale from values to places in the picture."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The place of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def line_chart(title: str, series: Sequence[Series], *, x_name: str = "step") -> str:
    """A chart of at most two lines over a common horizontal axis; lines without points are left out."""
    drawn = [Series(name=item.name, points=thinned(item.points, _MOST_POINTS)) for item in series if item.points]
    points = [point for item in drawn for point in item.points]
    across = _axis([x for x, _ in points], _LEFT, _RIGHT, tight=True)
    up = _axis([y for _, y in points], _BOTTOM, _TOP)
    body = [_grid(across, up, x_name), *(_line(item, index, across, up) for index, item in enumerate(drawn))]
    if len(drawn) > 1:
        body += [_key(item.name, index) for index, item in enumerate(drawn)]
    body.append(f'<line class="cursor" y1="{_TOP}" y2="{_BOTTOM}" visibility="hidden"/>')
    data = {
        "width": WIDTH,
        "axis": [across.low, across.high, across.start, across.end],
        "x": x_name,
        "series": [{"name": item.name, "points": item.points} for item in drawn],
    }
    return _svg(title, body, data)


def bar_chart(title: str, bars: Sequence[tuple[str, float]], *, x_name: str) -> str:
    """A chart of labelled bars from zero; every other label is left out where there are many."""
    up = _axis([0.0, *(height for _, height in bars)], _BOTTOM, _TOP)
    width = (_RIGHT - _LEFT) / max(1, len(bars))
    body = [_levels(up), _caption(x_name)]
    every = 1 + (len(bars) - 1) // 8 if bars else 1
    for index, (label, height) in enumerate(bars):
        x, top = _LEFT + index * width, up.at(height)
        body.append(
            f'<rect class="bar" x="{x + 1:.1f}" y="{top:.1f}" width="{max(1.0, width - 2):.1f}" '
            f'height="{up.at(0) - top:.1f}"><title>{escape(label)}: {number(height)}</title></rect>'
        )
        if index % every == 0:
            middle = x + width / 2
            body.append(f'<text x="{middle:.1f}" y="{_BOTTOM + 16}" text-anchor="middle">{escape(label)}</text>')
    return _svg(title, body, None)


def standalone(chart: str) -> str:
    """A chart as a file of its own, with the style in it."""
    head, separator, rest = chart.partition(">")
    return f"{head}{separator}<style>{STYLE}</style>{rest}\n"


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most `most` of the points: of each stretch its lowest and its highest, so that no spike is lost."""
    if len(points) <= most:
        return list(points)
    stretches = most // 2
    kept: list[Point] = []
    for index in range(stretches):
        stretch = points[index * len(points) // stretches : (index + 1) * len(points) // stretches]
        kept += sorted({min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])})
    return kept


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from `low` to `high`, which is greater."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [index * step for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A number for people: four digits, without useless zeros."""
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:.4g}"


def _axis(values: Sequence[float], start: float, end: float, *, tight: bool = False) -> Axis:
    """The scale that holds the values, with some room above and below unless `tight`."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        room = abs(high) * 0.1 or 1.0
        low, high = low - room, high + room
    elif not tight:
        room = (high - low) * 0.06
        low, high = (0.0 if 0 <= low <= room else low - room), high + room
    return Axis(low=low, high=high, start=start, end=end)


def _grid(across: Axis, up: Axis, x_name: str) -> str:
    columns = [
        f'<text x="{across.at(value):.1f}" y="{_BOTTOM + 16}" text-anchor="middle">{number(value)}</text>'
        for value in ticks(across.low, across.high, 8)
    ]
    return "".join([_levels(up), *columns, _caption(x_name)])


def _levels(up: Axis) -> str:
    return "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{up.at(value):.1f}" y2="{up.at(value):.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{up.at(value) + 4:.1f}" text-anchor="end">{number(value)}</text>'
        for value in ticks(up.low, up.high)
    )


def _caption(text: str) -> str:
    return f'<text x="{_RIGHT}" y="{_BOTTOM + 33}" text-anchor="end">{escape(text)}</text>'


def _line(series: Series, index: int, across: Axis, up: Axis) -> str:
    places = [(across.at(x), up.at(y)) for x, y in series.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    line = f'<polyline class="line s{index}" points="{path}"/>'
    if len(places) > 60:
        return line
    dots = [f'<circle class="dot s{index}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in places]
    return "".join([line, *dots])


def _key(name: str, index: int) -> str:
    x = _RIGHT - 150 + index * 80
    return (
        f'<line class="line s{index}" x1="{x}" x2="{x + 16}" y1="16" y2="16"/>'
        f'<text x="{x + 21}" y="20">{escape(name)}</text>'
    )


def _svg(title: str, body: Sequence[str], data: object) -> str:
    attribute = f' data-chart="{escape(json.dumps(data, separators=(",", ":")))}"' if data is not None else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}"{attribute}>'
        f'<text class="title" x="{_LEFT}" y="20">{escape(title)}</text>{"".join(body)}</svg>'
    )
