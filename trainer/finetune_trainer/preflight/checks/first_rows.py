"""The first rows can be read. The pass over the data begins here; if it cannot, the data set has failed."""

from collections.abc import Iterator

from finetune_trainer.contract.uri import Uri
from finetune_trainer.data.examples import Conversation, Example, Preference, RowLocation
from finetune_trainer.data.scan import DatasetScan, ScannedRow
from finetune_trainer.data.tokenization.tokenize import characters
from finetune_trainer.preflight.check import Check, CheckOutcome, Need, passed, skipped
from finetune_trainer.preflight.checks.existing_output import EXISTING_OUTPUT
from finetune_trainer.preflight.checks.storage_read import STORAGE_READ
from finetune_trainer.preflight.context import PreflightContext, StartedScan

_MOST_ROWS = 1000
_MOST_CHARACTERS = 4 << 20
"""Of the rows that are rendered, so that memory does not grow with them."""


def _asks(context: PreflightContext) -> Iterator[Uri]:
    return (item.location for item in context.data or ())


def _run(context: PreflightContext) -> CheckOutcome:
    assert context.data is not None
    if context.existing is not None:
        return skipped("nothing is trained: an adapter of the same data is there")
    scan = DatasetScan(context.recipe.rows, context.data, context.open_store, context.on_bytes)
    context.findings.append(scan.findings)
    rows = iter(scan)
    context.started = StartedScan(scan=scan, rows=rows, first=first_rows(scan, rows))
    return passed()


def first_rows(scan: DatasetScan, rows: Iterator[ScannedRow]) -> list[Example]:
    """Takes the first rows: those that are rendered, or one when rows are no conversations.

    Args:
        scan: the pass.
        rows: its iterator, which goes on where this has stopped.
    """
    taken: list[Example] = []
    size = 0
    for shape, file, line, row in rows:
        example = shape.build(row, RowLocation(file=file, line=line, unit=scan.unit))
        taken.append(example)
        size += characters(example)
        one = example.chosen if isinstance(example, Preference) else example
        if not isinstance(one, Conversation) or len(taken) == _MOST_ROWS or size >= _MOST_CHARACTERS:
            break
    return taken


FIRST_ROWS = Check(
    name="first_rows",
    run=_run,
    needs=(Need(STORAGE_READ.name, "its objects cannot be read"),),
    after=(EXISTING_OUTPUT.name,),
    asks=_asks,
    reported_as="dataset",
)
