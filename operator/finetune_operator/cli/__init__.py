"""`finetune`: runs the same YAML without a cluster. It is also the kubectl plugin `kubectl finetune`.

finetune run job.yaml          check, train, and write the adapter to output.uri
finetune preflight job.yaml    check storage, data and model only
finetune validate job.yaml     check the YAML only, as the cluster would; --local: as `finetune run` would
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from finetune_operator.cli.jobfile import JobFile, JobFileError, read_job_file
from finetune_operator.cli.remedies import local_remedy
from finetune_operator.reconcile.refusal import unsupported_fields
from finetune_trainer.contract.failure import EXIT_OK, ExitCode, FailureReason, TrainerError
from finetune_trainer.contract.text import readable
from finetune_trainer.contract.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, or the code of the reason (docs/failures)."""
    options = _parser().parse_args(arguments)
    try:
        job = read_job_file(options.file, local=options.local)
        code: int = options.run(job, options)
    except JobFileError as error:
        print(readable(str(error)), file=sys.stderr)
        return int(ExitCode.INVALID_SPEC)
    except TrainerError as error:
        print(f"{error.reason}: {readable(error.message)}\n{local_remedy(error.reason)}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        # transformers gives no module name if one of its own modules cannot be imported.
        missing = f"{error.name.split('.')[0]} is not installed" if error.name else str(error)
        print(f"{missing}: pip install '.[{options.extra}]' in a checkout of finetune-operator", file=sys.stderr)
        return int(ExitCode.USAGE)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return int(ExitCode.PREEMPTED)
    return code


def _run(job: JobFile, options: argparse.Namespace) -> int:
    from finetune_operator.cli.local import run

    return run(job, work=options.work)


def _preflight(job: JobFile, options: argparse.Namespace) -> int:
    from finetune_operator.cli.local import preflight

    return preflight(job, output=options.output)


def _validate(job: JobFile, options: argparse.Namespace) -> int:
    if missing := unsupported_fields(job.spec):
        raise TrainerError(FailureReason.NOT_SUPPORTED, "; ".join(map(str, missing)))
    if options.output == "json":
        print(json.dumps({"name": job.name, "spec": job.spec.to_dict()}, indent=2))
    else:
        print(f"{options.file}: {job.name} is valid")
    return EXIT_OK


def _parser() -> argparse.ArgumentParser:
    program = Path(sys.argv[0]).name
    parser = argparse.ArgumentParser(
        prog="kubectl finetune" if program == "kubectl-finetune" else "finetune",
        description="Trains the LoRA adapter of a FineTuneJob on this machine, without a cluster.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="check, train, and write the adapter to output.uri")
    run.add_argument("--work", type=Path, default=None, help="folder for temporary files (default: the system's)")
    run.set_defaults(run=_run, local=True, extra="trainer")

    preflight = commands.add_parser("preflight", help="check storage, data and model only")
    preflight.set_defaults(run=_preflight, local=True, extra="preflight")

    validate = commands.add_parser("validate", help="check the YAML only")
    validate.add_argument("--local", action="store_true", help="for a run on this machine: file:// is a place too")
    validate.set_defaults(run=_validate, extra="preflight")

    for command in (preflight, validate):
        command.add_argument("--output", "-o", choices=("text", "json"), default="text", help="default: text")
    for command in (run, preflight, validate):
        command.add_argument("file", type=Path, metavar="FILE", help="YAML with one FineTuneJob")
    return parser
