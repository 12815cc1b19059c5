"""Says when the usual server will not load the adapter. The training is as good as any; so this never fails."""

from finetune_trainer.model.vllm import vllm_warnings
from finetune_trainer.preflight.check import Check, CheckOutcome, passed
from finetune_trainer.preflight.checks.model import MODEL
from finetune_trainer.preflight.context import PreflightContext


def _warnings(context: PreflightContext) -> list[str]:
    config = {} if context.model is None else context.model.facts.config
    return vllm_warnings(context.recipe.lora, config)


def _run(context: PreflightContext) -> CheckOutcome:
    return passed(" ".join(_warnings(context)))


SERVING = Check(name="serving", run=_run, after=(MODEL.name,), applies=lambda context: bool(_warnings(context)))
