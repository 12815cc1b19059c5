"""Recognises errors of the machine, such as full memory or a failed GPU, by their class and text.

torch has a class for full GPU memory, but only its own allocator raises it. The driver, cuBLAS, bitsandbytes and the
CPU's allocator raise a RuntimeError with a text. Classes are compared by name, so that this module need not import
torch.
"""

import errno
from collections.abc import Iterator

from finetune_trainer.contract.failure import FailureReason

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of an OSError: no room, or a quota."""
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
    """Returns GPU_OUT_OF_MEMORY or HOST_OUT_OF_MEMORY, or None for any other error."""
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
    """Returns True for an error of memory, disk or GPU, and False for an error in the content of files."""
    if out_of_memory_reason(error) is not None or (isinstance(error, OSError) and error.errno is not None):
        return True
    if not isinstance(error, RuntimeError):
        return False
    said = str(error).lower()
    return not _GPU_CLASSES.isdisjoint(_classes(error)) or any(words in said for words in _GPU_FAULTS)


def _classes(error: BaseException) -> Iterator[str]:
    return (kind.__name__ for kind in type(error).__mro__)


def is_panic(error: BaseException) -> bool:
    """Returns True for a panic of a Rust library, in a tokenizer's regular expression for example.

    PyO3's PanicException is no subclass of Exception, so `except Exception` does not catch it. The class cannot be
    imported.
    """
    return type(error).__module__ == "pyo3_runtime"
