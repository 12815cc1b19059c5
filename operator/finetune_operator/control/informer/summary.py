"""What metrics need of a FineTuneJob in the cache, also of one that has ended, whose spec and status are not kept."""

import sys
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from finetune_operator.api.reasons import ENDED, Phase
from finetune_operator.api.resources import Resources

_PHASES = frozenset(Phase)
_GPU_RESOURCE: str = Resources.model_fields["gpu_resource"].default


class Summary(NamedTuple):
    """A few facts of spec and status. Those of ended jobs are shared: ten thousand of them are a handful of objects.

    Attributes:
        phase: status.phase; Pending before the first status, and where the status has an unknown one.
        failure: status.failure.reason; empty without a failure.
        since: when the job entered the phase, in seconds of the Unix epoch; 0 once the job has ended.
        gpus: status.gpus, the GPUs of the current attempt.
        gpu_resource: spec.resources.gpuResource.
    """

    phase: str
    failure: str
    since: float
    gpus: int
    gpu_resource: str


def summary_of(raw: Mapping[str, Any]) -> Summary:
    """The summary of a FineTuneJob as the API server sends it."""
    status: Mapping[str, Any] = raw.get("status") or {}
    resources: Mapping[str, Any] = (raw.get("spec") or {}).get("resources") or {}
    phase = status.get("phase")
    known = sys.intern(phase) if isinstance(phase, str) and phase in _PHASES else str(Phase.PENDING)
    failure = (status.get("failure") or {}).get("reason")
    since = 0.0
    if known not in ENDED:
        created = raw["metadata"]["creationTimestamp"]
        since = (
            _seconds(status.get("lastPhaseTransitionTime")) or _seconds(status.get("startTime")) or _seconds(created)
        )
    gpus = status.get("gpus")
    return _shared(
        known,
        failure if isinstance(failure, str) else "",
        since,
        gpus if isinstance(gpus, int) else 0,
        str(resources.get("gpuResource") or _GPU_RESOURCE),
    )


@lru_cache(maxsize=4096)
def _shared(phase: str, failure: str, since: float, gpus: int, gpu_resource: str) -> Summary:
    return Summary(phase, failure, since, gpus, gpu_resource)


def _seconds(text: object) -> float:
    """Seconds of the Unix epoch; 0 where the text is no time."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0
