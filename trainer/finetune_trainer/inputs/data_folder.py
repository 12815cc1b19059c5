"""Which files under a prefix are data.

Folders come as tools leave them: a repository copied from a hub has a README and a licence beside its Parquet files,
`datasets` writes descriptions, Spark and Jupyter leave markers. None of these files holds rows.
"""

import posixpath
import re
from collections.abc import Sequence

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.text import printable
from finetune_trainer.contract.uri import Uri

_DESCRIPTIONS = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
_NO_DATA = re.compile(
    r"(README|LICEN[CS]E|NOTICE|CITATION|CHANGELOG)(\..*)?|.*\.(md|ya?ml|py|crc|sha256)", re.IGNORECASE
)
_HELD_OUT = re.compile(
    r"(?:^|[-_./])(test|testing|validation|valid|val|dev|eval|evaluation)(?=[-_./\d]|$)", re.IGNORECASE
)
_TRAIN = re.compile(r"(?:^|[-_./])(train|training)(?=[-_./\d]|$)", re.IGNORECASE)


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
    files = [item for item in listed if not _is_marker(paths[item.uri]) and not _is_about_data(paths[item.uri])]
    if not files:
        raise TrainerError(FailureReason.DATASET_NOT_FOUND, f"{prefix} holds only marker files, no data")
    held_out = [path for item in files if _HELD_OUT.search(path := paths[item.uri]) and not _TRAIN.search(path)]
    train = [path for item in files if _TRAIN.search(path := paths[item.uri])]
    if train and held_out:
        raise TrainerError(
            FailureReason.DATASET_INVALID,
            f"{prefix}: found the splits of a data set side by side ({_some(train)}; {_some(held_out)}), expected "
            "training rows alone; name the files to train in dataset.uris, and perhaps one of the others in "
            "dataset.validation.uri",
        )
    return files


def _is_marker(path: str) -> bool:
    return any(part.startswith((".", "_")) for part in path.split("/"))


def _is_about_data(path: str) -> bool:
    name = posixpath.basename(path)
    return name in _DESCRIPTIONS or _NO_DATA.fullmatch(name) is not None


def _some(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 2} more" if len(paths) > 2 else ""
    return ", ".join(printable(path) for path in paths[:2]) + more
