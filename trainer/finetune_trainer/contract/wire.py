"""The base of every model that crosses a process boundary as JSON, and the scalar types they share.

Keys are camelCase on the wire (Kubernetes API conventions) and snake_case in Python. Models are frozen, and an
unknown key is an error: a misspelt field must never be ignored.
"""

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


class Wire(BaseModel):
    """A frozen JSON object with camelCase keys and no unknown ones."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="forbid",
        strict=False,
        use_enum_values=False,
        validate_default=True,
    )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values with camelCase keys; absent optionals are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def to_json(self) -> str:
        """Compact JSON of `to_dict`."""
        return self.model_dump_json(by_alias=True, exclude_none=True)


class TolerantWire(Wire):
    """A record read from another process that may be of a later version: unknown keys are dropped."""

    model_config = ConfigDict(extra="ignore")


@dataclass(frozen=True, slots=True)
class Exclusive:
    """A rule over two optional fields of one object, enforced by pydantic (`check`) and by the API server (`rule`).

    Attributes:
        first, second: the fields' names on the wire.
        required: True when exactly one must be set, False when at most one may.
        message: what the user is told.
    """

    first: str
    second: str
    required: bool
    message: str

    @property
    def schema(self) -> dict[str, Any]:
        """The rule as a model's `json_schema_extra`."""
        first, second = f"has(self.{self.first})", f"has(self.{self.second})"
        rule = f"{first} != {second}" if self.required else f"!({first} && {second})"
        return {"x-kubernetes-validations": [{"rule": rule, "message": self.message}]}

    def check(self, first: object | None, second: object | None) -> None:
        """Raises ValueError with the message when the rule is broken."""
        both, none = first is not None and second is not None, first is None and second is None
        if both or (self.required and none):
            raise ValueError(self.message)


@dataclass(frozen=True, slots=True)
class Rule:
    """A constraint that both pydantic and the API server enforce, with a message that says what to write.

    JSON schema's own keywords would be enforced too, but a server's message about a `pattern` is only the expression.
    To be used in `Annotated`; a subclass says the same thing twice, as CEL and as Python.

    Attributes:
        message: what the user is told; read after the field's path.
    """

    message: str

    @property
    def expression(self) -> str:
        """The constraint on `self` in CEL. It must not fail on any value of the field's type."""
        raise NotImplementedError

    def holds(self, value: Any) -> bool:
        """The constraint in Python."""
        raise NotImplementedError

    def _check(self, value: Any) -> Any:
        if not self.holds(value):
            raise ValueError(self.message)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        json_schema = handler(schema)
        rules = json_schema.get("x-kubernetes-validations", [])
        mine = {"rule": self.expression, "message": self.message}
        return {**json_schema, "x-kubernetes-validations": [*rules, mine]}


Checked = TypeVar("Checked")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRule(Generic[Checked]):
    """A constraint over several fields of one object, enforced by pydantic and by the API server.

    Attributes:
        expression: the constraint on `self` in CEL; must not fail on any value of the object's type.
        holds: the constraint in Python.
        message: what the user is told; read after the object's path.
    """

    expression: str
    holds: Callable[[Checked], bool]
    message: str

    @staticmethod
    def add(schema: dict[str, Any], rules: Iterable["ObjectRule[Any]"]) -> None:
        """Adds the rules to a model's JSON schema."""
        schema["x-kubernetes-validations"] = [{"rule": rule.expression, "message": rule.message} for rule in rules]

    @staticmethod
    def check(instance: object, rules: Iterable["ObjectRule[Any]"]) -> None:
        """Raises ValueError with the message of every broken rule."""
        broken = [rule.message for rule in rules if not rule.holds(instance)]
        if broken:
            raise ValueError("; ".join(broken))


def matches(pattern: str, value: str) -> bool:
    """Whether the pattern is found. `$` is the very end, as in RE2; Python's own also fits before a last newline."""
    return re.search(pattern.replace("$", r"\Z"), value) is not None


@dataclass(frozen=True, slots=True)
class Matching(Rule):
    """A string in which a pattern is found, or is not.

    Backslashes and quotes are avoided in `pattern`, so that it means the same in Python, in RE2 and in a CEL literal;
    `$` stands only for the end.

    Attributes:
        negated: the string must not match.
    """

    pattern: str
    negated: bool

    def __init__(self, pattern: str, message: str, *, negated: bool = False) -> None:
        Rule.__init__(self, message)
        object.__setattr__(self, "pattern", pattern)
        object.__setattr__(self, "negated", negated)

    @property
    def expression(self) -> str:
        """The pattern as CEL."""
        return f"{'!' if self.negated else ''}self.matches('{self.pattern}')"

    def holds(self, value: Any) -> bool:
        """The pattern in Python."""
        return matches(self.pattern, value) is not self.negated


DECIMAL = "^[0-9]+([.][0-9]+)?([eE][-+]?[0-9]{1,2})?$"
"""Two digits of exponent, so that every accepted number is finite in a double."""

DECIMAL_LENGTH = 24
"""Most characters of a decimal."""

Decimal = Annotated[
    str,
    Matching(DECIMAL, 'must be a non-negative decimal in quotes, for example "0.05" or "2e-4"'),
    Field(max_length=DECIMAL_LENGTH),
]
"""A non-negative real number written as a string: the Kubernetes API conventions forbid floats in a spec."""


@dataclass(frozen=True, slots=True)
class DecimalRange(Rule):
    """A `Decimal` within bounds; each bound may be absent.

    Attributes:
        above: the number is greater than this.
        below: the number is less than this.
        at_most: the number is at most this.
    """

    above: float | None = None
    below: float | None = None
    at_most: float | None = None

    @property
    def expression(self) -> str:
        """The bounds as CEL; double() is only asked where the pattern holds."""
        return " && ".join([f"self.matches('{DECIMAL}')", *(f"double(self) {op} {x!r}" for op, x in self._bounds())])

    def holds(self, value: Any) -> bool:
        """The bounds in Python."""
        if not matches(DECIMAL, value):
            return False
        number, compare = float(value), {">": operator.gt, "<": operator.lt, "<=": operator.le}
        return all(compare[op](number, bound) for op, bound in self._bounds())

    def _bounds(self) -> list[tuple[str, float]]:
        bounds = ((">", self.above), ("<", self.below), ("<=", self.at_most))
        return [(op, bound) for op, bound in bounds if bound is not None]


DNS_LABEL = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

DnsLabel = Annotated[
    str,
    Matching(
        DNS_LABEL,
        "must consist of lower-case letters, digits and '-', and start and end with a letter or digit",
    ),
    Field(max_length=63),
]

ObjectName = Annotated[
    str,
    Matching(
        "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        "must be the name of an object in this namespace: lower-case letters, digits, '-' and '.'",
    ),
    Field(max_length=253),
]


def map_list(key: str) -> dict[str, Any]:
    """`json_schema_extra` of a list whose elements one required field tells apart; server-side apply merges by it."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
