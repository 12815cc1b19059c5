"""Liveness is about what a restart can heal; readiness about what works now."""

from dataclasses import dataclass

import pytest

from finetune_operator.health import SILENT_SECONDS, STUCK_SECONDS, Health

pytestmark = pytest.mark.extras


@dataclass
class Replica:
    now: float = 10_000.0
    stuck: float = 0.0
    last_contact: float | None = None
    leading_since: float | None = None
    last_resync: float | None = None

    def health(self) -> Health:
        return Health(
            stuck_seconds=lambda: self.stuck,
            last_contact=lambda: self.last_contact,
            leading_since=lambda: self.leading_since,
            last_resync=lambda: self.last_resync,
            resync_seconds=300.0,
            clock=lambda: self.now,
        )


def test_leader_and_standby_are_ready_when_the_api_server_answers() -> None:
    assert Replica().health().readiness_problem()
    for leading_since in (None, 9_999.0):
        replica = Replica(last_contact=9_999.0, leading_since=leading_since, last_resync=9_999.0)
        assert replica.health().readiness_problem() is None
        assert replica.health().liveness_problem() is None
        replica.now += SILENT_SECONDS + 2
        assert replica.health().readiness_problem()
        assert replica.health().liveness_problem() is None, "a restart does not bring the API server back"


def test_a_queue_that_stands_still_is_dead() -> None:
    replica = Replica(last_contact=10_000.0, leading_since=5_000.0, last_resync=9_990.0, stuck=STUCK_SECONDS + 1)
    assert "no progress" in (replica.health().liveness_problem() or "")


def test_a_standby_is_not_judged_by_keys_that_it_can_not_take() -> None:
    replica = Replica(last_contact=10_000.0, stuck=STUCK_SECONDS + 1)
    assert replica.health().liveness_problem() is None


def test_a_leader_whose_resync_never_succeeds_is_dead_after_three_periods() -> None:
    replica = Replica(last_contact=10_000.0, leading_since=9_500.0, last_resync=8_000.0)
    assert replica.health().liveness_problem() is None
    replica.now += 500
    replica.last_contact = replica.now
    assert "resync" in (replica.health().liveness_problem() or "")
    replica.leading_since = None
    assert replica.health().liveness_problem() is None
