"""Lengths are counted exactly; samples stand for the whole."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.data.histogram import LengthHistogram
from finetune_trainer.data.row_sampler import RowSampler

LENGTHS = st.lists(st.integers(1, 5000), min_size=1)


def histogram(lengths: list[int]) -> LengthHistogram:
    made = LengthHistogram()
    for length in lengths:
        made.add(length)
    return made


@given(lengths=LENGTHS, percent=st.integers(1, 100))
def test_percentiles_are_the_nearest_rank(lengths: list[int], percent: int) -> None:
    ranked = sorted(lengths)
    expected = ranked[math.ceil(len(ranked) * percent / 100) - 1]
    assert histogram(lengths).percentile(percent) == expected


@given(lengths=LENGTHS, edge=st.integers(16, 6000))
def test_every_row_is_in_one_bucket(lengths: list[int], edge: int) -> None:
    found = histogram(lengths).buckets(edge)
    assert sum(rows for _, rows in found) == len(lengths)
    ends = [end for end, _ in found]
    assert ends == sorted(set(ends))
    assert ends[-1] >= max(lengths)
    start = 0
    for end, rows in found:
        assert rows == sum(1 for length in lengths if (length > start or start == 0) and length <= end)
        start = end
    assert sum(rows for end, rows in found if end > edge) == sum(1 for length in lengths if length > edge)


def test_without_rows_there_is_nothing() -> None:
    empty = LengthHistogram()
    assert (empty.rows, empty.longest, empty.percentile(95), list(empty.buckets(100))) == (0, 0, 0, [])


def taken(sizes: list[int], level: int) -> list[tuple[int, int]]:
    """Row numbers and weights."""
    sample = RowSampler(level)
    found = []
    for number, size in enumerate(sizes):
        if weight := sample.next_weight():
            sample.add(size)
            found.append((number, weight))
    return found


def test_small_data_is_taken_whole() -> None:
    assert taken([10] * 99, level=1000) == [(number, 1) for number in range(99)]


@pytest.mark.parametrize("period", [1, 2, 3, 4, 7, 16, 64])
def test_a_sample_is_small_even_and_stands_for_all(period: int) -> None:
    rows = 300_000
    found = taken([100] * rows, level=100_000)
    assert found == taken([100] * rows, level=100_000), "the same every time"
    assert len(found) < 7_000, "1,000 rows a level"
    assert sum(weight for _, weight in found) == pytest.approx(rows, rel=0.02)
    for rest in range(period):
        share = sum(weight for number, weight in found if number % period == rest) / rows
        assert share == pytest.approx(1 / period, rel=0.35), "in step with no period of the data"
    assert statistics.mean(number for number, weight in found if weight >= 64) > rows / 3
