"""Which files of a Hub data set hold the rows of a split.

A place is a data set, one of its configs, a folder, a file, or a pattern of paths. What the card declares counts
(`dataset_card`); without it the names of files and folders do (`split_names`). Code in a repository is never run.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe.dataset import DatasetFormat
from finetune_trainer.contract.text import printable
from finetune_trainer.contract.uri import Uri
from finetune_trainer.data.formats.file_name import format_of_name
from finetune_trainer.inputs.data_folder import may_hold_rows, some
from finetune_trainer.inputs.dataset_card import CARD, CardError, DataConfig, configs_of
from finetune_trainer.inputs.path_pattern import is_pattern, matching_paths
from finetune_trainer.inputs.split_names import by_split, folders_with_splits, missing_shards

_CONVERSION = "refs/convert/parquet"
_PARTIAL = "partial-"
_DEFAULT = "default"
_NAMED = 12
"""Number of names in a message."""
_SCRIPT = ".py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which rows are wanted.

    Attributes:
        split: the split.
        chosen: whether the user has named the split.
        field: the field that names it, for messages.
        format: the file format of the recipe.
    """

    split: str
    chosen: bool
    field: str
    format: DatasetFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What a place holds.

    Attributes:
        where: the place, for messages.
        splits: names of its splits.
        paths: the paths of the wanted split, in reading order; empty when there is no such split.
        declared: whether the card names the files, so that all of them are meant.
    """

    where: str
    splits: list[str]
    paths: list[str]
    declared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HubDataset:
    """The files of a data set at one commit.

    Attributes:
        uri: the data set.
        files: its files by their paths, sorted.
        read_card: returns the content of its README.md.
    """

    uri: Uri
    files: dict[str, SourceObject]
    read_card: Callable[[SourceObject], bytes] = field(repr=False)

    @classmethod
    def of(cls, uri: Uri, listed: Sequence[SourceObject], read_card: Callable[[SourceObject], bytes]) -> "HubDataset":
        """The data set of a sorted listing. `uri` has no path."""
        return cls(uri=uri, files={item.uri.removeprefix(f"{uri}/"): item for item in listed}, read_card=read_card)

    def select(self, place: Uri, wanted: Wanted) -> list[SourceObject]:
        """The files of a place that hold the wanted rows, in reading order.

        Raises:
            TrainerError: DATASET_NOT_FOUND, the data set has no such config, folder, file or split, or no data files.
                DATASET_INVALID, it does not say which files are meant: it has several configs and no default, a split
                in several formats, a card that cannot be read, or not all shards of a split. INVALID_SPEC, the place is
                a file, and a split is named. Else the store's error.
        """
        name = place.path.strip("/")
        if name in self.files or is_pattern(name):
            paths = self._named(name, wanted)
        else:
            found = self._found(name, wanted)
            self._check(found, wanted)
            paths = found.paths
        return [self.files[path] for path in paths]

    def _named(self, name: str, wanted: Wanted) -> list[str]:
        """The files that a path or a pattern names."""
        if wanted.chosen:
            raise TrainerError(
                FailureReason.INVALID_SPEC,
                f"{wanted.field}: {wanted.split}: {self.uri}/{printable(name)} names files, which have no splits: "
                f"remove the field, or name the data set alone ({self.uri})",
            )
        if name in self.files:
            return [name]
        found = matching_paths(name, filter(may_hold_rows, self.files))
        if not found:
            raise self._not_found(f"no file matches {printable(name)}; there are {_names(self._tops())}")
        return found

    def _found(self, name: str, wanted: Wanted) -> _Found:
        """What a config or a folder holds; with an empty name, the data set."""
        configs = self._configs()
        config = next((one for one in configs if one.name == name), None) if name else _default(configs)
        if config is not None:
            return self._in_config(config, wanted)
        if not name and configs:
            raise self._invalid(
                f"it has {len(configs)} configs and no default: {_names(one.name for one in configs)}; add the name of "
                f"one, for example {self.uri}/{printable(configs[0].name)}"
            )
        if not name:
            return self._in_folder(self._top_folder(wanted), wanted)
        if not self._below(name):
            known = [one.name for one in configs] or self._tops()
            kind = "configs" if configs else "folders and files"
            raise self._not_found(
                f"it has no config, folder or file {printable(name)}: it has the {kind} {_names(known)}"
            )
        return self._in_folder(name, wanted)

    def _configs(self) -> list[DataConfig]:
        card = self.files.get(CARD)
        if card is None:
            return []
        try:
            return configs_of(self.read_card(card))
        except CardError as error:
            raise self._invalid(
                f"its {CARD}: {error}; name the files that are meant in dataset.uri or dataset.uris, for example "
                f"{self.uri}/data/train-*"
            ) from error

    def _in_config(self, config: DataConfig, wanted: Wanted) -> _Found:
        where = f"the config {printable(config.name)}"
        if config.patterns is None:
            return replace(self._in_folder(config.folder, wanted), where=where)
        base = f"{config.folder}/" if config.folder else ""
        patterns = config.patterns.get(wanted.split, [])
        paths = list(dict.fromkeys(path for pattern in patterns for path in self._matching(pattern, base)))
        if patterns and not paths:
            named = _names(base + pattern for pattern in patterns)
            raise self._not_found(f"no file matches the data_files of {where}, split {wanted.split}: {named}")
        return _Found(where=where, splits=list(config.patterns), paths=paths, declared=True)

    def _matching(self, pattern: str, base: str) -> list[str]:
        if "://" in pattern:
            raise self._invalid(
                f"its {CARD} takes data from {printable(pattern)}, outside the repository: name that place in "
                "dataset.uris"
            )
        whole = base + pattern.removeprefix("./").lstrip("/")
        if whole in self.files:
            return [whole]
        return self._below(whole.rstrip("/")) or matching_paths(whole, filter(may_hold_rows, self.files))

    def _top_folder(self, wanted: Wanted) -> str:
        """The folder that holds the rows of a data set without configs: the top, or `default` of several.

        Raises:
            TrainerError: DATASET_INVALID. Several folders have splits of their own: a language each, for example.
        """
        folders = folders_with_splits(self._with_rows(self._below(""), wanted))
        if len(folders) < 2 or _DEFAULT in folders:
            return _DEFAULT if _DEFAULT in folders else next(iter(folders), "")
        raise self._invalid(
            f"it has no configs, and {len(folders)} folders with splits of their own: {_names(folders)}; add the name "
            f"of one ({self.uri}/{printable(folders[0])}), or list several in dataset.uris"
        )

    def _in_folder(self, folder: str, wanted: Wanted) -> _Found:
        """The splits of a folder by the names of its files."""
        base = f"{folder}/" if folder else ""
        splits = by_split([path.removeprefix(base) for path in self._with_rows(self._below(folder), wanted)])
        paths = [base + path for path in splits.get(wanted.split, [])]
        return _Found(where=f"the folder {printable(folder)}" if folder else "it", splits=list(splits), paths=paths)

    def _with_rows(self, paths: list[str], wanted: Wanted) -> list[str]:
        """The paths of the recipe's format; with `auto`, of any format, text files only when there are no others."""
        formats = {path: format_of_name(path) for path in paths}
        if wanted.format is not DatasetFormat.AUTO:
            return [path for path, found in formats.items() if found is wanted.format] or paths
        known = [path for path, found in formats.items() if found is not None]
        return [path for path in known if formats[path] is not DatasetFormat.TEXT] or known

    def _check(self, found: _Found, wanted: Wanted) -> None:
        """Checks that the wanted split is there, as a whole and once.

        Raises:
            TrainerError: see `select`.
        """
        if not found.splits:
            raise self._no_data()
        part = f"{_PARTIAL}{wanted.split}"
        if not found.paths and part in found.splits:
            raise self._invalid(
                f"{found.where} has only a part of the split {wanted.split}: the Hub's Parquet conversion leaves out "
                f"the rest of large data sets; set {wanted.field} to {part} to use that part"
            )
        if not found.paths:
            raise self._not_found(
                f"{found.where} has no split {wanted.split}: it has {_names(found.splits)}; set {wanted.field}"
            )
        formats = {format_of_name(path): path for path in found.paths}
        if len(formats) > 1 and not found.declared:
            raise self._invalid(
                f"{found.where} has the split {wanted.split} in several formats ({_names(formats.values())}), perhaps "
                "the same rows twice: set dataset.format, or name the files in dataset.uris"
            )
        if missing := missing_shards(found.paths, self.files):
            raise self._invalid(
                f"{found.where} lacks files of the split {wanted.split}: {_names(missing)}; upload them, or name the "
                "files that are meant in dataset.uris"
            )

    def _below(self, folder: str) -> list[str]:
        """The paths in a folder that may hold rows, sorted."""
        base = f"{folder}/" if folder else ""
        return [path for path in self.files if path.startswith(base) and may_hold_rows(path.removeprefix(base))]

    def _tops(self) -> list[str]:
        """The folders and files at the top."""
        return list(dict.fromkeys(path.partition("/")[0] for path in self.files if not path.startswith(".")))

    def _no_data(self) -> TrainerError:
        scripts = [path for path in self.files if "/" not in path and path.endswith(_SCRIPT)]
        if scripts:
            return self._not_found(
                f"it has a loading script ({some(scripts)}) and no data files; scripts are never run. Set "
                f"dataset.revision to {_CONVERSION}, where the Hub has converted many such data sets to Parquet, or "
                "write the rows to a file yourself (Dataset.to_json) and upload it"
            )
        others = [path for path in self.files if may_hold_rows(path)]
        holds = f"only {some(others)}" if others else "no files of rows"
        return self._not_found(f"it has {holds}, and none of jsonl, JSON, CSV, TSV, text or Parquet")

    def _not_found(self, message: str) -> TrainerError:
        return TrainerError(FailureReason.DATASET_NOT_FOUND, f"{self.uri}: {message}")

    def _invalid(self, message: str) -> TrainerError:
        return TrainerError(FailureReason.DATASET_INVALID, f"{self.uri}: {message}")


def _default(configs: Sequence[DataConfig]) -> DataConfig | None:
    """The config to read when none is named: the one that is marked, the one called default, or the only one."""
    if len(configs) == 1:
        return configs[0]
    marked = [config for config in configs if config.default]
    if len(marked) == 1:
        return marked[0]
    return next((config for config in configs if config.name == _DEFAULT), None)


def _names(names: Iterable[str]) -> str:
    shown = [printable(name) for name in names]
    more = f" and {len(shown) - _NAMED} more" if len(shown) > _NAMED else ""
    return ", ".join(shown[:_NAMED]) + more
