"""What the end of a log tells of a process that left no report."""

import pytest

from finetune_trainer.contract.failure import FailureReason
from finetune_trainer.contract.last_words import last_words

WATCHDOG = """\
2026-01-31T12:00:00Z info step step=7/20 loss=1.2
terminate called after throwing an instance of 'c10::DistBackendError'
  what():  [PG ID 0 PG GUID 0 Rank 1] Process group watchdog thread terminated with exception: NCCL error: remote \
process exited or there was a network error, NCCL version 2.30.7
"""


@pytest.mark.parametrize(
    ("log", "reason", "line"),
    [
        (WATCHDOG, FailureReason.PEER_FAILED, "what():  [PG ID 0 PG GUID 0 Rank 1]"),
        (
            "a\nterminate called after throwing an instance of 'c10::DistBackendError'\n",
            FailureReason.PEER_FAILED,
            "term",
        ),
        (
            "Error out of memory at line 90 in file /src/csrc/ops.cu\n",
            FailureReason.GPU_OUT_OF_MEMORY,
            "Error out of memory at line 90",
        ),
        (
            "x\nError an illegal memory access was encountered at line 548 in file /src/csrc/ops.cu\nterminating\n",
            FailureReason.INTERNAL,
            "Error an illegal memory access was encountered at line 548",
        ),
        (
            "terminate called after throwing an instance of 'c10::OutOfMemoryError'\n  what():  CUDA out of memory. x",
            FailureReason.GPU_OUT_OF_MEMORY,
            "what():  CUDA out of memory.",
        ),
    ],
)
def test_the_line_that_tells_the_reason(log: str, reason: FailureReason, line: str) -> None:
    words = last_words(log)
    assert words is not None
    assert words[0] is reason
    assert words[1].startswith(line)


@pytest.mark.parametrize("log", ["", "2026-01-31T12:00:00Z info step step=7/20 loss=1.2\n", "Error in the data\n"])
def test_other_lines_tell_none(log: str) -> None:
    assert last_words(log) is None
