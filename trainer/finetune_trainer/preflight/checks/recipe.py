"""The recipe's fields do not contradict each other."""

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.rules import problems
from finetune_trainer.preflight.check import Check, CheckOutcome, passed
from finetune_trainer.preflight.context import PreflightContext


def _run(context: PreflightContext) -> CheckOutcome:
    if broken := problems(context.recipe):
        raise TrainerError(FailureReason.INVALID_SPEC, "; ".join(map(str, broken)))
    return passed("every field is understood")


RECIPE = Check(name="recipe", run=_run)
