"""`kubectl finetune init`: writes a YAML that validates."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from finetune_operator.cli.errors import CommandError, Exit
from finetune_operator.cli.jobfile import JobFileError, documents_of, job_of
from finetune_operator.cli.terminal import say
from finetune_operator.cli.views.starter import Starter, starter_yaml
from finetune_trainer.contract.failure import ExitCode

_EXAMPLES = {
    "name": "support-bot",
    "model": "hf://Qwen/Qwen2.5-7B-Instruct",
    "data": "s3://data/support/train.jsonl",
    "to": "s3://models/adapters",
}
_QUESTIONS = {
    "name": "Name of the job",
    "model": "Base model (hf://org/name, s3://bucket/folder or pvc://claim/folder)",
    "data": "Training data (a file or a folder)",
    "to": "Place for the adapter (s3://bucket/prefix)",
}


def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="The file to write; - is standard output.")] = Path(
        "job.yaml"
    ),
    *,
    name: Annotated[str | None, typer.Option(help="Name of the job.", show_default=False)] = None,
    model: Annotated[str | None, typer.Option(help="The base model.", show_default=False)] = None,
    data: Annotated[str | None, typer.Option(help="The training data.", show_default=False)] = None,
    to: Annotated[str | None, typer.Option("--to", help="The place for the adapter.", show_default=False)] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="Address of an S3 server that is not AWS.", show_default=False)
    ] = None,
    secret: Annotated[str | None, typer.Option(help="Secret with the S3 keys.", show_default=False)] = None,
    gpus: Annotated[int, typer.Option(help="GPUs of the pod; 0 trains on the CPU.")] = 1,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.", show_default=False)] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of the adapter.", show_default=False)] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take examples for what is missing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> int:
    """Write a job's YAML: asks for what the options do not say."""
    if str(file) != "-" and file.exists() and not force:
        raise CommandError(f"{file} is there already: name another file, or add --force", Exit.USAGE)
    given = {"name": name, "model": model, "data": data, "to": to}
    answers = {key: value or _answer(key, ask=not yes) for key, value in given.items()}
    starter = Starter(**answers, endpoint=endpoint, secret=secret, gpus=gpus, epochs=epochs, rank=rank)
    text = starter_yaml(starter)
    try:
        (document,) = documents_of(text.encode(), str(file))
        job = job_of(document, str(file), local=False)
    except JobFileError as error:
        raise CommandError(str(error), ExitCode.INVALID_SPEC) from None
    if str(file) == "-":
        print(text, end="")
        return 0
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from None
    say(f"{file}: {job.name} is valid\nnext: kubectl finetune plan {file}, then kubectl finetune submit --wait {file}")
    return 0


def _answer(key: str, *, ask: bool) -> str:
    """What the user answers, or the example.

    Raises:
        CommandError: nobody is there to answer.
    """
    if not ask:
        return _EXAMPLES[key]
    if not sys.stdin.isatty():
        raise CommandError(
            f"--{key} is missing, and nobody can be asked: name it, or take the examples with --yes", Exit.USAGE
        )
    return str(typer.prompt(_QUESTIONS[key], default=_EXAMPLES[key], err=True))
