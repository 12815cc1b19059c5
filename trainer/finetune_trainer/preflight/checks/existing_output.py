"""Whether the adapter of this run exists already."""

from finetune_trainer.contract.recipe.output import OnExisting
from finetune_trainer.output.reuse import reusable_output
from finetune_trainer.preflight.check import Check, CheckOutcome, Need, passed
from finetune_trainer.preflight.checks.initial_adapter import INITIAL_ADAPTER
from finetune_trainer.preflight.checks.model import MODEL
from finetune_trainer.preflight.checks.storage_read import STORAGE_READ
from finetune_trainer.preflight.context import PreflightContext

_NO_FINGERPRINT = "data or model are not known, hence neither is the run's fingerprint"


def _run(context: PreflightContext) -> CheckOutcome:
    fingerprint = context.fingerprint
    assert fingerprint is not None
    existing = reusable_output(context.recipe, fingerprint, context.open_store)
    if existing is None:
        replaced = context.recipe.output.on_existing is OnExisting.REPLACE
        return passed("whatever is there will be replaced" if replaced else "no adapter of this run is there yet")
    context.existing = existing
    return passed(f"the adapter of this run is at {existing.uri} and will be reused")


EXISTING_OUTPUT = Check(
    name="output",
    run=_run,
    needs=tuple(Need(check.name, _NO_FINGERPRINT) for check in (STORAGE_READ, MODEL, INITIAL_ADAPTER)),
    asks=lambda context: [context.recipe.output.uri],
)
