"""Memory of the GPU that a job requests: from the spec, or from the node labels that it selects.

Preflight uses it to refuse a training that cannot fit. So if labels allow several GPUs the largest counts, and a label
that only sets a lower limit is ignored.
"""

import re
from collections.abc import Iterator

from finetune_operator.api.quantity import whole
from finetune_operator.api.resources import Resources
from finetune_operator.api.scheduling import NodeSelectorOperator, Scheduling

_MIB = 1 << 20
_MEBIBYTES = ("nvidia.com/gpu.memory", "karpenter.k8s.aws/instance-gpu-memory")
"""Labels whose value is the memory of one GPU in MiB (NVIDIA's GPU feature discovery; Karpenter on AWS)."""
GPU_NAMES = ("nvidia.com/gpu.product", "cloud.google.com/gke-accelerator", "karpenter.k8s.aws/instance-gpu-name")
"""Labels whose value is the name of the GPU."""
_GIB_BY_NAME: tuple[tuple[str, int], ...] = (
    # The first pattern that matches the name counts. Products with a size in their name come before those without.
    (r"gb200", 186),
    (r"b200", 180),
    (r"h200", 141),
    (r"h100-nvl", 94),
    (r"h100", 80),
    (r"h20\b", 96),
    (r"a100.*80gb|a800", 80),
    (r"a100", 40),
    (r"rtx-pro-6000", 96),
    (r"l40s?\b", 48),
    (r"a40\b|a6000|rtx-6000-ada", 48),
    (r"rtx-5090", 32),
    (r"a5000|a30\b|a10g?\b|l4\b|rtx-[34]090|titan-rtx", 24),
    (r"v100.*32gb", 32),
    (r"v100|p100|t4\b|a2\b", 16),
    (r"p4\b", 8),
)
_MIG = re.compile(r"mig-[0-9]+g\.([0-9]+)gb")
"""A MIG slice with its memory, in a product's name or as a resource of its own."""


def gpu_memory_bytes(resources: Resources, scheduling: Scheduling) -> int | None:
    """Memory of one GPU of the job, in bytes; None if it is unknown, or if the job requests no GPU."""
    if resources.gpus == 0:
        return None
    if resources.gpu_memory is not None:
        return whole(resources.gpu_memory)
    if slice_ := _MIG.search(resources.gpu_resource.lower()):
        return int(slice_[1]) * 1024 * _MIB
    for label, values in node_labels(scheduling):
        sizes = [_bytes_of(label, value) for value in values]
        known = [size for size in sizes if size is not None]
        if known and len(known) == len(sizes):
            return max(known)
    return None


def node_labels(scheduling: Scheduling) -> Iterator[tuple[str, list[str]]]:
    """Labels that a node must have, each with the allowed values."""
    for label, value in (scheduling.node_selector or {}).items():
        yield label, [value]
    if scheduling.affinity is not None:
        for requirement in scheduling.affinity.required_node_labels:
            if requirement.operator is NodeSelectorOperator.IN:
                yield requirement.key, list(requirement.values)


def _bytes_of(label: str, value: str) -> int | None:
    if label in _MEBIBYTES:
        return int(value) * _MIB if value.isascii() and value.isdigit() else None
    if label not in GPU_NAMES:
        return None
    name = value.lower()
    if slice_ := _MIG.search(name):
        return int(slice_[1]) * 1024 * _MIB
    return next((gib * 1024 * _MIB for pattern, gib in _GIB_BY_NAME if re.search(pattern, name)), None)
