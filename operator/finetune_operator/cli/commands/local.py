"""`finetune local run` and `finetune local preflight`: a job on this machine, without a cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from finetune_operator.cli.errors import CommandError, Exit
from finetune_operator.cli.jobfile import JobFile, JobFileError, read_job_file
from finetune_operator.cli.profiles import GivenProfiles, read_profiles, with_profiles
from finetune_operator.cli.remedies import local_remedy
from finetune_operator.cli.terminal import print_lines
from finetune_operator.cli.views.settings import spec_lines
from finetune_trainer.contract.failure import ExitCode, TrainerError

HELP = "Run a job on this machine, without a cluster."


class ReportForm(StrEnum):
    """Forms of a report."""

    TEXT = "text"
    JSON = "json"


File = Annotated[Path, typer.Argument(metavar="FILE", help="YAML with one FineTuneJob.", show_default=False)]


def run(
    file: File,
    work: Annotated[
        Path | None, typer.Option(help="Folder for temporary files. Default: the system's.", show_default=False)
    ] = None,
    profile: GivenProfiles = None,
) -> int:
    """Check, train on this machine, and write the adapter to output.uri."""
    with _ended("trainer"):
        job = _job(file, profile)
        from finetune_operator.cli import local

        return local.run(job, work=work)


def preflight(
    file: File,
    output: Annotated[ReportForm, typer.Option("--output", "-o", help="Form of the report.")] = ReportForm.TEXT,
    profile: GivenProfiles = None,
) -> int:
    """Check storage, data and model from this machine. Nothing is trained."""
    with _ended("cli,preflight"):
        job = _job(file, profile)
        from finetune_operator.cli import local

        return local.preflight(job, output=output)


def plan(file: File, profile: GivenProfiles = None) -> int:
    """Print the spec as it would run here, and where each value comes from. Nothing is read but the files."""
    with _ended("cli"):
        given = read_profiles(profile or ())
        job = with_profiles(read_job_file(file, local=True), given, local=True)
        print_lines(spec_lines(job.raw["spec"], job.spec, job.profiles, job.profile))
    return 0


def _job(file: Path, profile: list[str] | None) -> JobFile:
    return with_profiles(read_job_file(file, local=True), read_profiles(profile or ()), local=True)


@contextmanager
def _ended(extra: str) -> Iterator[None]:
    """Turns every known end of a local run into a message and an exit code.

    Args:
        extra: the extras of the package that it needs.
    """
    try:
        yield
    except JobFileError as error:
        raise CommandError(str(error), ExitCode.INVALID_SPEC) from None
    except TrainerError as error:
        raise CommandError(f"{error.reason}: {error.message}\n{local_remedy(error.reason)}", error.exit_code) from None
    except ModuleNotFoundError as error:
        # transformers gives no module name if one of its own modules cannot be imported.
        missing = f"{error.name.split('.')[0]} is not installed" if error.name else str(error)
        raise CommandError(
            f"{missing}: pip install '.[{extra}]' in a checkout of finetune-operator", Exit.USAGE
        ) from None
    except KeyboardInterrupt:
        raise CommandError("interrupted", ExitCode.PREEMPTED) from None
