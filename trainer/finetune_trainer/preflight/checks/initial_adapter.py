"""The adapter to continue from exists, is complete, and is of the kind that the recipe asks for."""

from finetune_trainer.contract.uri import Uri
from finetune_trainer.inputs.initial_adapter import initial_adapter_objects, require_agreement
from finetune_trainer.preflight.check import Check, CheckOutcome, passed
from finetune_trainer.preflight.context import PreflightContext


def _asks(context: PreflightContext) -> list[Uri]:
    uri = context.recipe.lora.initial_adapter_uri
    return [] if uri is None else [uri]


def _run(context: PreflightContext) -> CheckOutcome:
    recipe = context.recipe
    uri = recipe.lora.initial_adapter_uri
    if uri is None:
        context.adapter = []
        return passed()
    objects = initial_adapter_objects(recipe, context.open_store)
    require_agreement(recipe, objects, context.open_store)
    context.adapter = objects
    return passed(f"continues from {uri}, {sum(item.size for item in objects):,} bytes")


INITIAL_ADAPTER = Check(name="adapter", run=_run, asks=_asks)
