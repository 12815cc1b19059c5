"""Which files under a prefix are data.

Folders come as tools leave them: a repository copied from a hub has a README and a licence beside its Parquet files,
`datasets` writes descriptions, Spark and Jupyter leave markers. None of these files holds rows.
"""

import posixpath
import re
from collections.abc import Sequence

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe.dataset import TRAIN_SPLIT
from finetune_trainer.contract.text import printable
from finetune_trainer.contract.uri import Uri
from finetune_trainer.inputs.split_names import split_in_path

_DESCRIPTIONS = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
_NO_DATA = re.compile(
    r"(README|LICEN[CS]E|NOTICE|CITATION|CHANGELOG)(\..*)?|.*\.(md|ya?ml|py|crc|sha256)", re.IGNORECASE
)


def data_files(prefix: Uri, listed: Sequence[SourceObject]) -> list[SourceObject]:
    """The files of a prefix that hold rows, in their order.

    A file whose name begins with '.' or '_' is left out, so are all files in a folder with such a name, descriptions of
    `datasets`, and files of text about the data.

    Args:
        prefix: the prefix.
        listed: all its files.

    Raises:
        TrainerError: DATASET_INVALID, the prefix has training rows beside test or validation rows: the names are those
            that `datasets` takes for splits, and all would be trained. DATASET_NOT_FOUND, no file holds rows.
    """
    top = str(prefix).rstrip("/") + "/"
    paths = {item.uri: item.uri.removeprefix(top) for item in listed}
    files = [item for item in listed if may_hold_rows(paths[item.uri])]
    if not files:
        raise TrainerError(FailureReason.DATASET_NOT_FOUND, f"{prefix} holds only marker files, no data")
    splits = {paths[item.uri]: split_in_path(paths[item.uri]) for item in files}
    held_out = [path for path, split in splits.items() if split not in (None, TRAIN_SPLIT)]
    train = [path for path, split in splits.items() if split == TRAIN_SPLIT]
    if train and held_out:
        raise TrainerError(
            FailureReason.DATASET_INVALID,
            f"{prefix}: found the splits of a data set side by side ({some(train)}; {some(held_out)}), expected "
            "training rows alone; name the files to train in dataset.uris, and perhaps one of the others in "
            "dataset.validation.uri",
        )
    return files


def may_hold_rows(path: str) -> bool:
    """Whether a file may hold rows, by its path: it is no marker, no description and no text about the data."""
    name = posixpath.basename(path)
    marker = any(part.startswith((".", "_")) for part in path.split("/"))
    return not marker and name not in _DESCRIPTIONS and _NO_DATA.fullmatch(name) is None


def some(paths: Sequence[str]) -> str:
    """The first two paths and the number of the others, for messages."""
    more = f" and {len(paths) - 2} more" if len(paths) > 2 else ""
    return ", ".join(printable(path) for path in paths[:2]) + more
