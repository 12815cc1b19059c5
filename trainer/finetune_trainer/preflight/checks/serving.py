"""Says when the usual server will not load the adapter. The training is as good as any; so this never fails."""

from finetune_trainer.contract.serving import serving_warning
from finetune_trainer.preflight.check import Check, CheckOutcome, passed
from finetune_trainer.preflight.context import PreflightContext


def _run(context: PreflightContext) -> CheckOutcome:
    return passed(serving_warning(context.recipe.lora) or "")


SERVING = Check(name="serving", run=_run, applies=lambda context: serving_warning(context.recipe.lora) is not None)
