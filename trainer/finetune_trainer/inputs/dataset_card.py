"""The configs of a Hub data set, from the YAML at the head of its README.md.

    configs:
    - config_name: en
      default: true
      data_files:
      - split: train
        path: en/train-*

All scalars are read as text: `config_name: no` is a name and not false.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from finetune_trainer.contract.recipe.dataset import TRAIN_SPLIT
from finetune_trainer.contract.text import printable

CARD = "README.md"
LONGEST_CARD = 4 << 20
"""Largest size of a card, in bytes. Data sets with thousands of configs have a megabyte."""
_MOST_PATTERNS = 50_000


class CardError(Exception):
    """A card that cannot be used. The message says why, and follows the card's name and a colon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """A config (a subset) of a data set.

    Attributes:
        name: its name.
        default: whether it is marked as the default.
        folder: the folder that its patterns are relative to; empty for the top.
        patterns: patterns of the paths of each split; None when the splits follow from the names of files.
    """

    name: str
    default: bool
    folder: str
    patterns: dict[str, list[str]] | None


def configs_of(card: bytes) -> list[DataConfig]:
    """The configs that a card declares; empty when it declares none.

    Raises:
        CardError: the YAML or its `configs` cannot be read; the message says where.
    """
    # Here, because only data sets of the Hub need it: a run of other data starts without.
    import yaml

    head = _front_matter(card.decode("utf-8", errors="replace"))
    # It makes no Python objects but text, lists and dicts.
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        content = yaml.load(head, Loader=loader) if head else None  # noqa: S506 (a BaseLoader is safe)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise CardError(_in_words(error)) from error
    declared = content.get("configs") if isinstance(content, dict) else None
    if declared in (None, ""):
        return []
    if not isinstance(declared, list):
        raise CardError("configs are no list")
    budget = _Budget()
    configs = [_config(item, f"configs[{number}]", budget) for number, item in enumerate(declared)]
    [(name, count)] = Counter(config.name for config in configs).most_common(1)
    if count > 1:
        raise CardError(f"there are {count} configs {printable(name)}")
    return configs


class _Budget:
    """Bounds the work on one card: with anchors of YAML, a short text may stand for an endless list."""

    def __init__(self) -> None:
        self._left = _MOST_PATTERNS

    def take(self, count: int) -> None:
        """Raises CardError when more patterns are taken than a card may have."""
        self._left -= count
        if self._left < 0:
            raise CardError(f"the configs have more than {_MOST_PATTERNS:,} data_files")


def _front_matter(text: str) -> str:
    lines = text.removeprefix("\ufeff").lstrip().splitlines()
    if not lines or lines[0].rstrip() != "---":
        return ""
    end = next((number for number, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    return "" if end is None else "\n".join(lines[1:end])


def _config(item: Any, where: str, budget: _Budget) -> DataConfig:
    if not isinstance(item, dict):
        raise CardError(f"{where} is no config")
    name, folder = item.get("config_name"), item.get("data_dir", "")
    if not isinstance(name, str) or not name:
        raise CardError(f"{where} has no config_name")
    if not isinstance(folder, str):
        raise CardError(f"{where}.data_dir is no path")
    files = item.get("data_files")
    patterns = None if files in (None, "") else dict(_splits(files, f"{where}.data_files", budget))
    return DataConfig(
        name=name,
        default=str(item.get("default", "")).lower() == "true",
        folder=folder.strip("/").removeprefix("./"),
        patterns=patterns,
    )


def _splits(files: Any, where: str, budget: _Budget) -> Iterator[tuple[str, list[str]]]:
    """The patterns of each split, from one of the forms that `datasets` reads."""
    if isinstance(files, dict):
        for split, paths in files.items():
            yield str(split), _paths(paths, where, budget)
    elif isinstance(files, list) and files and all(isinstance(entry, dict) for entry in files):
        for number, entry in enumerate(files):
            split = entry.get("split", TRAIN_SPLIT)
            if not isinstance(split, str) or "path" not in entry:
                raise CardError(f"{where}[{number}] lacks split or path")
            yield split, _paths(entry["path"], f"{where}[{number}].path", budget)
    else:
        yield TRAIN_SPLIT, _paths(files, where, budget)


def _paths(paths: Any, where: str, budget: _Budget) -> list[str]:
    found: Sequence[Any] = paths if isinstance(paths, list) else [paths]
    budget.take(len(found))
    if not found or not all(isinstance(path, str) and path for path in found):
        raise CardError(f"{where} is no path and no list of paths")
    return list(found)


def _in_words(error: Exception) -> str:
    """A YAML error in one line, with the line of the card."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    line = f" in line {mark.line + 2}" if mark is not None else ""
    return printable(" ".join(f"the YAML cannot be read{line}: {problem}".split()))[:300]
