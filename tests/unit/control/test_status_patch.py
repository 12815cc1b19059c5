"""The merge patch between two statuses, applied by the rules of RFC 7386 to what the server may hold."""

from datetime import UTC, datetime
from typing import Any

from finetune_operator.api.reasons import Phase
from finetune_operator.api.status import (
    Condition,
    ConditionStatus,
    Failure,
    FineTuneJobStatus,
    ProgressStatus,
)
from finetune_operator.control.status_patch import progress_patch, status_patch
from finetune_trainer.contract.termination import PreflightSummary

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386, word for word."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def a_status(**fields: Any) -> FineTuneJobStatus:
    condition = Condition(
        type="Ready", status=ConditionStatus.UNKNOWN, reason="Training", message="", last_transition_time=NOW
    )
    return FineTuneJobStatus(observed_generation=1, phase=Phase.RUNNING, conditions=[condition], **fields)


def test_the_same_status_is_no_patch() -> None:
    raw = a_status().to_dict()
    raw["conditions"][0]["lastTransitionTime"] = "2026-11-24T10:00:00.000000+00:00"  # the same moment
    assert status_patch("42", FineTuneJobStatus.model_validate(raw), a_status()) is None


def test_a_patch_leads_to_the_desired_status_and_removes_absent_fields() -> None:
    known = a_status(
        pod_name="pod", failure=Failure(reason="Killed", message="m", exit_code=137), preflight=PreflightSummary(rows=5)
    )
    wanted = a_status(failure=Failure(reason="Killed", message="m"), preflight=PreflightSummary(problems=1))
    patch = status_patch("42", known, wanted)
    assert patch is not None
    assert patch["metadata"] == {"resourceVersion": "42"}
    assert merged(known.to_dict(), patch["status"]) == wanted.to_dict()
    assert "conditions" not in patch["status"], "what did not change is not written"


def test_progress_is_not_in_the_patch_unless_the_plan_changed_it() -> None:
    before = ProgressStatus(step=5, loss="2.0")
    patch = status_patch("42", a_status(progress=before), a_status(progress=before, pod_name="pod"))
    assert patch == {"metadata": {"resourceVersion": "42"}, "status": {"podName": "pod"}}


def test_final_progress_is_part_of_the_final_status() -> None:
    known = a_status(progress=ProgressStatus(step=9, loss="1.5", eta_seconds=3))
    wanted = a_status(progress=ProgressStatus(step=10, percent=100))
    patch = status_patch("42", known, wanted)
    assert patch is not None
    assert merged(known.to_dict(), patch["status"]) == wanted.to_dict()


def test_a_new_attempt_removes_progress() -> None:
    patch = status_patch("42", a_status(progress=ProgressStatus(step=5)), a_status())
    assert patch is not None
    assert patch["status"] == {"progress": None}


def test_a_progress_patch_changes_only_progress_and_has_the_resource_version() -> None:
    patch = progress_patch("42", ProgressStatus(step=6))
    assert patch["metadata"] == {"resourceVersion": "42"}
    on_server = a_status(pod_name="pod", progress=ProgressStatus(step=5, loss="2.0")).to_dict()
    assert merged(on_server, patch["status"]) == a_status(pod_name="pod", progress=ProgressStatus(step=6)).to_dict()
