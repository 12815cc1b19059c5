"""Specs that are refused before any pod exists: fields without behaviour yet, and what the administrator forbids."""

from dataclasses import dataclass

from finetune_operator.api.job import FineTuneJob
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.reconcile.config import ReconcileConfig
from finetune_trainer.contract.failure import FailureReason
from finetune_trainer.contract.recipe.model import DeviceMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why the spec is refused."""

    reason: FailureReason
    message: str


def refuse(job: FineTuneJob, config: ReconcileConfig) -> Refusal | None:
    """The refusal of a spec, with every field that is at fault; None when it may run."""
    forbidden = _forbidden(job, config)
    if forbidden:
        return Refusal(reason=FailureReason.INVALID_RECIPE, message="; ".join(forbidden))
    if missing := not_yet(job.spec):
        return Refusal(reason=FailureReason.NOT_SUPPORTED, message="; ".join(missing))
    return None


def _forbidden(job: FineTuneJob, config: ReconcileConfig) -> list[str]:
    scheduling = job.spec.scheduling
    problems = []
    account = scheduling.service_account_name or "default"
    if account not in config.service_accounts:
        allowed = ", ".join(sorted(config.service_accounts)) or "none"
        problems.append(
            f"spec.scheduling.serviceAccountName: {account!r} is not one that the administrator allows ({allowed})"
        )
    if job.spec.model.trust_remote_code and not config.allow_remote_code:
        problems.append(
            "spec.model.trustRemoteCode: the administrator does not allow code from model repositories "
            "(FINETUNE_ALLOW_REMOTE_CODE): remove the field, or use a model that transformers knows by itself"
        )
    if job.spec.model.device_map is not DeviceMap.NONE and not job.spec.resources.gpus:
        problems.append("spec.model.deviceMap: it spreads layers over GPUs, and resources.gpus is 0: remove the field")
    return problems


def not_yet(spec: FineTuneJobSpec) -> list[str]:
    """The fields of a spec that this version has no behaviour for, each with what to do."""
    problems = []
    if spec.scheduling.queue_name is not None:
        problems.append("spec.scheduling.queueName: Kueue is not there yet: remove it")
    return problems
