"""A sample of the damaged lines of `mutations`, which makes millions of them when it is run by itself."""

from collections import Counter
from pathlib import Path

import pytest

from .mutations import KINDS, check_part

pytestmark = pytest.mark.extras


def test_every_damaged_line_is_named_and_nothing_else_happens(tmp_path: Path) -> None:
    counts = Counter[str]()
    for number in range(5 * len(KINDS)):
        counts += check_part(tmp_path, seed=1, number=number)
    assert counts["lines"] == counts["good"] + counts["dropped"] + counts["blank"]
    assert len(counts) >= 14, counts
