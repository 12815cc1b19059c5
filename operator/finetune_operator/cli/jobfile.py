"""Reads a FineTuneJob from a YAML file, as kubectl does, for a run without a cluster."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finetune_operator.api import names, suggestion
from finetune_operator.api.finetunejob import SpecError, parse_spec
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_trainer.contract.problem import Problem, shown

_TOP_LEVEL = ("apiVersion", "kind", "metadata", "spec")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class _Loader(yaml.SafeLoader):
    """Reads YAML as kubectl does.

    `2e-4` is a number; PyYAML alone reads it as text (yaml/pyyaml#173). A duplicate key is a problem; PyYAML alone
    silently uses the last one.

    Attributes:
        duplicates: a problem for each duplicate key.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.duplicates: list[Problem] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        """The mapping of a node. Duplicate keys are added to `duplicates`."""
        first: dict[str, int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                line = key.start_mark.line + 1
                if key.value in first:
                    message = f"is in line {first[key.value]} already: remove one of the two"
                    value_text = shown(value.value) if isinstance(value, yaml.ScalarNode) else "another section"
                    self.duplicates.append(Problem(path=f"line {line}: {key.value}", value=value_text, message=message))
                first.setdefault(key.value, line)
        return super().construct_mapping(node, deep)


def _number(loader: _Loader, node: yaml.ScalarNode) -> float | int:
    """A number as in JSON: kubectl sends 16.0 and 1e3 as 16 and 1000."""
    value = float(loader.construct_yaml_float(node))
    return int(value) if value.is_integer() and abs(value) < _JSON_WHOLE else value


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    """A date as text, as kubectl reads it."""
    return loader.construct_yaml_str(node)


_JSON_WHOLE = 1e21
"""From here on kubectl writes an exponent, so the number is not an integer any more."""

_Loader.add_constructor("tag:yaml.org,2002:float", _number)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _text)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+([.][0-9]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


class JobFileError(Exception):
    """The file has no FineTuneJob that can run. The message lists every problem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFile:
    """A FineTuneJob from a file: its name, and its spec with all defaults."""

    name: str
    spec: FineTuneJobSpec


def read_job_file(path: Path, *, local: bool) -> JobFile:
    """Reads the one FineTuneJob of a YAML file. Other documents in the file are ignored.

    Args:
        path: the file.
        local: whether it is for a run on this machine, where file:// URIs are allowed.

    Raises:
        JobFileError: the file does not exist, is not YAML, has not exactly one FineTuneJob, or its spec is invalid.
    """
    try:
        text = path.read_text(encoding="utf-8")
        documents, duplicates = _documents(text)
    except OSError as error:
        raise JobFileError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise JobFileError(f"{path}: not UTF-8 at byte {error.start}") from None
    except yaml.YAMLError as error:
        raise JobFileError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    jobs = [item for item in documents if isinstance(item, dict) and item.get("kind") == names.KIND]
    if len(jobs) != 1:
        kinds = (
            ", ".join(str(item.get("kind")) if isinstance(item, dict) else "text" for item in documents) or "nothing"
        )
        raise JobFileError(f"{path}: expected exactly one {names.KIND}, found {kinds}")
    return _job(path, jobs[0], duplicates, local=local)


def _documents(text: str) -> tuple[list[Any], list[Problem]]:
    """The documents that are not empty, and a problem for each duplicate key."""
    loader = _Loader(text)
    try:
        documents = []
        while loader.check_data():  # type: ignore[no-untyped-call]
            documents.append(loader.get_data())
        return [item for item in documents if item is not None], loader.duplicates
    finally:
        loader.dispose()


def _job(path: Path, raw: dict[str, Any], duplicates: list[Problem], *, local: bool) -> JobFile:
    """The job of a document.

    Args:
        path: the file, for messages.
        raw: the document.
        duplicates: problems of the file that are known.
        local: whether it is for a run on this machine.
    """
    problems = [*duplicates]
    if raw.get("apiVersion") != names.API_VERSION:
        problems.append(
            Problem(path="apiVersion", value=shown(raw.get("apiVersion")), message=f"must be {names.API_VERSION}")
        )
    metadata = raw.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        problems.append(Problem(path="metadata.name", value=shown(name), message=names.NAME_RULE))
    problems += [
        Problem(
            path=str(key),
            value=shown(value),
            message=f'unknown field "{key}"',
            remedy=suggestion.for_top_level(str(key), _TOP_LEVEL),
        )
        for key, value in raw.items()
        if key not in (*_TOP_LEVEL, "status")
    ]
    spec = None
    raw_spec = raw.get("spec")
    try:
        if not isinstance(raw_spec, dict):
            problems.append(Problem(path="spec", value=shown(raw_spec), message="must be an object"))
        else:
            spec = parse_spec(raw_spec, local=local)
    except SpecError as error:
        problems += error.problems
    if problems or spec is None:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise JobFileError(f"{path}: {len(problems)} problem{'s' * (len(problems) != 1)}\n{lines}")
    return JobFile(name=str(name), spec=spec)
