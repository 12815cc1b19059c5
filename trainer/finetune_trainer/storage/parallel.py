"""Downloads several files in parallel.

One connection seldom uses the whole network bandwidth. Also, some files are checked while others are downloaded.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.storage.base import ByteCount, Store

FILES_AT_A_TIME = 4


class _AnotherFailedError(Exception):
    """Ends a download because another one has failed. `download_all` raises the first error instead."""


def _last_segment(item: SourceObject) -> str:
    return item.uri.rsplit("/", 1)[-1]


def download_all(
    store: Store,
    objects: Sequence[SourceObject],
    folder: Path,
    on_bytes: ByteCount,
    *,
    link: bool = True,
    name: Callable[[SourceObject], str] = _last_segment,
) -> None:
    """Downloads objects into a folder.

    The first failure ends all downloads.

    Args:
        store: the objects' store. Several threads call its `download`.
        objects: the objects, as `stat` returned them.
        folder: the folder, which is created.
        on_bytes: see `Store.download`. Several threads call it.
        link: see `Store.download`.
        name: returns an object's file name in the folder: by default the last segment of its URI.

    Raises:
        TrainerError: the store's error.
        Exception: any exception of `on_bytes`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    failed = threading.Event()

    def counted(count: int) -> None:
        if failed.is_set():
            raise _AnotherFailedError
        on_bytes(count)

    def download(item: SourceObject) -> None:
        if not failed.is_set():
            store.download(item, folder / name(item), counted, link=link)

    with ThreadPoolExecutor(FILES_AT_A_TIME, thread_name_prefix="download") as pool:
        try:
            for future in as_completed([pool.submit(download, item) for item in objects]):
                future.result()
        except BaseException:
            failed.set()
            raise
