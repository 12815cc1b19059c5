"""Specs that are refused before a pod is created.

They have fields that the administrator forbids, values above a ceiling of their profiles, or an old GPU.
"""

from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.gpu_capability import unsupported_gpu
from finetune_operator.reconcile.child_state import Failed
from finetune_operator.reconcile.config import ReconcileConfig
from finetune_trainer.contract.failure import FailureReason
from finetune_trainer.contract.problem import Problem, shown


def refuse(finetunejob: FineTuneJob, config: ReconcileConfig) -> Failed | None:
    """The failure of a job whose spec is refused, with every refused field; None if it may run."""
    if forbidden := _forbidden(finetunejob, config):
        return Failed(reason=FailureReason.INVALID_SPEC, message="; ".join(map(str, forbidden)))
    if (old := unsupported_gpu(finetunejob.spec.resources, finetunejob.spec.scheduling)) is not None:
        return Failed(reason=FailureReason.GPU_NOT_SUPPORTED, message=f"spec.scheduling: {old}")
    return None


def _forbidden(finetunejob: FineTuneJob, config: ReconcileConfig) -> list[Problem]:
    problems = list(finetunejob.excess)
    account = finetunejob.spec.scheduling.service_account_name or "default"
    if account not in config.service_accounts:
        allowed = ", ".join(sorted(config.service_accounts)) or "none"
        problems.append(
            Problem(
                path="spec.scheduling.serviceAccountName",
                value=shown(account),
                message=f"the administrator does not allow this name; allowed: {allowed}",
            )
        )
    if finetunejob.spec.model.trust_remote_code and not config.allow_remote_code:
        problems.append(
            Problem(
                path="spec.model.trustRemoteCode",
                value=shown(value=True),
                message="the administrator does not allow code from model repositories (FINETUNE_ALLOW_REMOTE_CODE): "
                "remove the field, or use a model that transformers supports without it",
            )
        )
    scheduling = finetunejob.spec.scheduling
    for index, variable in enumerate(scheduling.env or ()):
        if variable.name not in config.environment:
            path = f"spec.scheduling.env[{index}].name"
            problems.append(Problem(path=path, value=shown(variable.name), message=_not_allowed("variable", "ENV")))
    for key in scheduling.annotations or ():
        if key not in config.annotations:
            message = _not_allowed("annotation", "ANNOTATIONS")
            problems.append(Problem(path="spec.scheduling.annotations", value=shown(key), message=message))
    return problems


def _not_allowed(kind: str, variable: str) -> str:
    return f"jobs may not set this {kind}: remove it, or ask the administrator to allow it (FINETUNE_JOB_{variable})"
