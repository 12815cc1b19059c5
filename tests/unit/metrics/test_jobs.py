"""Gauges about jobs: what status and progress say of the FineTuneJobs that exist, and nothing else."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from finetune_operator.control.informer.record import FineTuneJobRecord, finetunejob_record
from finetune_operator.metrics import jobs
from finetune_operator.metrics.jobs import JobCollector
from unit.control.builders import CREATED, a_finetunejob, finished_status
from unit.metrics.scraped import Samples, samples

pytestmark = pytest.mark.extras

ENTERED = "2026-11-24T11:00:00Z"
LATER = "2026-11-24T12:00:00Z"


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()


def a_record(name: str, phase: str | None = None, **rest: Any) -> FineTuneJobRecord:
    status: dict[str, Any] = {"observedGeneration": 1, "lastPhaseTransitionTime": ENTERED, **rest.pop("status", {})}
    if phase is not None:
        status["phase"] = phase
    return finetunejob_record(a_finetunejob(name, uid=f"uid-{name}", status=status, **rest))


def ended(name: str, phase: str, failure: str = "") -> FineTuneJobRecord:
    more: dict[str, Any] = {"failure": {"reason": failure, "message": ""}} if failure else {}
    return finetunejob_record(a_finetunejob(name, uid=f"uid-{name}", status=finished_status(phase=phase, **more)))


def running(name: str, **progress: Any) -> FineTuneJobRecord:
    return a_record(name, "Running", status={"gpus": 2, "attempt": 1, "progress": {"stage": "Training", **progress}})


def scrape(records: Iterable[FineTuneJobRecord] | None, *, per_job: bool = False) -> Samples:
    registry = CollectorRegistry()
    collector = JobCollector(lambda: records, per_job=per_job)
    registry.register(collector)
    collector.take()
    return samples(registry)


def test_jobs_are_counted_by_phase_also_those_that_have_ended() -> None:
    seen = scrape(
        [
            ended("a", "Succeeded"),
            ended("b", "Succeeded"),
            ended("c", "Failed", "DatasetInvalid"),
            a_record("d"),
            a_record("e", "Starting", status={"gpus": 4}),
        ]
    )
    phases = {phase: seen[f'finetune_jobs{{namespace="team",phase="{phase}"}}'] for phase in ("Succeeded", "Failed")}
    assert phases == {"Succeeded": 2, "Failed": 1}
    assert seen['finetune_jobs{namespace="team",phase="Pending"}'] == 1, "it has no status yet"
    assert seen['finetune_jobs{namespace="team",phase="Running"}'] == 0, "absent would break a graph"
    assert seen['finetune_failed_jobs{namespace="team",reason="DatasetInvalid"}'] == 1
    assert seen['finetune_gpus{namespace="team",phase="Starting",resource="nvidia.com/gpu"}'] == 4


def test_what_another_controller_manages_is_not_counted() -> None:
    assert scrape([a_record("a", "Running", spec={"managedBy": "example.com/other"})]) == {}


def test_a_replica_that_does_not_lead_has_no_series_about_jobs() -> None:
    assert scrape(None) == {}


def test_the_job_that_is_longest_in_its_phase_counts() -> None:
    first = a_record("a", "Starting", status={"lastPhaseTransitionTime": ENTERED})
    second = a_record("b", "Starting", status={"lastPhaseTransitionTime": LATER})
    never = a_record("c", status={"lastPhaseTransitionTime": None})
    seen = scrape([first, second, never, ended("d", "Failed", "Killed"), ended("e", "Succeeded")])
    name = "finetune_oldest_phase_start_timestamp_seconds"
    assert {series: value for series, value in seen.items() if series.startswith(name)} == {
        f'{name}{{namespace="team",phase="Starting"}}': seconds(ENTERED),
        f'{name}{{namespace="team",phase="Pending"}}': seconds(CREATED),
    }


def test_running_trainings_add_up_and_the_oldest_of_them_counts() -> None:
    one = running(
        "a",
        tokensPerSecond=1200,
        stepsPerSecond="0.5",
        step=90,
        checkpointStep=50,
        heartbeatTime=LATER,
        checkpointTime="2026-11-24T11:30:00Z",
    )
    two = running("b", tokensPerSecond=800, stepsPerSecond="0.25", step=10, heartbeatTime="2026-11-24T12:00:05Z")
    seen = scrape([one, two, a_record("c", "Starting")])
    assert seen['finetune_tokens_per_second{namespace="team"}'] == 2000
    assert seen['finetune_steps_per_second{namespace="team"}'] == 0.75
    assert seen['finetune_oldest_heartbeat_timestamp_seconds{namespace="team"}'] == seconds(LATER)
    assert seen['finetune_oldest_checkpoint_timestamp_seconds{namespace="team"}'] == seconds(ENTERED), "b has none"
    assert seen['finetune_checkpoint_lag_steps{namespace="team"}'] == 40
    assert seen['finetune_gpus{namespace="team",phase="Running",resource="nvidia.com/gpu"}'] == 4


def test_single_jobs_have_series_only_if_asked_for_and_only_while_unfinished() -> None:
    records = [running("a", step=7, totalSteps=20, loss="1.2500", learningRate="0.0002"), ended("b", "Succeeded")]
    assert not any(series.startswith("finetune_job_") for series in scrape(records))
    seen = scrape(records, per_job=True)
    assert seen['finetune_job_info{name="a",namespace="team",phase="Running"}'] == 1
    assert seen['finetune_job_loss{name="a",namespace="team"}'] == 1.25
    assert seen['finetune_job_step{name="a",namespace="team"}'] == 7
    assert seen['finetune_job_steps{name="a",namespace="team"}'] == 20
    assert seen['finetune_job_learning_rate{name="a",namespace="team"}'] == 0.0002
    assert not any('name="b"' in series for series in seen)
    assert 'finetune_job_eval_loss{name="a",namespace="team"}' not in seen, "it is not known"


def test_the_series_of_single_jobs_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_SINGLE_JOBS", 2)
    seen = scrape([a_record("a", "Starting"), a_record("b", "Starting"), running("c", step=1)], per_job=True)
    assert seen["finetune_job_series_omitted"] == 1
    assert {series for series in seen if series.startswith("finetune_job_info")} == {
        'finetune_job_info{name="c",namespace="team",phase="Running"}',
        'finetune_job_info{name="a",namespace="team",phase="Starting"}',
    }


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Hacked\n{}"},
        {"phase": 7},
        {"phase": "Failed", "failure": {"reason": "x" * 5000}},
        {"phase": "Running", "progress": {"tokensPerSecond": "inf", "heartbeatTime": "never", "step": []}},
        {"phase": "Starting", "gpus": "many", "lastPhaseTransitionTime": 5},
    ],
)
def test_a_status_that_somebody_else_has_written_adds_no_label_and_breaks_no_scrape(status: dict[str, Any]) -> None:
    seen = scrape([finetunejob_record(a_finetunejob(status=status))], per_job=True)
    assert seen
    assert all("Hacked" not in series and "xxx" not in series for series in seen)


def test_gpus_of_resources_that_nobody_knows_are_counted_together() -> None:
    records = [
        a_record(
            f"job-{number}", "Starting", status={"gpus": 1}, spec={"resources": {"gpuResource": f"evil.io/{number}"}}
        )
        for number in range(3)
    ]
    gpus = {series: value for series, value in scrape(records).items() if series.startswith("finetune_gpus")}
    assert gpus == {'finetune_gpus{namespace="team",phase="Starting",resource="Other"}': 3}


def test_ended_jobs_share_their_summaries() -> None:
    assert ended("a", "Succeeded").summary is ended("b", "Succeeded").summary
