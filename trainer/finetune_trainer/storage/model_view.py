"""The folder from which a cached model is loaded. It has exactly the files that the model's source has.

transformers, tokenizers and PEFT look for many file names in a model's folder. A `model.safetensors` is preferred to
the shards of an index, an `adapter_config.json` adds an adapter, a `tokenizer_config.json` names classes. Another job
that may write to the volume could add such a file. So the pod loads nothing from the volume's folder, but makes a
folder of its own. Small files decide what is loaded and how: they are copied, and the copies are verified. Large files
hold weights: they are linked.
"""

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.storage.content import damage

COPIED_BYTES = 64 << 20
"""Size of the largest file that is copied. Tokenizers are smaller. Copies of weights up to this size cost little."""


class ChangedError(Exception):
    """A file of the volume differs from the file that its source has."""


def model_view(entry: Path, objects: Sequence[SourceObject], folder: Path) -> Path:
    """Makes `folder`, on the pod's own disk, from a verified entry of the cache. Returns the folder.

    Raises:
        ChangedError: a file of the entry differs from its source, or is a link, a pipe or a device.
        OSError: the entry cannot be read, or the folder cannot be written.
    """
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    # No link is followed, neither for the entry nor for its files: a link on a shared volume would lead into this
    # pod's own file system.
    directory = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for item in objects:
            _put(item, entry, directory, folder)
    finally:
        os.close(directory)
    return folder


def _put(item: SourceObject, entry: Path, directory: int, folder: Path) -> None:
    name = item.uri.rsplit("/", 1)[-1]
    target = folder / name
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode) or status.st_size != item.size:
        raise ChangedError(f"{entry / name} is not the file that was checked")
    if item.size > COPIED_BYTES:
        target.symlink_to(entry / name)
        return
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    with os.fdopen(descriptor, "rb") as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy)
    if said := damage(target, item):
        raise ChangedError(f"{entry / name} {said}")
