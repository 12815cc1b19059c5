"""A process that the launcher has started: it reports to the launcher, and exits when the launcher is gone."""

import os
import threading

from finetune_trainer.contract.failure import ExitCode
from finetune_trainer.contract.progress import Progress
from finetune_trainer.distributed.world import World

_STANDARD_INPUT = 0


class PipeSink:
    """Hands progress records to the launcher, a line each."""

    def __init__(self, world: World) -> None:
        self._pipe = os.fdopen(world.progress, "w", encoding="utf-8", buffering=1)

    def __call__(self, progress: Progress) -> None:
        """Takes a record."""
        try:
            self._pipe.write(progress.to_json() + "\n")
        except OSError:  # the launcher is gone, and this process goes too
            return


def exit_with_launcher() -> None:
    """Ends this process when the launcher has ended: nobody else would, outside of a container."""

    def wait() -> None:
        # Not by sys.stdin: a thread that holds its lock makes the interpreter abort when it ends.
        os.read(_STANDARD_INPUT, 1)
        os._exit(ExitCode.PEER_FAILED)

    threading.Thread(target=wait, name="launcher", daemon=True).start()
