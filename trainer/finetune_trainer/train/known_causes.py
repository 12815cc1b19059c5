"""Turns errors of libraries and of the operating system that have a known cause into ends with a reason."""

from collections.abc import Iterator
from contextlib import contextmanager

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.runtime.machine_errors import DISK_FULL, out_of_memory_reason

_FACTS = 3
"""torch's message says what happened, how much was asked for and what the GPU has; advice on its allocator follows."""


@contextmanager
def known_causes() -> Iterator[None]:
    """Turns errors with a known cause into TrainerErrors; others pass.

    Raises:
        TrainerError: GPU_OUT_OF_MEMORY, HOST_OUT_OF_MEMORY or DISK_FULL.
    """
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            where = f" at {error.filename}" if error.filename else ""
            raise TrainerError(FailureReason.DISK_FULL, f"no space left{where}") from error
        match out_of_memory_reason(error):
            case None:
                raise
            case FailureReason.HOST_OUT_OF_MEMORY as reason:
                message = f"the system gave the process no more memory: {_facts(error)}".rstrip(": ")
                raise TrainerError(reason, message) from error
            case reason:
                raise TrainerError(reason, _facts(error)) from error


def _facts(error: BaseException) -> str:
    return ". ".join(str(error).split("\n", 1)[0].split(". ")[:_FACTS])
