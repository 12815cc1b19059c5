"""Rows are held out by content."""

import numpy as np
import pytest

from finetune_trainer.data.split import also_in, held_out, row_key

pytestmark = pytest.mark.extras


def _keys(rows: list[list[int]], seed: int = 42) -> np.ndarray:
    return np.asarray([row_key(row, seed) for row in rows], dtype=np.uint64)


ROWS = [[number, number + 1] for number in range(1000)]


@pytest.mark.parametrize(("fraction", "count"), [(0.1, 100), (0.0004, 1), (0.5, 500), (0.0255, 25)])
def test_as_many_as_asked_for_and_one_at_least(fraction: float, count: int) -> None:
    assert held_out(_keys(ROWS), fraction).sum() == count


def test_the_choice_is_the_same_in_any_order_and_another_with_another_seed() -> None:
    forwards, backwards = held_out(_keys(ROWS), 0.1), held_out(_keys(ROWS[::-1]), 0.1)

    assert (forwards == backwards[::-1]).all()
    assert (forwards != held_out(_keys(ROWS, seed=43), 0.1)).any()


def test_equal_rows_go_together() -> None:
    rows = ROWS[:20] * 3 + ROWS[20:40]
    chosen = held_out(_keys(rows), 0.25)

    taken = {tuple(row) for row, kept in zip(rows, chosen, strict=True) if kept}
    left = {tuple(row) for row, kept in zip(rows, chosen, strict=True) if not kept}
    assert taken
    assert not taken & left
    assert chosen.sum() <= 20


def test_rows_that_are_all_equal_cannot_be_divided() -> None:
    assert held_out(_keys([[1, 2]] * 5), 0.2).all()


def test_rows_among_others() -> None:
    assert also_in(_keys(ROWS[:4]), _keys(ROWS[2:8])).tolist() == [False, False, True, True]
