"""Validation rules. Each rule has one definition with its CEL for the API server, its Python form and its message.

A rule on one value is in the `Annotated` of the value's type. A rule on several fields of a list element is in the
element's class (`Ruled`). A rule on several fields of a recipe is in `contract.rules`.
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, ValidationInfo, model_validator
from pydantic.alias_generators import to_snake
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from finetune_trainer.contract.problem import Problem, shown
from finetune_trainer.contract.wire import Wire

Checked = TypeVar("Checked")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Generic[Checked]):
    """One validation rule.

    JSON schema's `pattern` is not used, because the API server's message for it is only the regular expression.

    Attributes:
        message: what is wrong and what to write instead. It follows the path in a sentence, and it does not depend on
            the value, which is shown beside it.
        holds: the rule in Python: whether a value is valid.
        cel: the rule in CEL, on `self`. Its evaluation must not fail for any value of the type. None if CEL cannot
            express the rule; then the operator ends the job.
        path: path of the field to change, relative to the checked value; empty for the value itself.
        given: paths of the fields that a profile may supply instead of the job. The API server knows no profiles, so it
            judges the rule only where the job itself has all of them. The operator judges the merged spec.
    """

    message: str
    holds: Callable[[Checked], bool]
    cel: str | None
    path: str = ""
    given: tuple[str, ...] = ()

    @property
    def schema(self) -> dict[str, str] | None:
        """The rule as an entry of `x-kubernetes-validations`."""
        if self.cel is None:
            return None
        place = {"fieldPath": f".{self.path}"} if self.path else {}
        absent = "".join(f"!has(self.{path}) || " for path in self.given)
        return {"rule": f"{absent}({self.cel})" if absent else self.cel, "message": self.message, **place}

    def concerns(self, own: Mapping[str, Any]) -> bool:
        """Whether an object, as it was written, has every field of `given`."""
        return all(_has(own, path.split(".")) for path in self.given)

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
    """A JSON schema with these rules appended to its own."""
    said = [*schema.get("x-kubernetes-validations", ()), *(rule.schema for rule in rules if rule.schema is not None)]
    return {**schema, "x-kubernetes-validations": said}


def broken(
    rules: Iterable[Rule[Checked]], subject: Checked, root: str, own: Mapping[str, Any] | None = None
) -> list[Problem]:
    """The problems of a value: one for each rule that does not hold, in the rules' order.

    Args:
        rules: the rules.
        subject: the value that they check.
        root: path of the value.
        own: the object as it was written, if a profile may supply what it leaves out. Then a rule counts only if the
            object has the fields that the rule is about.
    """
    return [
        Problem(path=f"{root}.{rule.path}", value=shown(value_at(subject, rule.path)), message=rule.message)
        for rule in rules
        if (own is None or rule.concerns(own)) and not rule.holds(subject)
    ]


def _has(own: object, keys: list[str]) -> bool:
    for key in keys:
        if not isinstance(own, Mapping) or own.get(key) is None:
            return False
        own = own[key]
    return True


OWN_VALUES: dict[str, bool] = {"own_values": True}
"""Validation context: the object stands alone, and a profile may supply what it leaves out."""


def value_at(subject: object, path: str) -> object:
    """The value of a model's field by its path on the wire; None if a part of the path is absent."""
    for key in path.split("."):
        # `schema` is a name of pydantic's own, so the models' field is `schema_`.
        name = to_snake(key)
        subject = getattr(subject, f"{name}_" if name == "schema" else name, None)
    return subject


class Ruled(Wire):
    """A model with rules on several of its fields. Validation raises pydantic's ValidationError for a broken rule.

    Attributes:
        rules: the rules of the class.
    """

    rules: ClassVar[tuple[Rule[Any], ...]] = ()

    @model_validator(mode="after")
    def _keeps_its_rules(self, info: ValidationInfo) -> Self:
        alone = info.context == OWN_VALUES
        errors = [
            InitErrorDetails(type=rule._error(), loc=tuple(rule.path.split(".")) if rule.path else (), input=self)  # noqa: SLF001
            for rule in self.rules
            if not (alone and {to_snake(path) for path in rule.given} - self.model_fields_set) and not rule.holds(self)
        ]
        if errors:
            raise ValidationError.from_exception_data(type(self).__name__, errors)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        made = handler(schema)
        return with_rules(handler.resolve_ref_schema(made), cls.rules) if cls.rules else made


def matches(pattern: str, value: str) -> bool:
    """Whether the pattern is found in the value.

    `$` matches only at the end, as in RE2. Python's own `$` also matches before a trailing newline.
    """
    return re.search(pattern.replace("$", r"\Z"), value) is not None


def literal(text: str) -> str:
    """A string literal in CEL. Characters outside printable ASCII are escaped.

    Args:
        text: the string, which must not have backslashes or quotes.
    """
    escaped = "".join(char if " " <= char <= "~" else f"\\u{ord(char):04x}" for char in text)
    return f"'{escaped}'"


def matching(pattern: str, message: str, *, negated: bool = False) -> Rule[str]:
    """The rule that a pattern is found in a string; with `negated`, that it is not found.

    Args:
        pattern: a regular expression without backslashes and quotes, so that it means the same in Python, in RE2 and in
            a CEL literal. `$` is used only for the end.
        message: the rule's message.
        negated: whether the pattern must not be found.
    """
    return Rule(
        message=message,
        holds=lambda value: matches(pattern, value) is not negated,
        cel=f"{'!' if negated else ''}self.matches({literal(pattern)})",
    )


DECIMAL = "^[0-9]+([.][0-9]+)?([eE][-+]?[0-9]{1,2})?$"
"""Pattern of a non-negative decimal. The exponent has at most two digits, so every accepted number is finite."""


def decimal(
    message: str, *, above: float | None = None, below: float | None = None, at_most: float | None = None
) -> Rule[str]:
    """The rule that a string is a non-negative decimal within bounds.

    Args:
        message: the rule's message.
        above: exclusive lower bound; None for none.
        below: exclusive upper bound; None for none.
        at_most: inclusive upper bound; None for none.
    """
    compare = {">": operator.gt, "<": operator.lt, "<=": operator.le}
    bounds = [(op, bound) for op, bound in ((">", above), ("<", below), ("<=", at_most)) if bound is not None]
    return Rule(
        message=message,
        holds=lambda value: matches(DECIMAL, value) and all(compare[op](float(value), bound) for op, bound in bounds),
        # CEL evaluates double() only if the pattern matches, so it never fails.
        cel=" && ".join([f"self.matches({literal(DECIMAL)})", *(f"double(self) {op} {x!r}" for op, x in bounds)]),
    )
