"""Values of labels that come from a spec or a status, and so from tenants: any value beyond a fixed set is `Other`.

Otherwise whoever may create jobs could add series without end, to the operator's memory and to Prometheus.
"""

from collections.abc import Collection

from finetune_operator.api.reasons import Reason
from finetune_trainer.contract.failure import FailureReason

OTHER = "Other"

GPU_RESOURCES = frozenset(
    {"nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/i915", "gpu.intel.com/xe", "habana.ai/gaudi"}
)
"""Extended resources that have their own label everywhere. Those of the price list have it too."""

_FAILURES = frozenset(FailureReason)
_ENDS = _FAILURES | {Reason.SUCCEEDED, Reason.OUTPUT_EXISTS}


def failure_label(reason: str) -> str:
    """The label of the reason of a failed job."""
    return reason if reason in _FAILURES else OTHER


def end_label(reason: str | None) -> str:
    """The label of the reason with which an attempt ended."""
    return reason if reason in _ENDS else OTHER


class GpuLabels:
    """The labels of GPUs.

    Args:
        priced: keys of the price list.
    """

    def __init__(self, priced: Collection[str] = ()) -> None:
        self._known = GPU_RESOURCES | {key for key in priced if "=" not in key}

    def __call__(self, resource: str) -> str:
        """The label of an extended resource."""
        return resource if resource in self._known else OTHER
