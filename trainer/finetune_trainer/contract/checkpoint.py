"""The manifest of a checkpoint. It is written last, so a folder without one is incomplete and is ignored."""

from datetime import datetime

from pydantic import Field, ValidationError

from finetune_trainer.contract.manifest import ManifestFile
from finetune_trainer.contract.wire import TolerantWire

CHECKPOINT_VERSION = 1
"""Version of the checkpoint format. It is raised when training can no longer resume from older checkpoints."""


class CheckpointManifest(TolerantWire):
    """The run and step of a checkpoint, and its files with their checksums."""

    version: int = CHECKPOINT_VERSION
    fingerprint: str = Field(description="Fingerprint of the run. Training resumes only from its own checkpoints.")
    step: int = Field(
        ge=0, description="Optimizer steps done. 0: there is no state of a training yet, but what was measured before."
    )
    total_steps: int = Field(ge=0, description="Optimizer steps in all; 0 where step is.")
    files: list[ManifestFile] = Field(description="Files; their paths are relative to the manifest's folder.")
    versions: dict[str, str] = Field(default_factory=dict, description="Versions of packages that affect the result.")
    attempt: int
    writer: str
    created: datetime

    @property
    def size(self) -> int:
        """Total size of all files, in bytes."""
        return sum(file.size for file in self.files)

    @classmethod
    def read(cls, content: bytes) -> "CheckpointManifest | None":
        """The parsed manifest; None if the content is not a manifest, or one of another version."""
        try:
            manifest = cls.model_validate_json(content)
        except ValidationError:
            return None
        return manifest if manifest.version == CHECKPOINT_VERSION else None
