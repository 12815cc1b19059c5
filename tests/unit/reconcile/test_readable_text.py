"""What a container or a node wrote reaches status and events without control characters."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from finetune_operator.api import names
from finetune_operator.api.finetunejob import FineTuneJobRef
from finetune_operator.api.reasons import ConditionType
from finetune_operator.api.status import ConditionStatus, FineTuneJobStatus
from finetune_operator.kube.api import Kube
from finetune_operator.kube.events import EventRecorder
from finetune_operator.reconcile.child_state import classify
from finetune_operator.reconcile.conditions import with_conditions
from finetune_operator.reconcile.observed import JobView, PodView, job_view, pod_view
from finetune_operator.reconcile.plan import Event, EventType
from finetune_trainer.contract.text import CONTROL

NO_SERVER = cast("Kube", None)

ESCAPES = "\x1b]0;evil\x07 \x9b2J \u202elive \u2066"
TIME = "2026-01-01T00:00:00Z"
METADATA = {
    "namespace": "team",
    "name": "name",
    "uid": "uid",
    "creationTimestamp": TIME,
    "labels": {names.ROLE_LABEL: names.TRAIN_ROLE, names.ATTEMPT_LABEL: "1"},
}


def pod(state: dict[str, Any], **status: Any) -> PodView:
    containers = [{"name": "trainer", "state": state}]
    view = pod_view({"metadata": METADATA, "status": {"containerStatuses": containers, **status}})
    assert view is not None
    return view


def job(**condition: str) -> JobView:
    view = job_view(
        {"metadata": METADATA, "status": {"conditions": [{"type": "Failed", "status": "True", **condition}]}}
    )
    assert view is not None
    return view


TEXTS = {
    "a Job's failure": job(reason=ESCAPES, message=ESCAPES),
    "a pod's status": pod({}, reason=ESCAPES, message=ESCAPES),
    "a container that waits": pod({"waiting": {"reason": ESCAPES, "message": ESCAPES}}),
    "a pod without a node": pod({}, conditions=[{"type": "PodScheduled", "status": "False", "message": ESCAPES}]),
    "a disruption": pod({}, conditions=[{"type": "DisruptionTarget", "status": "True", "reason": ESCAPES}]),
    "the end of a log": classify(pod({"terminated": {"exitCode": 1, "message": ESCAPES}})),
    "the end of a killed one": classify(pod({"terminated": {"exitCode": 137, "message": ESCAPES}})),
}


@pytest.mark.parametrize("what", TEXTS)
def test_text_of_others_is_readable(what: str) -> None:
    shown = texts(TEXTS[what])
    assert "live" in "".join(shown)
    assert not any(CONTROL.search(text) for text in shown)


def test_conditions_and_events_are_readable_whoever_wrote_the_text() -> None:
    desired = {ConditionType.SUCCEEDED: ConditionStatus.FALSE}
    [condition] = with_conditions(FineTuneJobStatus(), desired, "Failed", ESCAPES, 1, datetime.now(UTC))
    recorder = EventRecorder(NO_SERVER, instance="test", now=lambda: datetime.now(UTC))
    ref = FineTuneJobRef(namespace="team", name="name", uid="uid")
    event = Event(type=EventType.WARNING, reason="Failed", message=ESCAPES)
    body = recorder._body("event", ref, event, datetime.now(UTC))
    for text in (condition.message, str(body["note"])):
        assert "live" in text
        assert not CONTROL.search(text)


def texts(view: Any) -> list[str]:
    """The texts of a view, as they are."""
    return [value for name in view.__dataclass_fields__ if isinstance(value := getattr(view, name), str)]
