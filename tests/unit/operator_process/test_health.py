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


def test_a_queue_without_progress_is_a_liveness_problem() -> None:
    replica = Replica(last_contact=10_000.0, leading_since=5_000.0, last_resync=9_990.0, stuck=STUCK_SECONDS + 1)
    assert "no progress" in (replica.health().liveness_problem() or "")


def test_a_standby_has_no_liveness_problem_from_keys_in_its_queue() -> None:
    replica = Replica(last_contact=10_000.0, stuck=STUCK_SECONDS + 1)
    assert replica.health().liveness_problem() is None


def test_a_leader_without_a_resync_for_three_periods_has_a_liveness_problem() -> None:
    replica = Replica(last_contact=10_000.0, leading_since=9_500.0, last_resync=8_000.0)
    assert replica.health().liveness_problem() is None
    replica.now += 500
    replica.last_contact = replica.now
    assert "resync" in (replica.health().liveness_problem() or "")
    replica.leading_since = None
    assert replica.health().liveness_problem() is None
