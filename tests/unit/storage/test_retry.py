"""The one retry policy: pauses, deadline, what the server asks for, and who is told."""

import math

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.storage.base import ObjectReplacedError
from finetune_trainer.storage.retry import LatePause, Retryable, RetryNotifier, RetryPolicy
from finetune_trainer.storage.timing import CHECKING, TRAINING
from sleeping import SleepingClock

FAILED = Retryable("away")


def pauses(policy: RetryPolicy, tries: int, elapsed: float = 0.0) -> list[float | None]:
    return [policy.pause(FAILED, number, elapsed) for number in range(1, tries + 1)]


def unavailable() -> TrainerError:
    return TrainerError(FailureReason.STORAGE_UNAVAILABLE, "away")


def test_pauses_grow_to_the_longest_and_end_with_the_tries() -> None:
    assert pauses(RetryPolicy(tries=6, longest_pause=15), 6) == [1, 2, 4, 8, 15, None]
    assert pauses(RetryPolicy(seconds=math.inf, first_pause=0.5, factor=4), 1_000_000)[-1] == 30


@pytest.mark.parametrize(
    ("late_pause", "expected"),
    [
        (LatePause.GIVE_UP, [4, None, None, None]),
        (LatePause.KEEP, [4, 4, 4, None]),
        (LatePause.SHORTEN, [4, 3, None, None]),
    ],
)
def test_a_pause_that_would_end_after_the_deadline(late_pause: LatePause, expected: list[float | None]) -> None:
    policy = RetryPolicy(seconds=10, first_pause=4, late_pause=late_pause)
    assert [policy.pause(FAILED, 1, elapsed) for elapsed in (6, 7, 10, 10.5)] == expected


def test_jitter_only_shortens_a_pause() -> None:
    policy = RetryPolicy(first_pause=8, jitter=True)
    seen = {policy.pause(FAILED, 1, 0) for _ in range(50)}
    assert len(seen) > 1
    assert all(pause is not None and 0 <= pause < 8 for pause in seen)


def test_the_servers_wish_is_a_pause_unless_it_is_too_long() -> None:
    policy = RetryPolicy(longest_pause=2, longest_retry_after=60)
    assert [policy.pause(Retryable("busy", asked), 1, 0) for asked in (0, 20, 60, 61)] == [1, 20, 60, None]


def test_a_server_that_was_never_reached_has_limits_of_its_own() -> None:
    policy = RetryPolicy(tries=6, unreachable=RetryPolicy(tries=2))
    unreachable = Retryable("nobody", unreachable=True)
    assert [policy.pause(unreachable, tries, 0) for tries in (1, 2)] == [1, None]
    assert policy.pause(FAILED, 2, 0) == 2


def test_preflight_gives_up_an_address_where_nobody_is_sooner_than_a_training() -> None:
    unreachable = Retryable("nobody", unreachable=True)
    assert CHECKING.requests.pause(unreachable, 1, 20) is None
    assert TRAINING.requests.pause(unreachable, 1, 20) is not None
    assert CHECKING.requests.pause(FAILED, 1, 20) is not None


def test_a_call_is_repeated_until_it_succeeds_and_listeners_are_told() -> None:
    told: list[str | None] = []
    clock, left = SleepingClock(), [unavailable(), unavailable()]

    def action() -> str:
        if left:
            raise left.pop()
        return "done"

    assert clock.retry_policy(notifier=RetryNotifier(told.append)).call(action) == "done"
    assert clock.now == 3
    assert told == ["away", "away", None]


@pytest.mark.parametrize(
    "error", [TrainerError(FailureReason.STORAGE_ACCESS_DENIED, "no"), ObjectReplacedError("s3://b/k"), KeyError("x")]
)
def test_what_cannot_pass_is_raised_at_once(error: Exception) -> None:
    told: list[str | None] = []
    clock = SleepingClock()

    def action() -> None:
        raise error

    with pytest.raises(type(error)):
        clock.retry_policy(notifier=RetryNotifier(told.append)).call(action)
    assert clock.now == 0
    assert told == []


def test_the_deadline_counts_from_the_last_progress_where_there_is_any() -> None:
    clock = SleepingClock()
    tries = 0

    def action() -> None:
        nonlocal tries
        tries += 1
        raise unavailable()

    policy = clock.retry_policy(seconds=5, longest_pause=1)
    with pytest.raises(TrainerError):
        policy.call(action)
    assert (tries, clock.now) == (6, 5)
    tries = 0
    with pytest.raises(TrainerError):
        policy.call(action, last_progress=lambda: 8.0)
    assert (tries, clock.now) == (9, 13)
