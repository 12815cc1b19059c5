"""The base of every model that crosses a process boundary as JSON.

Keys are camelCase on the wire (Kubernetes API conventions) and snake_case in Python. Models are frozen, and an
unknown key is an error: a misspelt field must never be ignored.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


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


def map_list(key: str) -> dict[str, Any]:
    """`json_schema_extra` of a list whose elements one required field tells apart; server-side apply merges by it."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
