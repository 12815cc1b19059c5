"""Lists whose elements have distinct names, as a pod's own lists of variables and claims."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from finetune_trainer.contract.wire import map_list

NAMED_LIST: dict[str, Any] = map_list("name")
"""`json_schema_extra` of such a list."""


class Named(Protocol):
    """An element with a name."""

    @property
    def name(self) -> str:
        """The name."""
        ...


Elements = TypeVar("Elements", bound=Sequence[Named])


def distinct_names(title: str) -> Callable[[Elements], Elements]:
    """A validator that refuses duplicate names, in the words of the API server for a list of type map.

    Args:
        title: the list, for the error.
    """

    def check(elements: Elements) -> Elements:
        names = [element.name for element in elements]
        twice = [
            InitErrorDetails(type=PydanticCustomError("duplicate", "Duplicate value"), loc=(index,), input=name)
            for index, name in enumerate(names)
            if name in names[:index]
        ]
        if twice:
            raise ValidationError.from_exception_data(title, twice)
        return elements

    return check
