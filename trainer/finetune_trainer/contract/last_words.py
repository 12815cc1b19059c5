"""Why a process ended that left no report, by the last lines of its log.

A library in C++ can end the process without an exception in Python. Then the lines that it wrote are all there is.
"""

import re

from finetune_trainer.contract.failure import FailureReason

_RULES = (
    # bitsandbytes writes this line after an error of CUDA, and calls exit(1) (csrc/common.cuh, CUDA_CHECK_RETURN).
    (re.compile(r"Error out of memory at line \d+ in file "), FailureReason.GPU_OUT_OF_MEMORY),
    (re.compile(r"Error .+ at line \d+ in file "), FailureReason.INTERNAL),
    # NCCL's watchdog aborts the process when another one is gone or silent (torch:ProcessGroupNCCL.hpp, TearDown).
    (re.compile(r"DistBackendError|ncclRemoteError|NCCL error: remote process exited"), FailureReason.PEER_FAILED),
    (re.compile(r"CUDA out of memory|CUDA error: out of memory"), FailureReason.GPU_OUT_OF_MEMORY),
)


def last_words(log: str) -> tuple[FailureReason, str] | None:
    """The reason that the end of a log tells, with the line that tells it; None if it tells none.

    Args:
        log: the last lines of a process that left no report.
    """
    for line in reversed(log.splitlines()):
        for pattern, reason in _RULES:
            if pattern.search(line):
                return reason, line.strip()
    return None
