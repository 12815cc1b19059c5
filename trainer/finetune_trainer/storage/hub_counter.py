"""Counting the bytes that the Hub's client fetches: it tells of them by a progress bar, and by nothing else."""

from typing import Any

from tqdm import tqdm

from finetune_trainer.storage.base import ByteCount


class _Counter(tqdm):  # type: ignore[type-arg]
    """A progress bar that shows nothing and passes the bytes on: the client's one way to tell of them."""

    on_bytes: ByteCount

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "disable": True})

    def update(self, n: float | None = 1) -> bool | None:
        type(self).on_bytes(int(n or 0))
        return None

    def update_transfer(self, n: float) -> None:
        """Bytes on the wire, which `update` counts once they are a file's (huggingface_hub:file_download.py)."""

    def set_transfer_postfix_str(self, *_: Any, **__: Any) -> None:
        """A rate, for a bar that is shown."""


def counter(on_bytes: ByteCount) -> type[_Counter]:
    """The client takes a class and makes the bar itself."""
    return type("_BoundCounter", (_Counter,), {"on_bytes": staticmethod(on_bytes)})
