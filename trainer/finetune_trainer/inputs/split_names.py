"""The splits of a data set, by the names of its files and folders.

The rules are those of `datasets` (datasets:data_files.py), which writes and reads most of these folders. Names are
compared without regard to case, so that `Test.jsonl` is no training data.
"""

import posixpath
import re
from collections.abc import Iterable, Sequence

from finetune_trainer.contract.recipe.dataset import TRAIN_SPLIT, VALIDATION_SPLIT

_KEYWORDS = {
    TRAIN_SPLIT: ("train", "training"),
    VALIDATION_SPLIT: ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Splits and the words for them. A path with words of several splits belongs to the first."""
_WORDS = {
    split: re.compile(rf"(?:^|[-._ 0-9])(?:{'|'.join(words)})(?=[-._ 0-9]|$)", re.IGNORECASE)
    for split, words in _KEYWORDS.items()
}
_SHARDED = re.compile(r"data/(?P<split>\w+(?:\.\w+)*)-\d{5}-of-\d{5}[^/]*\.[^/]*", re.ASCII)
"""What `Dataset.push_to_hub` writes. The name of the split may be any."""
_CONVERTED = re.compile(r"(?P<split>[^/]+)/\d{4,}\.parquet")
"""A config of the Hub's own Parquet conversion. The split of an incomplete conversion is `partial-…`."""
_SHARD = re.compile(r"(?P<before>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<after>[^/]*)")


def by_split(paths: Sequence[str]) -> dict[str, list[str]]:
    """The splits of a folder: the paths of each, in their order.

    The first of these ways that finds a file decides, and files that it does not find belong to no split: shards under
    `data/`; the layout of the Hub's Parquet conversion; folders with a split's name; files with a split's name. When
    none finds a file, all files are training rows.

    Args:
        paths: paths of data files in the folder.
    """
    sharded = _grouped((path, found["split"]) for path in paths if (found := _SHARDED.fullmatch(path)))
    if sharded:
        return sharded
    converted = [_CONVERTED.fullmatch(path) for path in paths]
    if paths and all(converted):
        return _grouped((path, found["split"]) for path, found in zip(paths, converted, strict=True) if found)
    for part_of in (_folders, _file):
        named = _grouped((path, split) for path in paths if (split := _split_of(part_of(path))))
        if named:
            return named
    return {TRAIN_SPLIT: list(paths)} if paths else {}


def folders_with_splits(paths: Sequence[str]) -> list[str]:
    """The folders that each have splits of their own, when there are at least two; else none.

    An example is `en` and `de` in `en/train.jsonl`, `de/train.jsonl`. They may be in one common folder. A config of the
    Hub's Parquet conversion is one even if it is alone.
    """
    if any(map(_SHARDED.fullmatch, paths)):
        return []
    configs = [path.partition("/")[0] for path in paths if _CONVERTED.fullmatch(path.partition("/")[2])]
    if len(configs) == len(paths) and not any(split_in_path(config) for config in configs):
        return list(dict.fromkeys(configs))
    inside: dict[str, list[str]] = {}
    above = posixpath.commonpath([posixpath.dirname(path) for path in paths]) if paths else ""
    base = f"{above}/" if above else ""
    for path in paths:
        folder, separator, rest = path.removeprefix(base).partition("/")
        if separator and split_in_path(folder) is None:
            inside.setdefault(folder, []).append(rest)
    found = [base + folder for folder, rest in inside.items() if all(split_in_path(path) is not None for path in rest)]
    return found if len(found) > 1 else []


def split_in_path(path: str) -> str | None:
    """The split that a path names, in a folder or in the file; None if it names none."""
    return _split_of(path.split("/"))


def missing_shards(paths: Iterable[str], listed: Iterable[str]) -> list[str]:
    """The names of the shards that belong beside some paths and are not listed.

    Args:
        paths: the chosen paths. The name of a shard has its number and the number of all: `train-00000-of-00003`.
        listed: all paths there are.
    """
    there, seen, missing = set(listed), set(), []
    for path in paths:
        found = _SHARD.fullmatch(path)
        key = (found["before"], found["count"], found["after"]) if found else None
        if key is None or key in seen:
            continue
        seen.add(key)
        before, count, after = key
        names = (f"{before}-{number:05}-of-{count}{after}" for number in range(int(count)))
        missing += [name for name in names if name not in there]
    return missing


def _split_of(parts: Sequence[str]) -> str | None:
    return next((split for split, words in _WORDS.items() if any(map(words.search, parts))), None)


def _folders(path: str) -> list[str]:
    return path.split("/")[:-1]


def _file(path: str) -> list[str]:
    return path.split("/")[-1:]


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for path, split in pairs:
        groups.setdefault(split, []).append(path)
    return groups
