"""All writes together keep to their rate, on a loop that is late too."""

from finetune_operator.progress.pacer import CATCH_UP_SECONDS, Pacer


def slots(lateness: float, seconds: float) -> list[float]:
    """When deeds are done by a loop that wakes so much too late each time."""
    now = 100.0
    pacer = Pacer(50, clock=lambda: now)
    done = []
    while now < 100 + seconds:
        done.append(now)
        delay = pacer.reserve()
        now += delay + (lateness if delay else 0.0)
    return done


def test_a_loop_that_is_late_loses_nothing_of_the_rate() -> None:
    for lateness in (0.0, 0.005, 0.03, 0.3):
        assert abs(len(slots(lateness, 10)) - 500) <= 50 * CATCH_UP_SECONDS + 1


def test_after_a_pause_there_is_no_flood() -> None:
    now = 0.0
    pacer = Pacer(50, clock=lambda: now)
    pacer.reserve()
    now = 1000.0
    at_once = 0
    while pacer.reserve() == 0:
        at_once += 1
    assert at_once <= 50 * CATCH_UP_SECONDS + 1
