"""Profiles without a cluster: shipped ones by name, others from files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from finetune_operator.api import names
from finetune_operator.api.finetunejob import Held, SpecError, compact_json
from finetune_operator.api.profile import Profile, profile_of
from finetune_operator.api.resolution import Effective, effective, record_of
from finetune_operator.api.spec import ProfileKind
from finetune_operator.api.status import ProfileStatus
from finetune_operator.cli.jobfile import Document, JobFile, JobFileError, content_of, documents_of, listed
from finetune_operator.profiles import SHIPPED, shipped

GivenProfiles = Annotated[
    list[str] | None,
    typer.Option(
        "--profile",
        metavar="NAME|FILE",
        help="A shipped profile, or a YAML with profiles; again for more, each wins over the one before.",
        show_default=False,
    ),
]


def read_profiles(given: Sequence[str]) -> list[Profile]:
    """The profiles of an option: names of shipped profiles, and files.

    Raises:
        JobFileError: a file cannot be read or has no valid profile, or no shipped profile has that name.
    """
    found: list[Profile] = []
    for word in given:
        if word in SHIPPED:
            found.append(_shipped(word))
            continue
        if not Path(word).exists():
            raise JobFileError(f"{word}: no such file, and no shipped profile: those are {', '.join(SHIPPED)}")
        documents = [item for item in documents_of(content_of(Path(word)), word) if item.kind in list(ProfileKind)]
        if not documents:
            raise JobFileError(f"{word}: expected a {' or a '.join(ProfileKind)}, found none")
        found += [_of(item, word) for item in documents]
    return found


def _shipped(name: str) -> Profile:
    [document] = documents_of(shipped(name).encode(), name)
    return _of(document, name)


def _of(document: Document, source: str) -> Profile:
    raw = document.content
    metadata = raw.get("metadata")
    if raw.get("apiVersion") != names.API_VERSION or not isinstance(metadata, dict) or not metadata.get("name"):
        raise JobFileError(f"{source}: {document.kind} needs apiVersion {names.API_VERSION} and metadata.name")
    if document.duplicates:
        raise JobFileError(listed(source, document.duplicates))
    profile = profile_of(raw, ProfileKind(document.kind))
    try:
        profile.values()
    except SpecError as error:
        raise JobFileError(listed(f"{source}: {profile}", error.problems)) from None
    return profile


def with_profiles(job: JobFile, given: Sequence[Profile], *, local: bool) -> JobFile:
    """The job as it runs with these profiles and the one that it names, which wins over them.

    Raises:
        JobFileError: the named profile is not known here, or the job is invalid with what the profiles supply.
    """
    ref = job.spec.profile_ref
    chosen = list(given)
    if ref is not None:
        known = [*given, *map(_shipped, SHIPPED)]
        named = next((item for item in known if (item.kind, item.name) == (ref.kind, ref.name)), None)
        if named is None:
            raise JobFileError(
                f"{job.source}: spec.profileRef: {ref.kind} {ref.name} is in a cluster, or nowhere: give its YAML with "
                f"--profile FILE; shipped are {', '.join(f'{ProfileKind.CLUSTER} {name}' for name in SHIPPED)}"
            )
        chosen = [*(item for item in given if item != named), named]
    record = record_of(chosen)
    if isinstance(record, Held):
        raise JobFileError(f"{job.source}: {record.message}")
    found = resolved(job, record, local=local)
    return replace(job, spec=found.spec, profiles=tuple(chosen), profile=record)


def resolved(job: JobFile, record: ProfileStatus | None, *, local: bool) -> Effective:
    """The job's spec with what a record of profiles supplies.

    Raises:
        JobFileError: it is not valid, or above a ceiling.
    """
    try:
        found = effective(compact_json(job.raw["spec"]), record, local=local)
    except SpecError as error:
        raise JobFileError(listed(job.source, error.problems)) from None
    if found.excess:
        raise JobFileError(listed(job.source, found.excess))
    return found
