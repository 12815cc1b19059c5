"""Rules: what a value must keep to, said once for the API server (CEL), for Python, and for people.

A rule about one value stands in the `Annotated` of its type, one about several fields of an element of a list in the
element's class (`Ruled`), and one about several fields of a recipe in `contract.rules`.
"""

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.alias_generators import to_snake
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from finetune_trainer.contract.problem import Problem, shown
from finetune_trainer.contract.wire import Wire

Checked = TypeVar("Checked")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Generic[Checked]):
    """One rule. JSON schema's `pattern` is not used: what a server says of it is only the expression.

    Attributes:
        message: what is wrong and what to write, read after the path. Fixed text: the value is shown beside it.
        holds: the rule in Python.
        cel: the rule in CEL, on `self`; it must not fail on any value of the type. None where CEL cannot say it: then
            the operator ends the job.
        path: the field to change, from what the rule is about; empty for that itself.
    """

    message: str
    holds: Callable[[Checked], bool]
    cel: str | None
    path: str = ""

    @property
    def schema(self) -> dict[str, str] | None:
        """The rule as an entry of `x-kubernetes-validations`."""
        if self.cel is None:
            return None
        place = {"fieldPath": f".{self.path}"} if self.path else {}
        return {"rule": self.cel, "message": self.message, **place}

    def _error(self) -> PydanticCustomError:
        return PydanticCustomError("rule", "{message}", {"message": self.message})

    def _check(self, value: Any) -> Any:
        if not self.holds(value):
            raise self._error()
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return with_rules(handler(schema), [self])


def with_rules(schema: JsonSchemaValue, rules: Iterable[Rule[Any]]) -> JsonSchemaValue:
    """A JSON schema with these rules after those that it has."""
    said = [*schema.get("x-kubernetes-validations", ()), *(rule.schema for rule in rules if rule.schema is not None)]
    return {**schema, "x-kubernetes-validations": said}


def broken(rules: Iterable[Rule[Checked]], subject: Checked, root: str) -> list[Problem]:
    """A problem for each rule that does not hold, in the rules' order.

    Args:
        rules: the rules.
        subject: what they are about.
        root: its path.
    """
    return [
        Problem(path=f"{root}.{rule.path}", value=shown(value_at(subject, rule.path)), message=rule.message)
        for rule in rules
        if not rule.holds(subject)
    ]


def value_at(subject: object, path: str) -> object:
    """The value of a field of a model, by its path on the wire; None where a part of the way is not there."""
    for key in path.split("."):
        # `schema` is pydantic's own name.
        name = to_snake(key)
        subject = getattr(subject, f"{name}_" if name == "schema" else name, None)
    return subject


class Ruled(Wire):
    """A model with rules over several of its fields."""

    rules: ClassVar[tuple[Rule[Any], ...]] = ()

    @model_validator(mode="after")
    def _keeps_its_rules(self) -> Self:
        errors = [
            InitErrorDetails(type=rule._error(), loc=tuple(rule.path.split(".")) if rule.path else (), input=self)  # noqa: SLF001
            for rule in self.rules
            if not rule.holds(self)
        ]
        if errors:
            raise ValidationError.from_exception_data(type(self).__name__, errors)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        made = handler(schema)
        return with_rules(handler.resolve_ref_schema(made), cls.rules) if cls.rules else made


def matches(pattern: str, value: str) -> bool:
    """Whether the pattern is found. `$` is the very end, as in RE2; Python's own also fits before a last newline."""
    return re.search(pattern.replace("$", r"\Z"), value) is not None


def literal(text: str) -> str:
    """A string in CEL; what is not plain ASCII is escaped. Backslashes and quotes are the caller's to avoid."""
    escaped = "".join(char if " " <= char <= "~" else f"\\u{ord(char):04x}" for char in text)
    return f"'{escaped}'"


def matching(pattern: str, message: str, *, negated: bool = False) -> Rule[str]:
    """A string in which a pattern is found, or, negated, is not.

    Backslashes and quotes are avoided in `pattern`, so that it means the same in Python, in RE2 and in a CEL literal;
    `$` stands only for the end.
    """
    return Rule(
        message=message,
        holds=lambda value: matches(pattern, value) is not negated,
        cel=f"{'!' if negated else ''}self.matches({literal(pattern)})",
    )


DECIMAL = "^[0-9]+([.][0-9]+)?([eE][-+]?[0-9]{1,2})?$"
"""A non-negative decimal. Two digits of exponent, so that every accepted number is finite in a double."""


def decimal(
    message: str, *, above: float | None = None, below: float | None = None, at_most: float | None = None
) -> Rule[str]:
    """A decimal in a string, within bounds; each bound may be absent."""
    compare = {">": operator.gt, "<": operator.lt, "<=": operator.le}
    bounds = [(op, bound) for op, bound in ((">", above), ("<", below), ("<=", at_most)) if bound is not None]
    return Rule(
        message=message,
        holds=lambda value: matches(DECIMAL, value) and all(compare[op](float(value), bound) for op, bound in bounds),
        # double() is only asked where the pattern holds.
        cel=" && ".join([f"self.matches({literal(DECIMAL)})", *(f"double(self) {op} {x!r}" for op, x in bounds)]),
    )
