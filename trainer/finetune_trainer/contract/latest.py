"""latest.json: which run of a job's name is the newest, for whoever wants the adapter and not its fingerprint.

It stands beside the runs, is written after a run's commit, and is no part of it: the manifest that it names decides.
"""

from datetime import datetime

from pydantic import Field, ValidationError

from finetune_trainer.contract.wire import TolerantWire


class Latest(TolerantWire):
    """The newest committed run."""

    version: int = 1
    manifest: str = Field(description="URI of its manifest.")
    digest: str = Field(description="sha256:… of the manifest's bytes.")
    adapter: str = Field(description="URI of the adapter's folder.")
    merged: str | None = Field(None, description="URI of the merged model's folder, when there is one.")
    fingerprint: str
    created: datetime = Field(description="When the adapter was made.")

    @classmethod
    def read(cls, content: bytes) -> "Latest | None":
        """The pointer in an object, or None when it is none."""
        try:
            return cls.model_validate_json(content)
        except ValidationError:
            return None
