"""Errors of the machine: out of memory, a GPU that fails. Recognised by type and by text.

torch has one class for a GPU's full memory and raises it only from its own allocator; the driver, cuBLAS, bitsandbytes
and the CPU's allocator say the same in a RuntimeError's text. Names of classes keep torch from being imported here.
"""

import errno
from collections.abc import Iterator

from finetune_trainer.contract.failure import FailureReason

_GPU_MEMORY = ("out of memory", "cublas_status_alloc_failed", "cudnn_status_alloc_failed")
_HOST_MEMORY = ("can't allocate memory", "cannot allocate memory", "defaultcpuallocator: not enough memory")
_GPU_FAULTS = (
    "cuda error",
    "cuda driver",
    "no cuda gpus are available",
    "cublas_status_",
    "cudnn_status_",
    "cudnn error",
    "nccl",
    "ecc error",
    "nvml",
)
_GPU_CLASSES = frozenset({"AcceleratorError", "DistBackendError"})


def out_of_memory_reason(error: BaseException) -> FailureReason | None:
    """GPU_OUT_OF_MEMORY or HOST_OUT_OF_MEMORY, or None for any other error."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return FailureReason.HOST_OUT_OF_MEMORY
    if not isinstance(error, RuntimeError):
        return None
    said = str(error).lower()
    if any(words in said for words in _HOST_MEMORY):
        return FailureReason.HOST_OUT_OF_MEMORY
    if "OutOfMemoryError" in _classes(error) or any(words in said for words in _GPU_MEMORY):
        return FailureReason.GPU_OUT_OF_MEMORY
    return None


def is_machine_error(error: BaseException) -> bool:
    """Whether the machine has failed, not the files that were just read: memory, disk, GPU."""
    if out_of_memory_reason(error) is not None or (isinstance(error, OSError) and error.errno is not None):
        return True
    if not isinstance(error, RuntimeError):
        return False
    said = str(error).lower()
    return not _GPU_CLASSES.isdisjoint(_classes(error)) or any(words in said for words in _GPU_FAULTS)


def _classes(error: BaseException) -> Iterator[str]:
    return (kind.__name__ for kind in type(error).__mro__)


def is_panic(error: BaseException) -> bool:
    """Whether a library in Rust has panicked, in a tokenizer's regular expression for example.

    PyO3's class for it is no Exception, so that `except Exception` lets it end the process; and it cannot be imported.
    """
    return type(error).__module__ == "pyo3_runtime"
