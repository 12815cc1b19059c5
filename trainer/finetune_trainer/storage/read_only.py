"""The half of a store that is only read: every write is refused."""

from pathlib import Path
from typing import ClassVar, NoReturn

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.uri import Uri
from finetune_trainer.storage.base import ByteCount


class ReadOnlyStore:
    """Refuses the writes of `Store` with NOT_SUPPORTED.

    Attributes:
        place: what is only read, for the message.
    """

    place: ClassVar[str]

    def upload(self, path: Path, uri: Uri, on_bytes: ByteCount) -> None:  # noqa: ARG002 (the Protocol's)
        """Refused."""
        self._refuse(uri)

    def create(self, uri: Uri, content: bytes) -> None:  # noqa: ARG002
        """Refused."""
        self._refuse(uri)

    def replace(self, uri: Uri, content: bytes, expected: bytes | None = None) -> None:  # noqa: ARG002
        """Refused."""
        self._refuse(uri)

    def delete(self, uri: Uri) -> None:
        """Refused."""
        self._refuse(uri)

    def delete_folder(self, uri: Uri) -> None:
        """Refused."""
        self._refuse(uri)

    def _refuse(self, uri: Uri) -> NoReturn:
        raise TrainerError(FailureReason.NOT_SUPPORTED, f"{uri}: {self.place} is only read; put the output into s3://")
