"""Quantities: all that the API server takes, as it takes them; its own word on them is in tests/deploy."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.utils.quantity import parse_quantity as parse_as_the_client

from finetune_operator.api.quantity import parse_quantity, whole

pytestmark = pytest.mark.extras

GIB = 1 << 30


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("24Gi", 24 * GIB),
        ("80G", 80 * 10**9),
        ("1.5Ki", 1536),
        ("7", 7),
        ("16e9", 16 * 10**9),
        ("16E9", 16 * 10**9),
        ("1e-3", Decimal("0.001")),
        ("1E", 10**18),
        ("2Ei", 2 << 60),
        (".5Gi", GIB // 2),
        ("1.", 1),
        ("+1", 1),
        ("100m", Decimal("0.1")),
        ("5u", Decimal("0.000005")),
        ("3n", Decimal("3e-9")),
    ],
)
def test_numbers(text: str, number: Decimal | int) -> None:
    assert parse_quantity(text) == number


@pytest.mark.parametrize(
    "text", ["", "Gi", "-1", "1_000", "NaN", "Infinity", "1 Gi", "1gi", "1GB", "1KB", "1e", "1e1000", "1..5", "1Gi\n"]
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)


UNITS = st.sampled_from(
    ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "e3", "e-2", "E+9"]
)
NUMBERS = st.from_regex(r"\A([0-9]{1,8}([.][0-9]{0,4})?|[.][0-9]{1,4})\Z")


@given(number=NUMBERS, unit=UNITS)
def test_it_is_the_number_of_the_kubernetes_client(number: str, unit: str) -> None:
    assert parse_quantity(number + unit) == parse_as_the_client(number + unit)


def test_bytes_are_rounded_down_and_end_where_kubernetes_counts_to() -> None:
    assert whole("1500m") == 1
    assert whole("1e99") == 2**63 - 1
