"""The data's objects exist and may be read."""

from collections.abc import Iterator

from finetune_trainer.contract.uri import Uri
from finetune_trainer.inputs.sources import dataset_objects, validation_objects
from finetune_trainer.preflight.check import Check, CheckOutcome, passed
from finetune_trainer.preflight.context import PreflightContext


def _asks(context: PreflightContext) -> Iterator[Uri]:
    dataset = context.recipe.dataset
    yield from [dataset.uri] if dataset.uri else dataset.uris or []
    if dataset.validation is not None and dataset.validation.uri is not None:
        yield dataset.validation.uri


def _run(context: PreflightContext) -> CheckOutcome:
    dataset = context.recipe.dataset
    data = dataset_objects(dataset, context.open_store)
    context.validation_data = validation_objects(dataset, context.open_store)
    context.data = data
    size = sum(item.size for item in data)
    return passed(f"{len(data):,} object{'s' if len(data) > 1 else ''}, {size:,} bytes")


STORAGE_READ = Check(name="storage.read", run=_run, asks=_asks)
