"""Kubernetes quantities: 16Gi, 500m, 1.5G, 16e9.

The Kubernetes client has a parser too. But the command line runs without the client, and that parser accepts `1_000`
and `NaN`, which the API server rejects. Tests compare this parser with both.
"""

from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic.alias_generators import to_snake

from finetune_trainer.contract.rule import Rule, literal, matches

_QUANTITY = "^[+]?([0-9]+([.][0-9]*)?|[.][0-9]+)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][-+]?[0-9]{1,2})?$"
"""The API server's own grammar, without negative quantities and without exponents that no resource has."""

_UNITS = {
    **{unit: Decimal(10) ** (3 * power) for power, unit in enumerate(["n", "u", "m", "", *"kMGTPE"], -3)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}

_MOST = Decimal(2**63 - 1)


def parse_quantity(quantity: str) -> Decimal:
    """The value of a quantity.

    Raises:
        ValueError: it is not a quantity, or is negative.
    """
    if not matches(_QUANTITY, quantity):
        raise ValueError(f"{quantity!r} is not a quantity")
    number = quantity.rstrip("".join(_UNITS))
    # `1E` has the suffix exa, `1E3` is a thousand.
    unit = quantity[len(number) :]
    return Decimal(number) * _UNITS[unit]


def whole(quantity: str) -> int:
    """The value of a quantity, rounded down: bytes, cores. Kubernetes' maximum is 2^63 - 1."""
    return int(min(parse_quantity(quantity), _MOST))


def _quantity(message: str, *, at_least: str = "0", above: str | None = None) -> Rule[str]:
    """A rule for a quantity within bounds. In CEL a plain number is an integer, so it is converted to text."""

    def holds(value: str) -> bool:
        if not matches(_QUANTITY, value):
            return False
        number = parse_quantity(value)
        return number >= parse_quantity(at_least) and (above is None or number > parse_quantity(above))

    compared = f"isGreaterThan(quantity('{above}'))" if above else f"compareTo(quantity('{at_least}')) >= 0"
    # quantity() raises an error on text that is not a quantity, so the pattern is checked first.
    cel = f"string(self).matches({literal(_QUANTITY)}) && quantity(string(self)).{compared}"
    return Rule(message=message, holds=holds, cel=cel)


def _limit_of(limit: str, request: str) -> Rule[Any]:
    """A rule for a model with two fields: a limit, where there is one, is not below its request."""
    name, other = to_snake(limit), to_snake(request)

    def holds(model: Any) -> bool:
        value = getattr(model, name)
        return value is None or parse_quantity(value) >= parse_quantity(getattr(model, other))

    quantities = " && ".join(f"string(self.{one}).matches({literal(_QUANTITY)})" for one in (limit, request))
    compared = f"quantity(string(self.{limit})).compareTo(quantity(string(self.{request}))) >= 0"
    return Rule(
        message=f"{limit} must be at least {request}: raise it, or lower {request}",
        holds=holds,
        given=(request,),
        # What is no quantity is another rule's to refuse.
        cel=f"!has(self.{limit}) || !({quantities}) || {compared}",
    )


CPU_LIMIT = _limit_of("cpuLimit", "cpu")

_AS_TEXT = BeforeValidator(lambda value: str(value) if type(value) is int else value)
_INT_OR_STRING = WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 24})

Quantity = Annotated[
    str,
    Field(max_length=24),
    _AS_TEXT,
    _INT_OR_STRING,
    _quantity("must be a Kubernetes quantity, for example 2, 500m or 16Gi"),
]
"""A number, or a string with a suffix. In Python it is always a string."""
Cores = Annotated[
    str,
    Field(max_length=24),
    _AS_TEXT,
    _INT_OR_STRING,
    _quantity("must be a Kubernetes quantity of cores above 0, for example 2 or 500m", above="0"),
]
Memory = Annotated[
    str,
    Field(max_length=24),
    _AS_TEXT,
    _INT_OR_STRING,
    _quantity(
        "must be a Kubernetes quantity of at least 64Mi, for example 16Gi: no process starts in less", at_least="64Mi"
    ),
]
