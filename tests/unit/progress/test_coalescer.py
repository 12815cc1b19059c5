"""Coalescing: many reports, few writes, none lost. Time is a number that the test moves."""

from typing import Any

from finetune_operator.api.finetunejob import FineTuneJobRef
from finetune_operator.progress.coalescer import Coalescer, Report
from finetune_trainer.contract.progress import Progress, Stage


def a_report(step: int, uid: str = "u", attempt: int = 1, stage: Stage = Stage.TRAINING, **fields: Any) -> Report:
    ref = FineTuneJobRef(namespace="team", name=f"job-{uid}", uid=uid)
    return Report(ref=ref, attempt=attempt, record=Progress(stage=stage, step=step, **fields))


def step_taken(coalescer: Coalescer, now: float) -> int | None:
    report = coalescer.pop_due(now)
    return None if report is None else report.record.step


def test_the_first_is_due_at_once_and_then_the_latest_every_ten_seconds() -> None:
    coalescer = Coalescer()
    written = []
    for tick in range(400):  # 40 s, ten reports a second
        now = tick / 10
        coalescer.add(a_report(tick), now)
        if (step := step_taken(coalescer, now)) is not None:
            written.append((now, step))
    assert written == [(0.0, 0), (10.0, 100), (20.0, 200), (30.0, 300)]


def test_the_last_is_not_lost() -> None:
    coalescer = Coalescer()
    coalescer.add(a_report(1), 0)
    assert step_taken(coalescer, 0) == 1
    coalescer.add(a_report(2), 1)
    coalescer.add(a_report(3), 2)
    assert coalescer.next_due() == 10
    assert step_taken(coalescer, 9.9) is None
    assert step_taken(coalescer, 10) == 3
    assert coalescer.next_due() is None


def test_a_change_of_stage_goes_earlier_but_not_within_two_seconds() -> None:
    coalescer = Coalescer()
    coalescer.add(a_report(1, stage=Stage.LOADING), 0)
    assert step_taken(coalescer, 0) == 1
    coalescer.add(a_report(2, stage=Stage.TRAINING), 0.5)
    coalescer.add(a_report(3, stage=Stage.TRAINING), 1)
    assert step_taken(coalescer, 1.9) is None
    assert step_taken(coalescer, 2) == 3
    coalescer.add(a_report(4, stage=Stage.TRAINING), 3)
    assert coalescer.next_due() == 12


def test_each_job_waits_on_its_own_and_due_jobs_go_in_order() -> None:
    coalescer = Coalescer()
    for index in range(5):
        coalescer.add(a_report(0, uid=str(index)), index)
    assert [step_taken(coalescer, 10) for _ in range(6)] == [0, 0, 0, 0, 0, None]
    coalescer.add(a_report(1, uid="3"), 11)
    coalescer.add(a_report(1, uid="9"), 12)
    report = coalescer.pop_due(12)
    assert report is not None
    assert report.ref.uid == "9"


def test_five_hundred_jobs_are_fifty_writes_a_second_and_ten_seconds_old_at_most() -> None:
    coalescer = Coalescer()
    writes: list[float] = []
    oldest = 0.0
    last_offer: dict[str, float] = {}
    for tick in range(1200):  # 60 s in steps of 50 ms; each job reports every 5 s; at most 2.5 writes a step
        now = tick / 20
        for index in range(500):
            if (tick + index) % 100 == 0:
                coalescer.add(a_report(tick, uid=str(index)), now)
                last_offer.setdefault(str(index), now)
        for _ in range(2 + tick % 2):
            report = coalescer.pop_due(now)
            if report is None:
                break
            writes.append(now)
            oldest = max(oldest, now - last_offer.pop(report.ref.uid))
    assert max(sum(1 for time in writes if start <= time < start + 1) for start in range(60)) <= 50
    assert len(writes) > 2500
    assert oldest <= 15


def test_a_write_that_failed_is_retried_with_the_newest_report() -> None:
    coalescer = Coalescer()
    coalescer.add(a_report(1), 0)
    failed = coalescer.pop_due(0)
    assert failed is not None
    coalescer.requeue(failed, 1, 5)
    assert step_taken(coalescer, 5.9) is None
    coalescer.add(a_report(2), 5.95)
    assert step_taken(coalescer, 6) == 2, "the newer report replaces the one that failed, and keeps its turn"
    coalescer.add(a_report(3), 7)
    coalescer.requeue(failed, 8, 0)
    assert step_taken(coalescer, 100) == 3, "an old report does not replace a newer one"


def test_a_report_of_an_earlier_attempt_does_not_replace_a_later_one() -> None:
    coalescer = Coalescer()
    coalescer.add(a_report(1, attempt=2), 0)
    coalescer.add(a_report(99, attempt=1), 0)
    assert step_taken(coalescer, 0) == 1


def test_flush_makes_everything_due() -> None:
    coalescer = Coalescer()
    coalescer.add(a_report(1), 0)
    coalescer.pop_due(0)
    coalescer.add(a_report(2), 1)
    assert len(coalescer) == 1
    coalescer.flush(1)
    assert step_taken(coalescer, 1) == 2
    assert len(coalescer) == 0


def test_silent_jobs_are_forgotten_and_waiting_ones_are_not() -> None:
    coalescer = Coalescer()
    for uid in ("silent", "waiting"):
        coalescer.add(a_report(1, uid=uid), 0)
        coalescer.pop_due(0)
    coalescer.add(a_report(2, uid="waiting"), 1)
    coalescer.forget_idle(10_000)
    coalescer.add(a_report(3, uid="silent"), 10_000)
    assert coalescer.next_due() == 10, "the one that waits kept its turn"
    coalescer.pop_due(10_000)
    assert coalescer.next_due() == 10_000, "the other one starts anew"
