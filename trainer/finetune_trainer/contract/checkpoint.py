"""The manifest of a checkpoint: written last, so a folder without one is half a checkpoint and counts for nothing."""

from datetime import datetime

from pydantic import Field, ValidationError

from finetune_trainer.contract.manifest import ManifestFile
from finetune_trainer.contract.wire import TolerantWire

CHECKPOINT_VERSION = 1
"""Raised when an older trainer's checkpoint can no longer be continued."""


class CheckpointManifest(TolerantWire):
    """What a checkpoint is of, and its files with their checksums."""

    version: int = CHECKPOINT_VERSION
    fingerprint: str = Field(description="Of the run: a checkpoint of another one is not continued.")
    step: int = Field(ge=1, description="Optimizer steps done.")
    total_steps: int = Field(ge=1, description="Optimizer steps in all.")
    files: list[ManifestFile] = Field(description="Paths are relative to the manifest's own place.")
    versions: dict[str, str] = Field(default_factory=dict, description="Packages that shape the result.")
    attempt: int
    writer: str
    created: datetime

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @classmethod
    def read(cls, content: bytes) -> "CheckpointManifest | None":
        """The manifest in an object, or None when it is none, or one of another version."""
        try:
            manifest = cls.model_validate_json(content)
        except ValidationError:
            return None
        return manifest if manifest.version == CHECKPOINT_VERSION else None
