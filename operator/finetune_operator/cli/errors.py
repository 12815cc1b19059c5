"""How a command ends: its exit codes, and the error whose message is all that a user reads."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of commands, beside those of the failure reasons (docs/failures)."""

    OK = 0
    FAILED = 1
    """The cluster, the storage or a file did not give what was asked for."""
    USAGE = 2
    """The command line is wrong, or a package is missing."""
    TIMED_OUT = 124
    """--timeout is over; the job goes on. It is the code of timeout(1)."""
    INTERRUPTED = 130
    """Ctrl-C, except in local runs; the job goes on."""


class CommandError(Exception):
    """A command that cannot do what it was asked for.

    Attributes:
        message: what is wrong and what to do, in one sentence or a short list.
        code: the exit code of the process.
    """

    def __init__(self, message: str, code: int = Exit.FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.code = int(code)
