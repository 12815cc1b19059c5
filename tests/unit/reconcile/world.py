"""A FineTuneJob and its children for tests of the policy. It carries plans out, and tests change Jobs and pods.

It has no logic of the operator: it applies manifests by name and deletes by UID. Tests advance the time and the pods.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from finetune_operator.api import names
from finetune_operator.api.finetunejob import FineTuneJob, parse_job
from finetune_operator.api.status import FineTuneJobStatus
from finetune_operator.reconcile.config import ReconcileConfig
from finetune_operator.reconcile.observed import JobView, Observed, PodView, Terminated, job_view
from finetune_operator.reconcile.plan import Event, Plan
from finetune_operator.reconcile.reconcile import reconcile
from finetune_trainer.contract.failure import FailureReason
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.termination import Outcome, OutputRecord, PreflightSummary, Termination

START = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)

CONFIG = ReconcileConfig(
    preflight_image="localhost/finetune-operator:1",
    trainer_image="localhost/finetune-trainer:1",
    progress_url="http://operator:8080",
)

OUTPUT = OutputRecord(
    uri="s3://models/adapters/support-bot/0123456789ab/1-aaaa",
    manifest_uri="s3://models/adapters/support-bot/0123456789ab/manifest.json",
    digest="sha256:00",
    size_bytes=1234,
    base_model="org/base",
    rank=16,
    target_modules=["q_proj"],
    metrics={"loss": 1.5},
)


def raw_job(**spec: Any) -> dict[str, Any]:
    """Returns a FineTuneJob as the API server stores it. Keyword arguments replace sections of the spec."""
    return {
        "metadata": {
            "name": "support-bot",
            "namespace": "team-a",
            "uid": "11111111-2222-3333-4444-555555555555",
            "generation": 1,
            "creationTimestamp": "2026-11-24T12:00:00Z",
        },
        "spec": {
            "model": {"uri": "s3://models/base"},
            "dataset": {"uri": "s3://data/train.jsonl"},
            "output": {"uri": "s3://models/adapters"},
            **spec,
        },
    }


def a_job(**spec: Any) -> FineTuneJob:
    """Returns the parsed FineTuneJob of `raw_job`."""
    return parse_job(raw_job(**spec))


def succeeded(**fields: Any) -> str:
    """Returns the termination message of a successful training."""
    return Termination(outcome=Outcome.SUCCEEDED, fingerprint="f" * 64, output=OUTPUT, **fields).to_json()


def reused() -> str:
    """Returns the termination message of a preflight that found the adapter."""
    return Termination(outcome=Outcome.REUSED, fingerprint="f" * 64, output=OUTPUT).to_json()


def checked(rows: int = 42, **found: Any) -> str:
    """Returns the termination message of a successful preflight."""
    summary = PreflightSummary(rows=rows, bytes=1000, schema="text", **found)
    return Termination(outcome=Outcome.SUCCEEDED, fingerprint="f" * 64, preflight=summary).to_json()


def failed(reason: FailureReason, message: str = "facts") -> str:
    """Returns the termination message of a failure."""
    return Termination(outcome=Outcome.FAILED, reason=reason, message=message).to_json()


@dataclass
class World:
    """One FineTuneJob with its children."""

    job: FineTuneJob
    config: ReconcileConfig = CONFIG
    now: datetime = START
    jobs: dict[str, JobView] = field(default_factory=dict)
    pods: dict[str, PodView] = field(default_factory=dict)
    manifests: dict[str, dict[str, Any]] = field(default_factory=dict)
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    status_writes: int = 0
    requeue_after: float | None = None

    @property
    def status(self) -> FineTuneJobStatus:
        return self.job.status

    def plan(self) -> Plan:
        observed = Observed(jobs=tuple(self.jobs.values()), pods=tuple(self.pods.values()))
        return reconcile(self.job, observed, self.config, self.now)

    def step(self) -> Plan:
        """Reconciles once and carries the plan out."""
        plan = self.plan()
        carried_out = plan
        for manifest in plan.apply:
            self._apply(manifest)
            if (made := self.jobs.get(name := manifest["metadata"]["name"])) is not None:
                carried_out = carried_out.with_job_uid(name, made.uid)
        for deletion in plan.delete:
            self.remove(deletion.name)
        if carried_out.status != self.job.status:
            self.status_writes += 1
            self.job = replace(self.job, status=carried_out.status)
        self.events.extend(plan.events)
        self.requeue_after = plan.requeue_after
        return plan

    def _apply(self, manifest: dict[str, Any]) -> None:
        name = manifest["metadata"]["name"]
        if manifest["kind"] == "Service":
            self.services[name] = manifest
            return
        if name in self.jobs:
            assert manifest == self.manifests[name], "a Job's template is immutable"
            return
        self.manifests[name] = manifest
        self.jobs[name] = self._view(name, created=self.now, spec=manifest["spec"])
        self.made.append(name)

    def queue(self, *, suspend: bool, suspended: str) -> None:
        """A queue has suspended or resumed the child, and Kubernetes has said so in its condition."""
        name = self.child().name
        spec = {**self.manifests[name]["spec"], "suspend": suspend}
        condition = {"type": "Suspended", "status": suspended, "lastTransitionTime": self.now.isoformat()}
        self.jobs[name] = self._view(name, self.jobs[name].created, spec, {"conditions": [condition]})

    def _view(
        self, name: str, created: datetime, spec: dict[str, Any], status: dict[str, Any] | None = None
    ) -> JobView:
        """What the operator sees of a Job."""
        manifest = self.manifests[name]
        metadata = {**manifest["metadata"], "uid": f"uid-{name}", "creationTimestamp": created.isoformat()}
        view = job_view({**manifest, "metadata": metadata, "spec": spec, "status": status or {}})
        assert view is not None
        return view

    def remove(self, name: str) -> None:
        """Removes the Job and its pods."""
        self.jobs.pop(name)
        self.pods = {uid: pod for uid, pod in self.pods.items() if pod.job_name != name}

    def recipe(self, name: str) -> Recipe:
        """Returns the recipe in a Job's annotation."""
        annotations = self.manifests[name]["spec"]["template"]["metadata"]["annotations"]
        return Recipe.model_validate_json(annotations[names.RECIPE_ANNOTATION])

    def edit(self, **spec: Any) -> None:
        """Changes the spec as a user does. The generation grows."""
        raw = raw_job(**spec)
        raw["metadata"]["generation"] = self.job.generation + 1
        self.job = replace(parse_job(raw), status=self.job.status)

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def child(self) -> JobView:
        """Returns the newest Job that has not ended."""
        return next(job for job in reversed(self.jobs.values()) if not (job.complete or job.failed))

    def pod(self, **fields: Any) -> PodView:
        """Creates or changes the pod of the newest Job."""
        job = self.child()
        uid = f"pod-{job.name}"
        values: dict[str, Any] = {
            "namespace": job.namespace,
            "name": f"{job.name}-x",
            "uid": uid,
            "job_name": job.name,
            "job_uid": job.uid,
            "owner_uid": self.job.uid,
            "role": job.role,
            "attempt": job.attempt,
            "phase": "Pending",
            "reason": "",
            "message": "",
            "created": job.created,
            "running_since": None,
            "waiting_reason": "",
            "waiting_message": "",
            "unschedulable": "",
            "disruption": "",
            "terminated": None,
            "deletion_time": None,
            **fields,
        }
        self.pods[uid] = PodView(**values)
        return self.pods[uid]

    def run(self) -> None:
        """Starts the container of the newest Job."""
        self.pod(phase="Running", running_since=self.now)

    def finish(self, message: str, exit_code: int = 0, reason: str = "", **fields: Any) -> None:
        """Ends the container of the newest Job, and the Job."""
        job = self.child()
        ok = exit_code == 0
        terminated = Terminated(
            exit_code=exit_code,
            reason=reason or ("Completed" if ok else "Error"),
            message=message,
            started=job.created,
            finished=self.now,
        )
        self.pod(phase="Succeeded" if ok else "Failed", terminated=terminated, **fields)
        self.jobs[job.name] = replace(
            job, complete=ok, failed=not ok, failure_reason="" if ok else "BackoffLimitExceeded"
        )
