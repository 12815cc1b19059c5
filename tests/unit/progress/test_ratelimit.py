"""How often one job may report."""

from finetune_operator.progress.ratelimit import Rate, RateLimit

PER_SECOND, BURST = 2.0, 20


def test_a_burst_then_the_rate_for_each_key() -> None:
    now = 0.0
    limit = RateLimit(Rate(per_second=PER_SECOND, burst=BURST), clock=lambda: now)
    assert [limit.seconds_to_wait("a") for _ in range(BURST)] == [0.0] * BURST
    assert limit.seconds_to_wait("a") == 1 / PER_SECOND
    assert limit.seconds_to_wait("b") == 0
    now = 1 / PER_SECOND
    assert limit.seconds_to_wait("a") == 0
    assert limit.seconds_to_wait("a") > 0
    now = 1000.0
    assert limit.seconds_to_wait("a") == 0
