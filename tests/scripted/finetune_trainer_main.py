"""`python -m finetune_trainer` of the scripted image. It has the commands and exit codes of the real one."""

import os
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from finetune_trainer.contract.failure import ExitCode
from finetune_trainer.contract.layout import (
    POD_UID_ENV,
    RECIPE_ENV,
    RECIPE_PATH,
    TERMINATION_ENV,
)
from finetune_trainer.contract.recipe import Recipe
from scripted.play import Trainer, preflight
from scripted.reporter import Reporter
from scripted.scenario import read_scenario


def main() -> int:
    """Plays the scenario of the environment. Returns the exit code."""
    terminated = threading.Event()
    # For the first process of a container, SIGTERM has no default action.
    signal.signal(signal.SIGTERM, lambda _number, _frame: terminated.set())
    command = sys.argv[1] if len(sys.argv) > 1 else "train"
    if command not in ("train", "preflight"):
        print(f"the scripted trainer has train and preflight, not {command!r}", file=sys.stderr)
        return ExitCode.USAGE
    environment = dict(os.environ)
    try:
        recipe = Recipe.model_validate_json(Path(environment.get(RECIPE_ENV, RECIPE_PATH)).read_bytes())
        scenario = read_scenario(environment, recipe.job.attempt)
    except (OSError, ValueError) as error:
        print(f"no recipe or no scenario: {error}", file=sys.stderr)
        return ExitCode.INVALID_SPEC
    message = Path(environment[TERMINATION_ENV]) if environment.get(TERMINATION_ENV) else None
    if command == "preflight":
        return preflight(recipe, scenario.preflight, termination=message, now=datetime.now(UTC))
    return Trainer(
        recipe,
        scenario,
        reporter=Reporter(environment),
        termination=message,
        writer=environment.get(POD_UID_ENV, "local"),
        now=lambda: datetime.now(UTC),
        terminated=terminated,
    ).play()


if __name__ == "__main__":
    sys.exit(main())
