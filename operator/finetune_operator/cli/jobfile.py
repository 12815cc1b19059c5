"""Reads a FineTuneJob from a YAML file, as kubectl does, for a run without a cluster."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finetune_operator.api import names, suggestion
from finetune_operator.api.finetunejob import SpecError, parse_spec
from finetune_operator.api.profile import Profile
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.status import ProfileStatus
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
    """A FineTuneJob from a file.

    Attributes:
        source: where it was read, for messages.
        name: its name.
        spec: its spec with all defaults; once `with_profiles` has resolved it, with what its profiles supply.
        raw: the document as it was written.
        profiles: the profiles that it was resolved with; each wins over the one before.
        profile: the record of them; None without any.
    """

    source: str
    name: str
    spec: FineTuneJobSpec
    raw: Mapping[str, Any]
    profiles: tuple[Profile, ...] = ()
    profile: ProfileStatus | None = None

    @property
    def namespace(self) -> str | None:
        """The namespace that the document names; None if it names none."""
        namespace: str | None = self.raw["metadata"].get("namespace")
        return namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document of a YAML text: its content, and a problem for each duplicate key in it."""

    content: Any
    duplicates: tuple[Problem, ...]

    @property
    def is_job(self) -> bool:
        """Whether it is a FineTuneJob, valid or not."""
        return isinstance(self.content, dict) and self.content.get("kind") == names.KIND

    @property
    def kind(self) -> str:
        """Its kind, for messages."""
        return str(self.content.get("kind")) if isinstance(self.content, dict) else "text"


def read_job_file(path: Path, *, local: bool) -> JobFile:
    """Reads the one FineTuneJob of a YAML file. Other documents in the file are ignored.

    Args:
        path: the file.
        local: whether it is for a run on this machine, where file:// URIs are allowed.

    Raises:
        JobFileError: the file does not exist, is not YAML, has not exactly one FineTuneJob, or its spec is invalid.
    """
    documents = documents_of(content_of(path), str(path))
    jobs = [item for item in documents if item.is_job]
    if len(jobs) != 1:
        kinds = ", ".join(item.kind for item in documents) or "nothing"
        raise JobFileError(f"{path}: expected exactly one {names.KIND}, found {kinds}")
    return job_of(jobs[0], str(path), local=local)


def content_of(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        JobFileError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise JobFileError(f"{path}: {error.strerror}") from None


def documents_of(content: bytes, source: str) -> list[Document]:
    """The documents of a YAML text that are not empty.

    Raises:
        JobFileError: it is not UTF-8 or not YAML. `source` names it.
    """
    try:
        return _documents(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise JobFileError(f"{source}: not UTF-8 at byte {error.start}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise JobFileError(f"{source}: not YAML: {' '.join(str(error).split())}") from None


def _documents(text: str) -> list[Document]:
    loader = _Loader(text)
    try:
        documents = []
        while loader.check_data():  # type: ignore[no-untyped-call]
            loader.duplicates = []
            content = loader.get_data()
            if content is not None:
                documents.append(Document(content=content, duplicates=tuple(loader.duplicates)))
        return documents
    finally:
        loader.dispose()


def job_of(document: Document, source: str, *, local: bool) -> JobFile:
    """The job of a document.

    Args:
        document: a FineTuneJob.
        source: where it was read, for messages.
        local: whether it is for a run on this machine.

    Raises:
        JobFileError: it is invalid; the message lists every problem.
    """
    raw: dict[str, Any] = document.content
    problems = [*document.duplicates]
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
            # Profiles may supply what it leaves out.
            spec = parse_spec(raw_spec, local=local, own_values=True)
    except SpecError as error:
        problems += error.problems
    if problems or spec is None:
        raise JobFileError(listed(source, problems))
    return JobFile(source=source, name=str(name), spec=spec, raw=raw)


def listed(source: str, problems: Sequence[Problem]) -> str:
    """What is said of a document with problems: their number, and each on a line of its own."""
    lines = "\n".join(f"  {problem}" for problem in problems)
    return f"{source}: {len(problems)} problem{'s' * (len(problems) != 1)}\n{lines}"
