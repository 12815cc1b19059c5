"""Reading a FineTuneJob from a YAML file, as kubectl would, for a run without a cluster."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finetune_operator.api import names
from finetune_operator.api.job import SpecError, SpecProblem, parse_spec
from finetune_operator.api.spec import FineTuneJobSpec

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class _Loader(yaml.SafeLoader):
    """Reads `2e-4` as a number, as kubectl does; PyYAML alone takes it for text (yaml/pyyaml#173)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+([.][0-9]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


class JobFileError(Exception):
    """The file holds no FineTuneJob that can run; the message lists every problem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFile:
    """A FineTuneJob as written: its name and its spec with all defaults."""

    name: str
    spec: FineTuneJobSpec


def read_job_file(path: Path) -> JobFile:
    """Reads the one FineTuneJob of a YAML file; other documents in it are passed over.

    Raises:
        JobFileError: no such file, no YAML, not exactly one FineTuneJob, or a spec with problems.
    """
    try:
        text = path.read_text(encoding="utf-8")
        documents = [item for item in yaml.load_all(text, _Loader) if item is not None]
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
    return _job(path, jobs[0])


def _job(path: Path, raw: dict[str, Any]) -> JobFile:
    problems = []
    if raw.get("apiVersion") != names.API_VERSION:
        problems.append(
            SpecProblem(path="apiVersion", value=repr(raw.get("apiVersion")), message=f"must be {names.API_VERSION}")
        )
    metadata = raw.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        message = "must be at most 63 lower-case letters, digits and '-', and start and end with a letter or digit"
        problems.append(SpecProblem(path="metadata.name", value=repr(name), message=message))
    problems += [
        SpecProblem(path=key, value="a field", message="unknown field: remove it or correct its name")
        for key in raw
        if key not in ("apiVersion", "kind", "metadata", "spec", "status")
    ]
    spec = None
    raw_spec = raw.get("spec")
    try:
        if not isinstance(raw_spec, dict):
            problems.append(SpecProblem(path="spec", value=repr(raw_spec), message="must be an object"))
        else:
            spec = parse_spec(raw_spec)
    except SpecError as error:
        problems += error.problems
    if problems or spec is None:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise JobFileError(f"{path}: {len(problems)} problem{'s' * (len(problems) != 1)}\n{lines}")
    return JobFile(name=str(name), spec=spec)
