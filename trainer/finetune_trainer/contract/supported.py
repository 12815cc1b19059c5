"""What of the recipe this version does not do yet.

A field that is accepted and then ignored is worse than a refusal: the operator, the command line and the trainer itself
ask here first, and refuse the job with every such field named. A field that stands at its default asks for nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from finetune_trainer.contract.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsupported:
    """One field that asks for what is not there.

    Attributes:
        path: the field, for example `spec.output.merged`.
        value: what stands there.
        message: what is not there, and what to write instead.
    """

    path: str
    value: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.value}: {self.message}"


def unsupported_fields(recipe: Recipe) -> list[Unsupported]:
    """Every field of the recipe that this version would have to ignore, in the order of the sections."""
    return [found for section in _SECTIONS for found in section(recipe)]


_SECTIONS: tuple[Callable[[Recipe], Iterator[Unsupported]], ...] = ()
"""One function a section that has such fields; none has at present."""
