"""Several files at a time: one connection seldom fills the network, and files are checked while others arrive."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.storage.base import ByteCount, Store

FILES_AT_A_TIME = 4


class _AnotherFailedError(Exception):
    """Ends a download because another one has failed; never seen outside."""


def download_all(
    store: Store, objects: Sequence[SourceObject], folder: Path, on_bytes: ByteCount, *, link: bool = True
) -> None:
    """Puts objects into a folder, each under the last part of its name; the first failure ends all of them.

    Args:
        store: where they are; its `download` is called from several threads.
        objects: what `stat` found.
        folder: it is made.
        on_bytes: see `Store.download`; called from several threads.
        link: see `Store.download`.

    Raises:
        TrainerError: the storage's reason.
        Exception: what `on_bytes` raises.
    """
    folder.mkdir(parents=True, exist_ok=True)
    failed = threading.Event()

    def counted(count: int) -> None:
        if failed.is_set():
            raise _AnotherFailedError
        on_bytes(count)

    def download(item: SourceObject) -> None:
        if not failed.is_set():
            store.download(item, folder / item.uri.rsplit("/", 1)[-1], counted, link=link)

    with ThreadPoolExecutor(FILES_AT_A_TIME, thread_name_prefix="download") as pool:
        try:
            for future in as_completed([pool.submit(download, item) for item in objects]):
                future.result()
        except BaseException:
            failed.set()
            raise
