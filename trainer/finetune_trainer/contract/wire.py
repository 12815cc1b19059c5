"""The base classes of all models that cross a process boundary as JSON.

Keys are camelCase on the wire (Kubernetes API conventions) and snake_case in Python. Models are frozen. An unknown key
is an error, because a misspelt field must never be ignored.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Wire(BaseModel):
    """A frozen JSON object with camelCase keys. Unknown keys are refused."""

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
        """The object as plain JSON values with camelCase keys. Absent optional fields are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def to_json(self) -> str:
        """The object as compact JSON; see `to_dict`."""
        return self.model_dump_json(by_alias=True, exclude_none=True)


class TolerantWire(Wire):
    """A record from another process, which may be of a later version. Unknown keys are dropped."""

    model_config = ConfigDict(extra="ignore")


def map_list(key: str) -> dict[str, Any]:
    """`json_schema_extra` of a list with a key field: server-side apply merges its elements by this field.

    Args:
        key: a required field of the elements, unique in the list.
    """
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
