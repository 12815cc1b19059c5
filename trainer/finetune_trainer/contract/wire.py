"""The base of every model that crosses a process boundary as JSON, and the scalar types they share.

Keys are camelCase on the wire (Kubernetes API conventions) and snake_case in Python. Models are frozen, and an
unknown key is an error: a misspelt field must never be ignored.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any

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
class Matching:
    """A string constraint that both pydantic and the API server enforce, with a message that says what to write.

    A JSON-schema `pattern` would be enforced too, but its message is only the expression. Backslashes are avoided in
    `pattern`, so that it means the same in Python, in RE2 and in a CEL literal.
    """

    pattern: str
    message: str

    def _check(self, value: str) -> str:
        if not re.search(self.pattern, value):
            raise ValueError(self.message)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        json_schema = handler(schema)
        rules = json_schema.setdefault("x-kubernetes-validations", [])
        rules.append({"rule": f"self.matches('{self.pattern}')", "message": self.message})
        return json_schema


_DECIMAL = "^[0-9]+([.][0-9]+)?([eE][-+]?[0-9]+)?$"

Decimal = Annotated[
    str,
    Matching(_DECIMAL, 'must be a non-negative decimal in quotes, for example "0.05" or "2e-4"'),
    Field(max_length=24),
]
"""A non-negative real number written as a string: the Kubernetes API conventions forbid floats in a spec."""

DnsLabel = Annotated[
    str,
    Matching(
        "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
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
