"""Every end of a pod is recorded: a report that does not fit the status is a failure with a reason."""

import json
from typing import Any

import pytest

from finetune_operator.api.reasons import Phase
from finetune_operator.api.status import FineTuneJobStatus
from finetune_trainer.contract.failure import FailureReason
from unit.reconcile.world import World, a_job, checked, failed, succeeded

LONG, HUGE = "s3://" + "x" * 1500, 10**30
OUTPUT: dict[str, dict[str, Any]] = {
    "a long address": {"uri": LONG},
    "a long merged address": {"mergedUri": LONG},
    "a long manifest address": {"manifestUri": LONG},
    "a long digest": {"digest": LONG},
    "a long base model": {"baseModel": LONG},
    "rank 0": {"rank": 0},
    "a rank over 2^63": {"rank": 2**63},
    "a size over 2^63": {"sizeBytes": 2**63},
    "a negative size": {"sizeBytes": -1},
    "65 metrics": {"metrics": {str(number): 1.0 for number in range(65)}},
    "257 modules": {"targetModules": [str(number) for number in range(257)]},
    "a long module": {"targetModules": [LONG]},
    "a long metric": {"metrics": {LONG: 1.0}},
    "control characters": {"uri": "s3://models/\x1b[2J"},
}
PROGRESS: dict[str, dict[str, Any]] = {
    **{
        f"{name} {value}": {name: value}
        for name in ("step", "totalSteps", "etaSeconds", "bytesUploaded", "peakMemoryBytes")
        for value in (-1, 2**63, HUGE)
    },
    "a rate over 2^63": {"tokensPerSecond": 1e300},
    "checkpoint 0": {"checkpointStep": 0},
    "percent 101": {"percent": 101},
    "a time without a zone": {"heartbeatTime": "2026-01-01T00:00:00"},
}
PREFLIGHT: dict[str, dict[str, Any]] = {
    **{
        f"{name} {value}": {name: value}
        for name in ("rows", "bytes", "problems", "steps", "modelParameters", "modelBytes")
        for value in (-1, 2**63)
    },
    "a long revision": {"modelRevision": LONG},
    "a long schema": {"schema": LONG},
}


def message(base: str, section: str | None, fields: dict[str, Any]) -> str:
    """A termination message with these fields of a section instead."""
    said = json.loads(base)
    (said.setdefault(section, {}) if section else said).update(fields)
    return json.dumps(said)


def end(world: World, text: str) -> FineTuneJobStatus:
    """The status after a child has ended well with that report; it is one that the API server takes."""
    world.finish(text)
    world.step()
    return FineTuneJobStatus.model_validate(world.status.to_dict())


TRAINED = [
    *(("output", fields) for fields in OUTPUT.values()),
    *(("progress", fields) for fields in PROGRESS.values()),
    (None, {"fingerprint": LONG}),
]


@pytest.mark.parametrize(("section", "fields"), TRAINED)
def test_a_success_that_cannot_be_recorded_is_a_failure(section: str | None, fields: dict[str, Any]) -> None:
    world = World(job=a_job(preflight={"enabled": False}, retry={"limit": 0}))
    world.step()
    world.run()

    status = end(world, message(succeeded(), section, fields))

    assert status.phase is Phase.FAILED
    assert status.failure is not None
    assert status.failure.reason == FailureReason.INTERNAL


@pytest.mark.parametrize("fields", PREFLIGHT.values(), ids=PREFLIGHT)
def test_a_preflight_that_cannot_be_recorded_is_a_failure(fields: dict[str, Any]) -> None:
    world = World(job=a_job(retry={"limit": 0}))
    world.step()

    status = end(world, message(checked(), "preflight", fields))

    assert status.failure is not None
    assert status.failure.reason == FailureReason.INTERNAL


def test_the_message_of_a_failure_is_readable() -> None:
    world = World(job=a_job(preflight={"enabled": False}, retry={"limit": 0}))
    world.step()
    world.run()
    world.finish(failed(FailureReason.DATASET_INVALID, "shard\x1b[2J\x07\r.jsonl:1"), exit_code=10)
    world.step()

    assert world.status.failure is not None
    assert world.status.failure.message.startswith("shard\\x1b[2J\\x07\\r.jsonl:1")
