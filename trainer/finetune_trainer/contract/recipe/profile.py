"""The profiles that a run was resolved with, as the recipe and the manifest record them.

They change no result: the values that they supplied are in the sections of the recipe.
"""

from typing import Annotated

from pydantic import Field

from finetune_trainer.contract.text import MAX_TEXT
from finetune_trainer.contract.wire import TolerantWire


class ProfileSource(TolerantWire):
    """A profile that supplied values."""

    kind: Annotated[str, Field(max_length=63)] = Field(description="FineTuneProfile or ClusterFineTuneProfile.")
    name: Annotated[str, Field(max_length=253)] = Field(description="Name of the profile.")
    generation: int = Field(0, ge=0, description="Generation of its spec that was used; 0 for one read from a file.")

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class ProfileRecord(TolerantWire):
    """The profiles of a run."""

    sources: Annotated[list[ProfileSource], Field(max_length=16)] = Field(
        description="The profiles; each wins over the one before."
    )
    digest: Annotated[str, Field(max_length=MAX_TEXT)] = Field(
        description="SHA-256 of the values that they supply together and of their ceilings."
    )
