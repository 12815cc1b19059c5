"""Words that meant something else: they say what to type now, and do nothing."""

from typing import Any

import typer

from finetune_operator.cli.errors import CommandError, Exit

WORDS = ("run", "preflight")
ANYTHING: dict[str, Any] = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
"""Context settings of a command that takes every argument."""


def refuse(context: typer.Context) -> None:
    """Says which command it is now."""
    word = context.info_name
    given = "".join(f" {argument}" for argument in context.args)
    cluster = "submit" if word == "run" else "plan"
    raise CommandError(
        f"nothing is done: write `finetune local {word}{given}` for this machine, or `kubectl finetune {cluster}` for "
        "the cluster",
        Exit.USAGE,
    )
