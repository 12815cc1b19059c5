"""Reads FineTuneJobs from several places at once: files with several documents, folders, standard input."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from finetune_operator.api import names
from finetune_operator.cli.jobfile import JobFile, JobFileError, content_of, documents_of, job_of

STANDARD_INPUT = Path("-")
_ENDINGS = (".yaml", ".yml", ".json")


def read_job_files(paths: Sequence[Path], *, local: bool = False, recursive: bool = False) -> list[JobFile]:
    """Reads every FineTuneJob of some files, folders and standard input. Documents of other kinds are ignored.

    Of a folder, files that end in .yaml, .yml or .json are read, as kubectl does.

    Args:
        paths: the places; `-` is standard input.
        local: whether the jobs are for a run on this machine.
        recursive: whether folders in folders are read too.

    Raises:
        JobFileError: a place cannot be read, has no FineTuneJob, or has an invalid one; all of them are listed. Two
            jobs with one name and namespace are an error too.
    """
    jobs: list[JobFile] = []
    wrong: list[str] = []
    for path in paths:
        try:
            found = list(_jobs_at(path, wrong, local=local, recursive=recursive))
        except JobFileError as error:
            wrong.append(str(error))
            continue
        jobs += found
    wrong += _repeated(jobs)
    if wrong:
        raise JobFileError("\n".join(wrong))
    return jobs


def _jobs_at(path: Path, wrong: list[str], *, local: bool, recursive: bool) -> Iterator[JobFile]:
    """The valid jobs of one place. Those that are not are described in `wrong`.

    Raises:
        JobFileError: there is none at all.
    """
    kinds: list[str] = []
    seen = False
    for source, content in _contents(path, wrong, recursive=recursive):
        try:
            documents = documents_of(content, source)
        except JobFileError as error:
            wrong.append(str(error))
            seen = True
            continue
        kinds += [item.kind for item in documents if not item.is_job]
        for item in documents:
            if not item.is_job:
                continue
            seen = True
            try:
                yield job_of(item, source, local=local)
            except JobFileError as error:
                wrong.append(str(error))
    if not seen:
        place = "standard input" if path == STANDARD_INPUT else path
        raise JobFileError(f"{place}: expected a {names.KIND}, found {', '.join(kinds) or 'nothing'}")


def _contents(path: Path, wrong: list[str], *, recursive: bool) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each file of a place. What cannot be read is described in `wrong`."""
    if path == STANDARD_INPUT:
        yield "standard input", sys.stdin.buffer.read()
    elif path.is_dir():
        found = sorted(path.rglob("*") if recursive else path.iterdir())
        for file in found:
            if file.suffix in _ENDINGS and file.is_file():
                try:
                    yield str(file), content_of(file)
                except JobFileError as error:
                    wrong.append(str(error))
    else:
        yield str(path), content_of(path)


def _repeated(jobs: Sequence[JobFile]) -> list[str]:
    """A sentence for each job whose name and namespace an earlier one has."""
    first: dict[tuple[str | None, str], str] = {}
    found = []
    for job in jobs:
        key = (job.namespace, job.name)
        if key in first:
            found.append(f"{job.source}: {job.name} is in {first[key]} already: give one of the two another name")
        first.setdefault(key, job.source)
    return found
