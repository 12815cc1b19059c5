"""kopf is a watch and stores nothing."""

import itertools

import pytest

from finetune_operator.watch.kopf_settings import Backoffs, kopf_settings

pytestmark = pytest.mark.extras


def test_kopf_stores_posts_scans_and_leads_nothing() -> None:
    settings = kopf_settings(children="a=b")
    assert not settings.posting.enabled
    assert settings.scanning.disabled
    assert settings.peering.standalone
    assert settings.queueing.worker_limit is None
    assert settings.persistence.diffbase_storage.build() == {}  # type: ignore[call-arg]
    assert settings.process.ultimate_exiting_timeout is None


def test_backoffs_never_end_and_stay_below_ninety_seconds() -> None:
    backoffs = list(itertools.islice(Backoffs(), 1000))
    assert len(backoffs) == 1000
    assert 1 <= backoffs[0] <= 1.5
    assert all(60 <= delay <= 90 for delay in backoffs[10:])
