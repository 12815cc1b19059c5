"""A worker process's connection to the launcher: it sends progress records and exits when the launcher has ended."""

import os
import threading

from finetune_trainer.contract.failure import ExitCode
from finetune_trainer.contract.progress import Progress
from finetune_trainer.distributed.world import World

_STANDARD_INPUT = 0


class PipeSink:
    """Writes progress records to the launcher's pipe, one JSON line each."""

    def __init__(self, world: World) -> None:
        self._pipe = os.fdopen(world.progress, "w", encoding="utf-8", buffering=1)

    def __call__(self, progress: Progress) -> None:
        """Writes a record. An error of the pipe is ignored."""
        try:
            self._pipe.write(progress.to_json() + "\n")
        except OSError:  # The launcher has ended, so this process will end too.
            return


def exit_with_launcher() -> None:
    """Starts a thread that ends this process with PEER_FAILED when the launcher has ended.

    In a container, the kernel ends all processes with the launcher. Outside of one, nothing else does.
    """

    def wait() -> None:
        # Not sys.stdin: the interpreter aborts at its end when a thread holds the lock of sys.stdin.
        os.read(_STANDARD_INPUT, 1)
        os._exit(ExitCode.PEER_FAILED)

    threading.Thread(target=wait, name="launcher", daemon=True).start()
