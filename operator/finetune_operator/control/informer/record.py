"""A FineTuneJob in the cache: fields that decide whether to reconcile it, and the rest as compact JSON.

An old cluster may have ten thousand finished jobs. Of these only the identity is kept. The spec and status of the
others are bytes, a quarter of the size of dicts, and are parsed when a worker reconciles them. A large spec is not kept
either, but read when it is needed: a tenant can make thousands of jobs, and a spec may have 64 KiB.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from finetune_operator.api import names
from finetune_operator.api.finetunejob import MAX_SPEC_BYTES, FineTuneJob, Held, compact_json, parse_spec, too_large
from finetune_operator.api.reasons import ConditionType
from finetune_operator.api.resolution import Profiles, effective, has_begun, no_profiles, ref_of, resolve
from finetune_operator.api.spec import FineTuneJobSpec, Retention
from finetune_operator.api.status import FineTuneJobStatus
from finetune_operator.control import Key, Owner
from finetune_operator.control.informer.summary import Summary, summary_of

KEPT_SPEC_BYTES = 4096
"""Ten thousand jobs with the largest specs that are kept take 40 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuneJobRecord:
    """One FineTuneJob.

    Attributes:
        ignored: another controller manages it, or it is being deleted.
        finished: the status says that the run of this generation and runToken has ended.
        ttl_seconds: spec.retention.ttlSecondsAfterFinished, or that of the run's profiles; also of a spec that is
            invalid or too large to be kept; None when it is absent or invalid itself.
        attempt: status.attempt.
        spec, status, progress: JSON; status is without progress. Empty when the record is settled.
        run_token: spec.runToken, also of a spec that is invalid or too large to be kept.
        oversize: size in bytes of a spec that is larger than a valid one can be; otherwise 0.
        waits: whether its run has not begun, so that a change of a profile concerns it.
        summary: what metrics need, also of a settled record.
        has_spec: whether the spec is here if it is valid. If not, it must be read.
    """

    namespace: str
    name: str
    uid: str
    resource_version: str
    generation: int
    created: str
    ignored: bool
    finished: bool
    ttl_seconds: int | None
    attempt: int
    spec: bytes
    status: bytes
    progress: bytes
    run_token: str | None = None
    oversize: int = 0
    waits: bool = False
    summary: Summary
    has_spec: bool = True

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def owner(self) -> Owner:
        """Namespace and UID."""
        return self.namespace, self.uid

    @property
    def keeps_children(self) -> bool:
        """Whether its children stay after it is finished."""
        return self.ttl_seconds is None

    @property
    def settled(self) -> bool:
        """Whether only a change of the object itself can make a reconcile necessary."""
        return self.ignored or (self.finished and self.keeps_children)

    @property
    def between_attempts(self) -> bool:
        """Whether the newest attempt has ended. A report from a pod of it that still runs is out of date."""
        attempts = json.loads(self.status or b"{}").get("attempts") or [{}]
        return "endTime" in attempts[-1]

    def finetunejob(self, profiles: Profiles = no_profiles) -> FineTuneJob:
        """The parsed object. A settled record, and one without its spec, do not have it.

        Args:
            profiles: those that count if the run has not begun. Afterwards the status has what they supplied.

        Raises:
            SpecError: the spec is not valid for this version.
        """
        if self.oversize:
            raise too_large(self.oversize)
        status = FineTuneJobStatus.model_validate(self.raw_status())
        profile = status.profile
        if not has_begun(status, self.run_token):
            profile_or_held = resolve(profiles(self.namespace), ref_of(json.loads(self.spec)))
            if isinstance(profile_or_held, Held):
                return self._with(status, _own_values(self.spec), held=profile_or_held)
            profile = profile_or_held
        if profile is None:
            spec = _parsed(self.spec) if len(self.spec) <= KEPT_SPEC_BYTES else parse_spec(self.spec)
            return self._with(status, spec)
        found = effective(self.spec, profile)
        return replace(self._with(status, found.spec), profile=profile, excess=found.excess)

    def _with(self, status: FineTuneJobStatus, spec: FineTuneJobSpec, held: Held | None = None) -> FineTuneJob:
        return FineTuneJob(
            name=self.name,
            namespace=self.namespace,
            uid=self.uid,
            generation=self.generation,
            creation_time=self.creation_time,
            deleting=False,  # otherwise it is ignored
            spec=spec,
            status=status,
            held=held,
        )

    @property
    def creation_time(self) -> datetime:
        """When it was created."""
        return datetime.fromisoformat(self.created)

    def kept(self) -> "FineTuneJobRecord":
        """The record as it is kept: without a large spec."""
        return self if len(self.spec) <= KEPT_SPEC_BYTES else replace(self, spec=b"", has_spec=False)

    def raw_status(self) -> dict[str, Any]:
        """The status with its progress."""
        status: dict[str, Any] = json.loads(self.status)
        if self.progress:
            status["progress"] = json.loads(self.progress)
        return status

    def differs_from(self, earlier: "FineTuneJobRecord | None") -> bool:
        """Whether the change needs a reconcile: anything but progress and metadata has changed.

        A progress record alone needs none. The deadline that depends on it (a stall) requeues the key by time.
        """
        return earlier is None or any(getattr(self, name) != getattr(earlier, name) for name in _COMPARED_FIELDS)


@lru_cache(maxsize=256)
def _parsed(spec: bytes) -> FineTuneJobSpec:
    """Cached: a job is reconciled several times within seconds, and its spec hardly ever changes."""
    return parse_spec(spec)


@lru_cache(maxsize=256)
def _own_values(spec: bytes) -> FineTuneJobSpec:
    return parse_spec(spec, own_values=True)


_COMPARED_FIELDS = ("uid", "generation", "ignored", "finished", "status")
"""The generation grows with every change of the spec."""


def finetunejob_record(raw: Mapping[str, Any]) -> FineTuneJobRecord:
    """The record of an object."""
    metadata: Mapping[str, Any] = raw["metadata"]
    spec: Mapping[str, Any] = raw.get("spec") or {}
    status: Mapping[str, Any] = raw.get("status") or {}
    generation = metadata.get("generation", 1)
    token = spec.get("runToken")
    finished = _finished(status, generation, token)
    ttl_seconds = _ttl_seconds(spec.get("retention"))
    if ttl_seconds is None:
        ttl_seconds = _ttl_seconds(_supplied_retention(status.get("profile")))
    ignored = spec.get("managedBy", names.CONTROLLER_NAME) != names.CONTROLLER_NAME or "deletionTimestamp" in metadata
    settled = ignored or (finished and ttl_seconds is None)
    progress = status.get("progress")
    spec_json = b"" if settled else compact_json(spec)
    oversize = len(spec_json) if len(spec_json) > MAX_SPEC_BYTES else 0
    return FineTuneJobRecord(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata.get("resourceVersion", ""),
        generation=generation,
        created=metadata["creationTimestamp"],
        ignored=ignored,
        finished=finished,
        ttl_seconds=ttl_seconds,
        attempt=status.get("attempt") or 0,
        spec=b"" if oversize else spec_json,
        run_token=token if isinstance(token, str) else None,
        oversize=oversize,
        waits=not settled and not status.get("startTime"),
        status=b"" if settled else compact_json({key: value for key, value in status.items() if key != "progress"}),
        progress=b"" if settled or not progress else compact_json(progress),
        summary=summary_of(raw),
    )


def _ttl_seconds(retention: object) -> int | None:
    """The TTL of a raw spec.retention, whatever its other fields hold; None when it is absent or invalid."""
    value = retention.get("ttlSecondsAfterFinished") if isinstance(retention, Mapping) else None
    if value is None:
        return None
    try:
        return Retention.model_validate({"ttlSecondsAfterFinished": value}, strict=True).ttl_seconds_after_finished
    except ValidationError:
        return None


def _supplied_retention(profile: object) -> object:
    """The section retention among the recorded values of a run's profiles; None if they supply none."""
    values = profile.get("values") if isinstance(profile, Mapping) else None
    if not isinstance(values, str) or '"retention"' not in values:
        return None
    try:
        return json.loads(values).get("retention")
    except (ValueError, AttributeError):
        return None


def _finished(status: Mapping[str, Any], generation: int, run_token: str | None) -> bool:
    return (
        status.get("observedGeneration") == generation
        and (status.get("runToken") or None) == (run_token or None)
        and any(
            item.get("type") == ConditionType.FINISHED and item.get("status") == "True"
            for item in status.get("conditions") or ()
        )
    )
