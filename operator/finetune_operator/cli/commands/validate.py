"""`finetune validate`: is the YAML what the cluster would accept?"""

import json
from pathlib import Path
from typing import Annotated

import typer

from finetune_operator.cli.commands.local import ReportForm
from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.jobfile import JobFileError
from finetune_operator.cli.jobfiles import read_job_files
from finetune_trainer.contract.failure import ExitCode

Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...", help="Files or folders with FineTuneJobs; - is standard input.", show_default=False
    ),
]


def validate(
    files: Files,
    *,
    recursive: Annotated[bool, typer.Option("--recursive", "-R", help="Read folders in folders too.")] = False,
    local: Annotated[bool, typer.Option("--local", help="For a run on this machine: file:// is a place too.")] = False,
    output: Annotated[ReportForm, typer.Option("--output", "-o", help="Form of the report.")] = ReportForm.TEXT,
) -> int:
    """Check the YAML only, as the cluster would."""
    try:
        jobs = read_job_files(files, local=local, recursive=recursive)
    except JobFileError as error:
        raise CommandError(str(error), ExitCode.INVALID_SPEC) from None
    if output is ReportForm.JSON:
        reports = [{"name": job.name, "spec": job.spec.to_dict()} for job in jobs]
        print(json.dumps(reports[0] if len(reports) == 1 else reports, indent=2))
    else:
        for job in jobs:
            print(f"{job.source}: {job.name} is valid")
    return 0
