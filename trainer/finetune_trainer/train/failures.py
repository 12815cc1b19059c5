"""Errors of libraries and of the operating system that have a known cause, as ends with a reason."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from finetune_trainer.contract.failure import FailureReason, TrainerError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_FACTS = 3
"""torch's message says what happened, how much was asked for and what the GPU has; advice on its allocator follows."""


@contextmanager
def known_causes() -> Iterator[None]:
    """Turns errors with a known cause into TrainerErrors; others pass.

    Raises:
        TrainerError: GPU_OUT_OF_MEMORY or DISK_FULL.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            where = f" at {error.filename}" if error.filename else ""
            raise TrainerError(FailureReason.DISK_FULL, f"no space left{where}") from error
        raise
    except RuntimeError as error:
        # torch's OutOfMemoryError is a RuntimeError; the name keeps torch from being imported here.
        if type(error).__name__ == "OutOfMemoryError":
            said = ". ".join(str(error).split(". ")[:_FACTS])
            raise TrainerError(FailureReason.GPU_OUT_OF_MEMORY, said) from error
        raise
