"""Counters: what the policy's status writes count, each exactly once."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from finetune_operator.api.status import FineTuneJobStatus
from finetune_operator.control.informer.record import finetunejob_record
from finetune_operator.metrics.instruments import Instruments
from finetune_trainer.contract.failure import FailureReason
from unit.metrics.scraped import Samples, samples
from unit.reconcile.world import CONFIG, World, a_job, checked, failed, raw_job, succeeded

pytestmark = pytest.mark.extras


class Counted(World):
    """A FineTuneJob whose status writes are counted, as the controller reports them."""

    def __init__(self, **spec: Any) -> None:
        super().__init__(a_job(**spec), config=CONFIG)
        self.registry = CollectorRegistry()
        self.instruments = Instruments(self.registry)
        self.raw = raw_job(**spec)

    def step(self) -> Any:
        known = self.status
        plan = super().step()
        if self.status != known:
            self.write(known, self.status)
        return plan

    def write(self, known: FineTuneJobStatus, written: FineTuneJobStatus) -> None:
        self.instruments.status_written(finetunejob_record(self.raw), known, written)

    def seen(self, prefix: str = "finetune_") -> Samples:
        return {
            series: value
            for series, value in samples(self.registry, prefix).items()
            if value and "_bucket" not in series
        }

    def steps(self, count: int = 4) -> None:
        for _ in range(count):
            self.step()


def test_a_whole_life_is_counted_once_however_often_it_is_reconciled() -> None:
    world = Counted(resources={"gpus": 2})
    world.now = datetime(2026, 11, 24, 12, 0, 7, tzinfo=UTC)  # created seven seconds ago
    world.steps()
    world.later(20)
    world.finish(checked())
    world.steps()
    world.later(40)
    world.run()
    world.steps()
    world.later(600)
    world.finish(succeeded())
    world.steps()
    durations = world.seen("finetune_phase_duration_seconds_sum")
    assert durations == {
        f'finetune_phase_duration_seconds_sum{{namespace="team-a",phase="{phase}"}}': duration
        for phase, duration in (("Pending", 7), ("Preflight", 20), ("Starting", 40), ("Running", 600))
    }
    counted = {series: value for series, value in world.seen().items() if "duration" not in series}
    assert counted == {
        'finetune_attempts_started_total{namespace="team-a"}': 1,
        'finetune_attempts_ended_total{namespace="team-a",reason="TrainingSucceeded"}': 1,
        'finetune_runs_ended_total{namespace="team-a",phase="Succeeded"}': 1,
        # The container's own times: it was created before it waited.
        'finetune_gpu_seconds_total{namespace="team-a",resource="nvidia.com/gpu"}': 2 * 640,
    }


def test_attempts_restarts_and_the_cost_are_counted() -> None:
    world = Counted(preflight={"enabled": False}, retry={"limit": 1, "backoffSeconds": 0})
    world.config = replace(CONFIG, gpu_prices={"nvidia.com/gpu": Decimal(36)})
    for _ in range(2):
        world.steps()
        world.run()
        world.steps()
        world.later(100)
        world.finish(failed(FailureReason.STORAGE_UNAVAILABLE), exit_code=20)
    world.steps()
    seen = world.seen()
    assert seen['finetune_attempts_started_total{namespace="team-a"}'] == 2
    assert seen['finetune_restarts_total{namespace="team-a"}'] == 1
    assert seen['finetune_attempts_ended_total{namespace="team-a",reason="StorageUnavailable"}'] == 2
    assert seen['finetune_runs_ended_total{namespace="team-a",phase="Failed"}'] == 1
    assert seen['finetune_gpu_seconds_total{namespace="team-a",resource="nvidia.com/gpu"}'] == 200
    assert seen['finetune_gpu_cost_total{namespace="team-a",resource="nvidia.com/gpu"}'] == pytest.approx(2)


def test_another_run_counts_anew_and_the_time_after_an_end_counts_for_nothing() -> None:
    world = Counted(preflight={"enabled": False})
    world.steps()
    world.run()
    world.finish(succeeded())
    world.steps()
    world.later(1_000_000)
    world.edit(preflight={"enabled": False}, runToken="again")
    world.steps()
    seen = world.seen()
    assert seen['finetune_attempts_started_total{namespace="team-a"}'] == 2
    assert "finetune_restarts_total" not in str(seen)
    assert sum(value for series, value in seen.items() if "duration_seconds_sum" in series) < 1_000


def test_a_refused_job_ends_in_one_write_and_has_no_attempt() -> None:
    world = Counted(model={"uri": "s3://models/base", "trustRemoteCode": True})
    world.steps()
    assert world.seen() == {
        'finetune_runs_ended_total{namespace="team-a",phase="Failed"}': 1,
        'finetune_phase_duration_seconds_count{namespace="team-a",phase="Pending"}': 1,
    }


def test_a_reason_that_is_unknown_has_one_common_label() -> None:
    world = Counted()
    status = {"attempt": 1, "attempts": [{"number": 1, "startTime": "2026-11-24T12:00:00Z"}]}
    ended = {"attempt": 1, "attempts": [{"number": 1, "endTime": "2026-11-24T12:00:00Z", "reason": "x" * 90}]}
    world.write(FineTuneJobStatus.model_validate(status), FineTuneJobStatus.model_validate(ended))
    assert world.seen()['finetune_attempts_ended_total{namespace="team-a",reason="Other"}'] == 1


def test_counters_begin_at_zero_or_prometheus_would_miss_the_first_event() -> None:
    registry = CollectorRegistry()
    instruments = Instruments(registry, prices=["nvidia.com/gpu"])
    instruments.know_jobs("team-a", "nvidia.com/gpu")
    seen = samples(registry)
    assert seen['finetune_runs_ended_total{namespace="team-a",phase="Failed"}'] == 0
    assert seen['finetune_restarts_total{namespace="team-a"}'] == 0
    assert seen['finetune_gpu_seconds_total{namespace="team-a",resource="nvidia.com/gpu"}'] == 0
    assert seen['finetune_gpu_cost_total{namespace="team-a",resource="nvidia.com/gpu"}'] == 0
    assert seen['finetune_reconcile_errors_total{reason="Unexpected"}'] == 0


def test_a_tenant_s_gpu_resource_adds_no_series() -> None:
    registry = CollectorRegistry()
    instruments = Instruments(registry, prices=["nvidia.com/mig-1g.10gb", "gpu.product=L4"])
    for resource in ("nvidia.com/mig-1g.10gb", *(f"evil.example/{number}" for number in range(50))):
        instruments.know_jobs("team-a", resource)
    seconds = samples(registry, "finetune_gpu_seconds_total")
    assert set(seconds) == {
        f'finetune_gpu_seconds_total{{namespace="team-a",resource="{resource}"}}'
        for resource in ("nvidia.com/mig-1g.10gb", "Other")
    }
