"""The manifest: the commit of a run's output, and the record of its inputs.

It is written last, with `If-None-Match: *`. An adapter without a manifest does not exist. Paths are relative to the
manifest's folder, so a copied run can be checked at its new place.
"""

from datetime import datetime
from typing import Any

from pydantic import Field, ValidationError

from finetune_trainer.contract.history import LossSummary
from finetune_trainer.contract.text import MAX_TEXT, Count, Line, PositiveCount, RelativePath, printable
from finetune_trainer.contract.uri import Uri, parse_uri
from finetune_trainer.contract.wire import TolerantWire

MANIFEST_VERSION = 1


class ManifestFile(TolerantWire):
    """One file of the output."""

    path: RelativePath = Field(description="Path relative to the manifest's folder, with '/'.")
    size: Count = Field(description="Size in bytes.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class SourceObject(TolerantWire):
    """One stored object that a run has read."""

    uri: str
    size: int = Field(ge=0, description="Size in bytes.")
    etag: str | None = None
    sha256: str | None = None
    revision: str | None = Field(None, description="Commit of a file from the Hub.")

    @property
    def location(self) -> Uri:
        """The parsed URI.

        Raises:
            ValueError: the URI is not valid; see `parse_uri`.
        """
        return parse_uri(self.uri)


class DataFacts(TolerantWire):
    """Numbers of rows and tokens of the run."""

    tokens: int = Field(ge=0, description="Tokens of the trained rows, after the cut.")
    trained_tokens: int = Field(ge=0, description="Tokens of the trained rows that are in the loss, after the cut.")
    truncated: int = Field(ge=0, description="Rows that were cut to dataset.maxLength.")
    dropped: int = Field(ge=0, description="Rows without a trained token, which were left out.")
    longest: int = Field(ge=0, description="Tokens of the longest row before any cut.")
    duplicates: int = Field(ge=0, description="Rows that repeat an earlier row.")
    validation: int = Field(0, ge=0, description="Validation rows.")
    trained_too: int = Field(
        0,
        ge=0,
        description="Rows of a separate validation data set that were left out because they are trained as well.",
    )


class MemoryFacts(TolerantWire):
    """Memory use of the training, estimated and measured, in bytes."""

    estimate_bytes: int | None = Field(
        None, ge=0, description="Estimated memory: of the GPU, or of the process when there is no GPU."
    )
    peak_gpu_memory_bytes: int | None = Field(None, ge=0, description="Highest GPU memory that tensors have used.")
    peak_gpu_reserved_bytes: int | None = Field(
        None, ge=0, description="Highest GPU memory that torch's allocator has reserved."
    )
    peak_memory_bytes: int | None = Field(None, ge=0, description="Highest resident memory of the process.")


class Manifest(TolerantWire):
    """The manifest of a run: its output files, its inputs, and its writer."""

    version: int = MANIFEST_VERSION
    fingerprint: Line
    adapter: RelativePath = Field(description="The adapter's folder, relative to the manifest's folder.")
    merged: RelativePath | None = Field(
        None, description="The merged model's folder, relative to the manifest's folder, if there is one."
    )
    files: list[ManifestFile]
    base_model: Line = Field(description="The base model, as a server should name it.")
    base_model_revision: Line | None = Field(None, description="Commit of a Hub model on which the run has trained.")
    dataset: list[SourceObject]
    initial_adapter: list[SourceObject] = Field(
        default_factory=list, description="The files of the initial adapter, if there is one."
    )
    rows: int | None = Field(None, ge=0)
    data: DataFacts | None = None
    rank: PositiveCount
    target_modules: list[Line]
    modules_without_adapter: list[Line] = Field(
        default_factory=list,
        description="Linear layers and experts without an adapter, the output head left out; * is a layer's number.",
    )
    metrics: dict[Line, float] = Field(default_factory=dict)
    memory: MemoryFacts | None = None
    losses: LossSummary = Field(default_factory=LossSummary, description="Summary of the loss history.")
    versions: dict[str, str] = Field(default_factory=dict, description="Versions of packages that affect the result.")
    recipe: dict[str, Any] = Field(
        default_factory=dict, description="The recipe, without the job's identity and the storage's addresses."
    )
    attempt: Count
    writer: Line
    job_uid: Line | None = Field(
        None,
        description="UID of the FineTuneJob. The job's next attempt recognises its adapter by it. None in a local run.",
    )
    created: datetime

    @property
    def size(self) -> int:
        """Total size of all files, in bytes."""
        return sum(file.size for file in self.files)

    @classmethod
    def parse(cls, content: bytes) -> "Manifest":
        """The parsed manifest.

        Raises:
            ValueError: the content is not a manifest of this version; the message says why, in one line.
        """
        try:
            manifest = cls.model_validate_json(content)
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_input=False)[0]
            field = printable(".".join(str(part) for part in wrong["loc"][:3])[:MAX_TEXT])
            raise ValueError(f"it is no manifest: {f'{field}: ' if field else ''}{wrong['msg']}") from None
        if manifest.version != MANIFEST_VERSION:
            raise ValueError(f"its version is {manifest.version}, and this trainer reads version {MANIFEST_VERSION}")
        return manifest

    @classmethod
    def read(cls, content: bytes) -> "Manifest | None":
        """The parsed manifest; None if the content is not a manifest of this version."""
        try:
            return cls.parse(content)
        except ValueError:
            return None

    def belongs_to(self, uid: str) -> bool:
        """Whether the job with this UID has made the manifest; false for the empty UID of a local run."""
        return bool(uid) and self.job_uid == uid
