"""The smallest way of training fits the GPU, where its memory is known."""

from finetune_trainer.memory.gpu_memory import minimum_memory, require_gpu_memory
from finetune_trainer.preflight.check import Check, CheckOutcome, Need, passed, skipped
from finetune_trainer.preflight.checks.existing_output import EXISTING_OUTPUT
from finetune_trainer.preflight.checks.model import MODEL
from finetune_trainer.preflight.context import PreflightContext


def _run(context: PreflightContext) -> CheckOutcome:
    assert context.model is not None
    if context.existing is not None:
        return skipped("nothing is trained: the adapter is there")
    facts = context.model.facts
    least = minimum_memory(context.recipe, facts.config, facts.tensors, facts.weights_size)
    if least is None:
        return skipped("the model's config.json does not have the sizes by which it is estimated")
    context.memory = least
    return passed(require_gpu_memory(context.recipe, least))


MEMORY = Check(
    name="memory", run=_run, needs=(Need(MODEL.name, "the model is not known"),), after=(EXISTING_OUTPUT.name,)
)
