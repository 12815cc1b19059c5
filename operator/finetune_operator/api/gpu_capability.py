"""Compute capability of the GPU that a job requests, as far as the node labels that it selects say it.

The trainer's libraries have kernels from Turing on. A job that can only get an older GPU is refused before it asks for
one. If the labels allow several GPUs, the newest counts.
"""

import re

from finetune_operator.api.gpumemory import GPU_NAMES, node_labels
from finetune_operator.api.resources import Resources
from finetune_operator.api.scheduling import Scheduling

LEAST_CAPABILITY = (7, 5)
"""The oldest GPU for which torch and bitsandbytes have kernels: Turing (T4)."""
Capability = tuple[int, int]

_MAJOR, _MINOR, _FAMILY = "nvidia.com/gpu.compute.major", "nvidia.com/gpu.compute.minor", "nvidia.com/gpu.family"
"""Labels of NVIDIA's GPU feature discovery."""
_BY_FAMILY: dict[str, Capability] = {"kepler": (3, 7), "maxwell": (5, 2), "pascal": (6, 1), "volta": (7, 2)}
_BY_NAME: tuple[tuple[str, Capability], ...] = (
    (r"\bv100s?\b|\btitan-v\b", (7, 0)),
    (r"\bp100\b", (6, 0)),
    (r"\bp(4|6|40)\b|\bquadro-p\d+|\bgtx-10\d\d|\btitan-xp?\b", (6, 1)),
    (r"\bm(4|6|40|60)\b", (5, 2)),
    (r"\bm10\b", (5, 0)),
    (r"\bk80\b", (3, 7)),
    (r"\bk40", (3, 5)),
)
"""GPUs without kernels, by NVIDIA's list "CUDA GPU Compute Capability". A name that is not here is new enough."""


def unsupported_gpu(resources: Resources, scheduling: Scheduling) -> str | None:
    """The label by which a job can only get a GPU without kernels, in a sentence; None if there is none."""
    if resources.gpus == 0:
        return None
    labels = dict(node_labels(scheduling))
    for label, values in labels.items():
        known = [_capability(label, value, labels) for value in values]
        old = [capability for capability in known if capability is not None and capability < LEAST_CAPABILITY]
        if old and len(old) == len(known):
            newest = "{}.{}".format(*max(old))
            least = "{}.{}".format(*LEAST_CAPABILITY)
            return (
                f"the node label {label}: {', '.join(values)} is a GPU of compute capability {newest}, and the trainer "
                f"has kernels from {least} on"
            )
    return None


def _capability(label: str, value: str, labels: dict[str, list[str]]) -> Capability | None:
    """The capability that one value of a label stands for; None if it is unknown, or not among the old ones."""
    if label == _FAMILY:
        return _BY_FAMILY.get(value.lower())
    if label == _MAJOR and value.isascii() and value.isdigit():
        minors = [int(minor) for minor in labels.get(_MINOR, []) if minor.isascii() and minor.isdigit()]
        # Without a minor version a GPU of this major version may be new enough.
        return (int(value), max(minors, default=9))
    if label in GPU_NAMES:
        return next((capability for pattern, capability in _BY_NAME if re.search(pattern, value.lower())), None)
    return None
