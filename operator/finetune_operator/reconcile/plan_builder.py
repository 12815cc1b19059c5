"""The builder of a plan: policies add to it, and it builds one plan."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.status import FineTuneJobStatus, ProfileStatus
from finetune_operator.reconcile.config import ReconcileConfig
from finetune_operator.reconcile.observed import JobView, Observed
from finetune_operator.reconcile.plan import Deletion, Event, EventType, Plan


@dataclass(slots=True, kw_only=True)
class RunPlanBuilder:
    """The plan so far, with all that the beginning and the end of a run need. Both work for an invalid spec too.

    Attributes:
        generation: generation of the spec.
        run_token: spec.runToken.
        ttl_seconds: spec.retention.ttlSecondsAfterFinished, in seconds.
        observed: the children.
        now: the current time.
        status: the status so far.
        profile: the profiles of the run that is under way or that begins; None without any.
    """

    generation: int
    run_token: str | None
    ttl_seconds: int | None
    observed: Observed
    now: datetime
    status: FineTuneJobStatus
    profile: ProfileStatus | None = None
    _apply: list[dict[str, Any]] = field(default_factory=list)
    _delete: list[Deletion] = field(default_factory=list)
    _events: list[Event] = field(default_factory=list)
    _requeue_at: datetime | None = None

    def update(self, **fields: Any) -> None:
        """Sets fields of the status."""
        self.status = self.status.model_copy(update=fields)

    def child(self, role: str, attempt: int) -> JobView | None:
        """The Job of a stage, if its UID is in the status. Jobs that the operator did not create are ignored."""
        child = self.observed.job(self.status.job_uid)
        return child if child is not None and (child.role, child.attempt) == (role, attempt) else None

    def apply(self, manifest: dict[str, Any]) -> None:
        """Adds a child to apply."""
        self._apply.append(manifest)

    def delete(self, child: JobView) -> None:
        """Adds a child to delete, with its pods."""
        deletion = Deletion(name=child.name, uid=child.uid)
        if not child.deleting and deletion not in self._delete:
            self._delete.append(deletion)

    def event(self, reason: str, message: str, type_: EventType = EventType.NORMAL) -> None:
        """Adds an event, for `kubectl describe`."""
        self._events.append(Event(type=type_, reason=reason, message=message))

    def requeue_at(self, at: datetime) -> None:
        """Requeues the FineTuneJob at that time; the earliest of several times counts."""
        if self._requeue_at is None or at < self._requeue_at:
            self._requeue_at = at

    def build(self) -> Plan:
        """The plan."""
        after = None if self._requeue_at is None else max(timedelta(0), self._requeue_at - self.now).total_seconds()
        return Plan(
            apply=tuple(self._apply),
            delete=tuple(self._delete),
            status=self.status,
            events=tuple(self._events),
            requeue_after=after,
        )


@dataclass(slots=True, kw_only=True)
class PlanBuilder(RunPlanBuilder):
    """The plan so far of a FineTuneJob with a valid spec.

    Attributes:
        finetunejob: the FineTuneJob as it was read.
        config: the operator's configuration.
    """

    finetunejob: FineTuneJob
    config: ReconcileConfig

    @classmethod
    def start(
        cls, finetunejob: FineTuneJob, observed: Observed, config: ReconcileConfig, now: datetime
    ) -> "PlanBuilder":
        """Returns the plan that changes nothing yet."""
        return cls(
            generation=finetunejob.generation,
            run_token=finetunejob.spec.run_token,
            ttl_seconds=finetunejob.spec.retention.ttl_seconds_after_finished,
            observed=observed,
            now=now,
            status=finetunejob.status,
            profile=finetunejob.profile,
            finetunejob=finetunejob,
            config=config,
        )
