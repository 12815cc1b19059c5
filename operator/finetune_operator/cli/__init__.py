"""`finetune`, which is also the kubectl plugin `kubectl finetune`: FineTuneJobs in the cluster, and on this machine.

Commands are in `commands`, what they show is decided in `views`, and the cluster is asked through `cluster`. A command
ends with an exit code of `errors.Exit` or of a failure reason, and never with a traceback.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from finetune_operator.cli.errors import CommandError, Exit
from finetune_trainer.contract.text import readable

TRACEBACK_ENV = "FINETUNE_TRACEBACK"
"""Set to 1, an unexpected error shows where it was raised. For reports of errors."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: see `errors.Exit`, or the code of a failure reason."""
    try:
        import typer

        from finetune_operator.cli.app import application
    except ModuleNotFoundError as error:
        _say(f"{error.name} is not installed: pip install '.[cli]' in a checkout of finetune-operator")
        return int(Exit.USAGE)
    command, program = application(), program_name()
    try:
        code = command.main(arguments, prog_name=program, standalone_mode=False)
    except CommandError as error:
        _say(error.message)
        return error.code
    except typer.TyperException as error:
        _say(f"{error.format_message()}\n{program} --help lists the commands, {program} COMMAND --help their options")
        return error.exit_code
    except typer.Abort:
        _say("interrupted")
        return int(Exit.INTERRUPTED)
    except SystemExit as error:  # the reader of a pipe has gone
        return int(error.code or 0)
    except Exception as error:  # noqa: BLE001 (the last handler: no traceback is a user's message)
        if os.environ.get(TRACEBACK_ENV) == "1":
            traceback.print_exc()
        _say(
            f"unexpected error: {type(error).__name__}: {error}\nThis is a fault of {program}. Please report it, with "
            f"the output that {TRACEBACK_ENV}=1 gives."
        )
        return int(Exit.FAILED)
    if code == Exit.INTERRUPTED:
        _say("interrupted")
    return int(code or 0)


def program_name() -> str:
    """What the user typed: `kubectl finetune` for the plugin, else `finetune`."""
    return "kubectl finetune" if Path(sys.argv[0]).name == "kubectl-finetune" else "finetune"


def _say(text: str) -> None:
    print(readable(text), file=sys.stderr)
