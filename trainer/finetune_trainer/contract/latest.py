"""latest.json: the pointer to the newest run of a job's name, for consumers that do not know the fingerprint.

It is beside the folders of the runs, and it is written after a run's commit. It is not part of the commit: only the
manifest to which it points decides whether an adapter exists.
"""

from datetime import datetime

from pydantic import Field, ValidationError

from finetune_trainer.contract.wire import TolerantWire


class Latest(TolerantWire):
    """The newest committed run."""

    version: int = 1
    manifest: str = Field(description="URI of the run's manifest.")
    digest: str = Field(description="Digest of the manifest's bytes (sha256:…).")
    adapter: str = Field(description="URI of the adapter's folder.")
    merged: str | None = Field(None, description="URI of the merged model's folder, if there is one.")
    fingerprint: str
    created: datetime = Field(description="When the adapter was made.")

    @classmethod
    def read(cls, content: bytes) -> "Latest | None":
        """The parsed pointer; None if the content is not one."""
        try:
            return cls.model_validate_json(content)
        except ValidationError:
            return None
