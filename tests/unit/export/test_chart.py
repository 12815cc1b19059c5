"""Charts are well-formed SVG whose points are where the values say."""

import json
import math
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.export.chart import HEIGHT, WIDTH, Series, bar_chart, line_chart, standalone, thinned, ticks

SVG = "{http://www.w3.org/2000/svg}"


def _lines(chart: str) -> list[list[tuple[float, float]]]:
    lines = ET.fromstring(chart).iter(f"{SVG}polyline")
    pairs = [[pair.split(",") for pair in line.attrib["points"].split()] for line in lines]
    return [[(float(x), float(y)) for x, y in line] for line in pairs]


def test_higher_values_stand_higher_and_later_steps_further_right() -> None:
    (line,) = _lines(line_chart("Loss", [Series(name="training", points=[(1, 4.0), (2, 2.0), (3, 1.0)])]))

    assert [x for x, _ in line] == sorted(x for x, _ in line)
    assert line[0][1] < line[1][1] < line[2][1], "down is greater in SVG"
    # Linear: 4 -> 2 is twice as far as 2 -> 1.
    assert line[1][1] - line[0][1] == pytest.approx(2 * (line[2][1] - line[1][1]), abs=0.3)


def test_two_lines_share_the_axes_and_are_named() -> None:
    chart = line_chart(
        "Loss",
        [Series(name="training", points=[(1, 4.0), (4, 1.0)]), Series(name="validation", points=[(4, 4.0)])],
    )

    training, validation = _lines(chart)
    assert validation[0] == (training[1][0], training[0][1])
    texts = [text.text for text in ET.fromstring(chart).iter(f"{SVG}text")]
    assert {"training", "validation"} <= set(texts)


@given(
    st.lists(
        st.tuples(st.integers(0, 10**7), st.floats(allow_nan=False, allow_infinity=False, width=32)),
        max_size=40,
    )
)
def test_any_finite_points_stay_in_the_picture(points: list[tuple[float, float]]) -> None:
    chart = standalone(line_chart("Loss", [Series(name="training", points=sorted(points))]))

    ET.fromstring(chart)
    for line in _lines(chart):
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in line)


def test_no_spike_is_lost_when_points_are_thinned() -> None:
    points = [(float(step), 1.0) for step in range(50_000)]
    points[31_234] = (31_234.0, 9.0)

    kept = thinned(points, 1000)

    assert len(kept) <= 1000
    assert (31_234.0, 9.0) in kept
    assert kept == sorted(kept)


def test_ticks_are_round_and_within() -> None:
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(1.13, 1.52) == pytest.approx([1.2, 1.3, 1.4, 1.5])
    assert all(math.isfinite(value) for value in ticks(1e-9, 2e-9))


def test_text_and_data_are_escaped() -> None:
    name = """<script>alert('"&')</script>"""
    for chart in (
        line_chart(name, [Series(name=name, points=[(1, 1)])], x_name=name),
        bar_chart(name, [(name, 1.0)], x_name=name),
    ):
        root = ET.fromstring(chart)
        assert root.find(f".//{SVG}script") is None
        assert root.attrib["aria-label"] == name
    data = json.loads(ET.fromstring(line_chart("Loss", [Series(name=name, points=[(1, 2.5)])])).attrib["data-chart"])
    assert data["series"] == [{"name": name, "points": [[1, 2.5]]}]


def test_bars_are_as_high_as_their_values() -> None:
    bars = list(ET.fromstring(bar_chart("Rows", [("1-5", 10.0), ("6-10", 5.0)], x_name="tokens")).iter(f"{SVG}rect"))

    assert float(bars[0].attrib["height"]) == pytest.approx(2 * float(bars[1].attrib["height"]), abs=0.2)
    assert [bar[0].text for bar in bars] == ["1-5: 10", "6-10: 5"]
