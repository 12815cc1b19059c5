"""The data's objects exist and may be read."""

from collections.abc import Iterator

from finetune_trainer.contract.uri import Uri
from finetune_trainer.inputs.sources import dataset_objects, validation_objects
from finetune_trainer.preflight.check import Check, CheckOutcome, passed
from finetune_trainer.preflight.context import PreflightContext


def _asks(context: PreflightContext) -> Iterator[Uri]:
    dataset = context.recipe.dataset
    yield from dataset.places
    if dataset.validation_place is not None:
        yield dataset.validation_place


def _run(context: PreflightContext) -> CheckOutcome:
    dataset = context.recipe.dataset
    data = dataset_objects(dataset, context.open_store)
    context.validation_data = validation_objects(dataset, context.open_store)
    context.data = data
    size = sum(item.size for item in data)
    commits = dict.fromkeys(item.revision for item in data if item.revision is not None)
    commit = f", commit {', '.join(commits)}" if commits else ""
    return passed(f"{len(data):,} object{'s' if len(data) > 1 else ''}, {size:,} bytes{commit}")


STORAGE_READ = Check(name="storage.read", run=_run, asks=_asks)
