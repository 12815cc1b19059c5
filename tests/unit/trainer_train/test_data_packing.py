"""Dividing a step into forward passes."""

from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.data.packing import pack_rows, pack_rows_for_ranks

LENGTHS = st.lists(st.integers(1, 600), min_size=1, max_size=64)


@given(LENGTHS, st.integers(1, 1000), st.integers(1, 16))
def test_every_row_is_in_exactly_one_pass_within_the_limits(lengths: list[int], tokens: int, rows: int) -> None:
    micro_batches = pack_rows(lengths, max_tokens=tokens, max_rows=rows)

    assert sorted(row for part in micro_batches for row in part) == list(range(len(lengths)))
    for part in micro_batches:
        assert len(part) <= rows
        assert len(part) == 1 or sum(lengths[row] for row in part) <= tokens
        assert part == sorted(part)


@given(LENGTHS)
def test_no_two_passes_would_fit_into_one(lengths: list[int]) -> None:
    micro_batches = pack_rows(lengths, max_tokens=600, max_rows=64)

    filled = sorted(sum(lengths[row] for row in part) for part in micro_batches)
    assert len(filled) == 1 or filled[0] + filled[1] > 600


def test_short_rows_fill_the_gap_that_a_long_one_leaves() -> None:
    assert pack_rows([10, 90, 50, 50], max_tokens=100, max_rows=8) == [[0, 1], [2, 3]]


def test_row_above_the_limit_has_a_pass_of_its_own() -> None:
    assert pack_rows([500, 10], max_tokens=100, max_rows=8) == [[0], [1]]


@given(LENGTHS, st.integers(1, 8), st.integers(1, 1000), st.integers(1, 16))
def test_processes_share_every_row_once_within_the_limits(
    lengths: list[int], ranks: int, tokens: int, rows: int
) -> None:
    micro_batches = pack_rows_for_ranks(lengths, ranks=ranks, max_tokens=tokens, max_rows=rows)

    assert sorted(row for part in micro_batches for row in part) == list(range(len(lengths)))
    assert len(micro_batches) >= min(ranks, len(lengths)), "nobody is idle while another has two rows"
    assert len(micro_batches) % ranks == 0 or len(micro_batches) == len(lengths), "no last round for some of them only"
    for part in micro_batches:
        assert len(part) == 1 or (sum(lengths[row] for row in part) <= tokens and len(part) <= rows)


def test_processes_have_equal_work() -> None:
    assert pack_rows_for_ranks([100, 90, 20, 10], ranks=2, max_tokens=1000, max_rows=8) == [[0, 3], [1, 2]]
