"""The base model is complete."""

from finetune_trainer.inputs.sources import model_files, model_folder
from finetune_trainer.model.model_types import not_measured_warning, require_mergeable, require_quantizable
from finetune_trainer.preflight.check import Check, CheckOutcome, passed
from finetune_trainer.preflight.context import CheckedModel, PreflightContext
from finetune_trainer.preflight.model_files import check_model


def _run(context: PreflightContext) -> CheckOutcome:
    recipe = context.recipe
    folder = model_folder(recipe, context.open_store)
    remote_code = recipe.model.trust_remote_code
    facts = check_model(recipe.model.uri, folder, context.open_store, remote_code=remote_code)
    require_mergeable(recipe.output.merged, facts.config)
    require_quantizable(recipe.model.quantization.type, facts.config)
    context.model = CheckedModel(folder=folder, files=model_files(recipe, folder), facts=facts)
    revision = folder[0].revision
    parameters = f", {facts.parameters:,} parameters" if facts.parameters is not None else ""
    commit = f", commit {revision}" if revision is not None else ""
    unmeasured = not_measured_warning(facts.config)
    warning = f". {unmeasured}" if unmeasured else ""
    return passed(f"{facts.size:,} bytes{parameters}{commit}{warning}")


MODEL = Check(name="model", run=_run, asks=lambda context: [context.recipe.model.uri])
