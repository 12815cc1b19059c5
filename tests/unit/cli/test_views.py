"""What is shown of a job, from its object alone: also from one that is half there, of another version, or hostile."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.cli.views.duration import duration, seconds_of
from finetune_operator.cli.views.event import events_of
from finetune_operator.cli.views.job import JobView
from finetune_operator.cli.views.plan import plan_lines
from finetune_operator.cli.views.screen import screen
from finetune_operator.cli.views.table import jobs_table
from finetune_trainer.contract.failure import FAILURES, FailureReason, exit_code_of

pytestmark = pytest.mark.extras

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def job(spec: dict[str, Any] | None = None, **status: Any) -> JobView:
    metadata = {"name": "job", "namespace": "team", "generation": 1, "creationTimestamp": "2026-11-24T10:00:00Z"}
    return JobView({"metadata": metadata, "spec": spec or {}, "status": status})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (250, "4m10s"), (600, "10m"), (10_799, "179m"),
     (11_100, "3h5m"), (28_800, "8h"), (172_800, "2d"), (176_400, "2d1h"), (691_200, "8d")],
)  # fmt: skip
def test_durations_are_kubectls(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1h30m", 5400), ("1.5h", 5400), ("2d", 172_800)])
def test_a_timeout_is_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "1x", "-5", "h", "5 m", "1e3"])
def test_what_is_no_timeout_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        seconds_of(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    "phase", "conditions", "attempts", "progress", "preflight", "failure", "output", "gpus", "gpuSeconds", "gpuPrice",
    "cost", "startTime", "observedGeneration", "restarts", "attempt", "runToken",
)  # fmt: skip


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON)), st.dictionaries(st.text(max_size=8), JSON))
def test_no_object_breaks_the_screen_and_none_reaches_the_terminal_raw(
    status: dict[str, Any], spec: dict[str, Any]
) -> None:
    view = job(spec, **status)
    lines = [*(line.plain for line in screen(view, [], NOW)), *jobs_table([view], NOW, wide=True)]
    assert all(part.isprintable() for line in lines for part in line.split("\n"))


def test_a_hostile_text_of_each_kind_is_escaped() -> None:
    bad = "\x1b]0;owned\x07\u202e"
    view = job(
        {"model": {"uri": bad}},
        phase=bad,
        attempts=[{"number": 1, "reason": bad, "message": bad}],
        progress={"display": bad, "waitingFor": bad},
        output={"uri": bad, "metrics": {bad: bad}},
        observedGeneration=1,
    )
    [event] = events_of([{"type": bad, "reason": bad, "message": bad, "lastTimestamp": "2026-11-24T11:00:00Z"}])
    text = "\n".join(line.plain for line in screen(view, [event], NOW))
    assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert text.count("\\x1b]0;owned") > 6


def test_the_running_attempt_counts_in_gpu_time_and_cost() -> None:
    attempts = [{"number": 1, "startTime": "2026-11-24T11:00:00Z"}]
    view = job(phase="Running", gpus=4, gpuSeconds=3600, gpuPrice="2.00", cost="2.0000", attempts=attempts)
    assert view.gpu_seconds(NOW) == 3600 + 4 * 3600
    assert view.cost(NOW) == 10
    assert view.cost_per_hour == 8
    ended = job(phase="Succeeded", gpus=4, gpuSeconds=3600, gpuPrice="2.00", cost="2.0000", attempts=attempts)
    assert (ended.gpu_seconds(NOW), ended.cost(NOW), ended.gpus_in_use) == (3600, 2, 0)
    assert job(phase="Running", gpus=1).cost(NOW + timedelta(hours=1)) is None


def test_a_run_has_ended_only_if_it_is_the_one_that_the_spec_asks_for() -> None:
    finished = [{"type": "Finished", "status": "True"}]
    assert job(phase="Succeeded", conditions=finished).ended
    assert not job({"runToken": "2"}, phase="Succeeded", conditions=finished).ended
    assert job({"runToken": "2"}, phase="Failed", conditions=finished, runToken="2").ended


@pytest.mark.parametrize("reason", FAILURES)
def test_a_failure_has_the_exit_code_of_its_reason(reason: FailureReason) -> None:
    assert job(phase="Failed", failure={"reason": reason, "message": "m"}).exit_code == exit_code_of(reason)
    assert job(phase="Failed", failure={"reason": "OfALaterVersion"}).exit_code == 1
    assert job(phase="Succeeded").exit_code == 0


@pytest.mark.parametrize(
    ("checkpoint", "when"),
    [
        ({}, "every 10 minutes"),
        ({"everyMinutes": 5}, "every 5 minutes"),
        ({"everySteps": 1000}, "every 1,000 steps"),
        ({"everySteps": 50, "everyMinutes": 5}, "every 50 steps and every 5 minutes"),
    ],
)
def test_a_plan_says_when_checkpoints_are_saved(checkpoint: dict[str, int], when: str) -> None:
    lines = plan_lines("job", _spec(checkpoint=checkpoint))

    assert f"Checkpoint:  {when}, the newest 2 are kept, below s3://models" in lines


def test_a_plan_says_where_metrics_go() -> None:
    tracked = plan_lines("job", _spec(tracking={"mlflow": {"uri": "https://mlflow.ml"}}))

    assert "Tracker:     metrics go to https://mlflow.ml" in tracked
    assert not any(line.startswith("Tracker") for line in plan_lines("job", _spec()))


def _spec(**sections: Any) -> FineTuneJobSpec:
    places = {"model": {"uri": "hf://org/name"}, "dataset": {"uri": "s3://data/rows"}, "output": {"uri": "s3://models"}}
    return FineTuneJobSpec.model_validate(places | sections)
