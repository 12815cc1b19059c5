"""The setting of torch's GPU memory allocator."""

from collections.abc import MutableMapping

_NAME, _OLD_NAME = "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"


def use_expandable_segments(environment: MutableMapping[str, str]) -> None:
    """Makes torch's allocator grow its segments, unless the variable is set. Call it before torch is imported.

    Micro-batches differ in size. With segments of fixed size (torch's default), memory that was freed by one is often
    of no use for the next, and the GPU runs out while gigabytes lie idle
    (https://docs.pytorch.org/docs/stable/notes/cuda.html, "Optimizing memory usage").

    Args:
        environment: the process's variables; torch reads them when it is imported.
    """
    if _OLD_NAME not in environment:
        environment.setdefault(_NAME, "expandable_segments:True")
