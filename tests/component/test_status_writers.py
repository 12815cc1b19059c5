"""Two writers of one status on a real API server: neither wipes the other's part or writes what it has not seen."""

from datetime import UTC, datetime

import pytest

from component.plane import a_finetunejob
from finetune_operator.api import names
from finetune_operator.api.reasons import Phase
from finetune_operator.api.status import (
    Attempt,
    Condition,
    ConditionStatus,
    Failure,
    FineTuneJobStatus,
    ProgressStatus,
)
from finetune_operator.control.status_patch import progress_patch, status_patch
from finetune_operator.kube.api import FINETUNEJOBS
from finetune_operator.kube.client import ClientKube
from finetune_operator.kube.errors import Conflict, NotFound
from finetune_trainer.contract.termination import PreflightSummary

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


def a_condition(type_: str, status: ConditionStatus) -> Condition:
    return Condition(type=type_, status=status, reason="Training", message="", last_transition_time=NOW)


class Writers:
    """The two writers, each with its field manager."""

    def __init__(self, kube: ClientKube, namespace: str, uid: str, version: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self.uid = uid
        self.version = version

    async def status(self, known: FineTuneJobStatus, wanted: FineTuneJobStatus) -> FineTuneJobStatus:
        patch = status_patch(self.version, known, wanted)
        assert patch is not None
        return await self._write(patch, names.FIELD_MANAGER)

    async def progress(self, progress: ProgressStatus) -> FineTuneJobStatus:
        return await self._write(progress_patch(self.version, progress), names.PROGRESS_FIELD_MANAGER)

    async def _write(self, patch: dict[str, object], manager: str) -> FineTuneJobStatus:
        raw = await self._kube.merge(
            FINETUNEJOBS, self._namespace, "job", patch, field_manager=manager, subresource="status"
        )
        self.version = raw["metadata"]["resourceVersion"]
        return FineTuneJobStatus.model_validate(raw["status"])


@pytest.fixture
async def writers(kube: ClientKube, admin: ClientKube, namespace: str) -> Writers:
    raw = await admin.create(FINETUNEJOBS, namespace, a_finetunejob(namespace))
    return Writers(kube, namespace, raw["metadata"]["uid"], raw["metadata"]["resourceVersion"])


async def test_neither_writer_removes_the_others_fields(writers: Writers) -> None:
    conditions = [
        a_condition("Succeeded", ConditionStatus.UNKNOWN),
        a_condition("Reconciling", ConditionStatus.TRUE),
    ]
    known = await writers.status(
        FineTuneJobStatus(), FineTuneJobStatus(observed_generation=1, phase=Phase.RUNNING, conditions=conditions)
    )
    shown = await writers.progress(ProgressStatus(step=1, loss="2.0", eta_seconds=9))
    assert shown.conditions == known.conditions
    shown = await writers.progress(ProgressStatus(step=2, loss="1.9"))
    assert shown.progress == ProgressStatus(step=2, loss="1.9"), "what the earlier record had and this lacks is gone"

    known = shown
    renamed = known.model_copy(update={"pod_name": "pod"})
    shown = await writers.status(known, renamed)
    assert shown.progress == ProgressStatus(step=2, loss="1.9")
    assert shown.pod_name == "pod"

    # The end: conditions are replaced as a list, the final record as a whole.
    final = renamed.model_copy(
        update={
            "phase": Phase.SUCCEEDED,
            "conditions": [a_condition("Succeeded", ConditionStatus.TRUE)],
            "progress": ProgressStatus(step=3, percent=100),
        }
    )
    assert await writers.status(renamed, final) == final


async def test_a_late_record_does_not_overwrite_the_last_one(writers: Writers) -> None:
    late = writers.version
    final = FineTuneJobStatus(observed_generation=1, phase=Phase.SUCCEEDED, progress=ProgressStatus(percent=100))
    await writers.status(FineTuneJobStatus(), final)
    writers.version = late
    with pytest.raises(Conflict):
        await writers.progress(ProgressStatus(percent=98))


async def test_a_status_made_from_an_older_version_is_not_written(writers: Writers) -> None:
    late = writers.version
    await writers.progress(ProgressStatus(percent=98))
    writers.version = late
    with pytest.raises(Conflict):
        await writers.status(FineTuneJobStatus(), FineTuneJobStatus(progress=ProgressStatus(percent=1)))


async def test_new_objects_with_absent_fields_are_accepted_and_removed_again(writers: Writers) -> None:
    full = FineTuneJobStatus(
        observed_generation=1,
        attempts=[Attempt(number=1, start_time=NOW)],
        failure=Failure(reason="Killed", message="m", exit_code=137),
        preflight=PreflightSummary(rows=5),
        progress=ProgressStatus(step=1),
    )
    assert await writers.status(FineTuneJobStatus(), full) == full
    less = FineTuneJobStatus(observed_generation=1, failure=Failure(reason="Killed", message="m"))
    assert await writers.status(full, less) == less


async def test_a_new_job_with_the_same_name_is_not_written(
    writers: Writers, kube: ClientKube, admin: ClientKube, namespace: str
) -> None:
    await admin.delete(FINETUNEJOBS, namespace, "job", uid=writers.uid)
    wanted = FineTuneJobStatus(observed_generation=1, phase=Phase.RUNNING)
    with pytest.raises(NotFound):
        await writers.status(FineTuneJobStatus(), wanted)
    await admin.create(FINETUNEJOBS, namespace, a_finetunejob(namespace))
    with pytest.raises(Conflict):
        await writers.status(FineTuneJobStatus(), wanted)
    raw = await kube.get(FINETUNEJOBS, namespace, "job")
    assert "phase" not in raw["status"]
