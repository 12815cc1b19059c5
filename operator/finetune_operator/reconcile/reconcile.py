"""The policy of a FineTuneJob on one page."""

from datetime import datetime

from finetune_operator.api.job import FineTuneJob
from finetune_operator.reconcile.config import ReconcileConfig
from finetune_operator.reconcile.observed import Observed
from finetune_operator.reconcile.plan import Plan


def reconcile(job: FineTuneJob, observed: Observed, config: ReconcileConfig, now: datetime) -> Plan:
    """What should exist and what the status should say, given what is seen.

    Level-triggered: the same arguments give the same plan, and carrying a plan out leads to a state whose plan is
    empty but for time.
    """
    raise NotImplementedError
