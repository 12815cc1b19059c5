"""Whether the output can really be written: by writing.

Only a write shows policies, quotas, read-only volumes and object locks. The probe is also written twice: a server
without conditional writes would let two pods of one attempt commit, and no error would show it.
"""

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.uri import Uri
from finetune_trainer.preflight.check import Check, CheckOutcome, Need, passed, skipped
from finetune_trainer.preflight.checks.dataset import DATASET
from finetune_trainer.preflight.checks.first_rows import FIRST_ROWS
from finetune_trainer.preflight.checks.storage_read import STORAGE_READ
from finetune_trainer.preflight.checks.template import TEMPLATE
from finetune_trainer.preflight.checks.tokens import TOKENS
from finetune_trainer.preflight.context import PreflightContext
from finetune_trainer.storage.base import AlreadyExistsError, Store


def _places(context: PreflightContext) -> list[Uri]:
    """The output, and a place of its own for checkpoints."""
    asked = (context.recipe.output.uri, context.recipe.checkpoint.uri)
    return list(dict.fromkeys(uri for uri in asked if uri is not None))


def _run(context: PreflightContext) -> CheckOutcome:
    if context.existing is not None:
        return skipped("nothing is written: the adapter is there")
    said = [probe_writing(context.open_store(uri), uri, context.probe_token) for uri in _places(context)]
    return passed("; ".join(said))


def probe_writing(store: Store, output: Uri, token: str) -> str:
    """Writes, reads back and removes an object under the output. Nothing is left, unless deleting is not allowed.

    The run itself deletes nothing, so rights without DeleteObject are enough for it: that is only worth a note.

    Args:
        store: the output's store.
        output: output.uri.
        token: makes the probe's name unique.

    Returns:
        What was done, in words.

    Raises:
        TrainerError: the storage's reason; NOT_SUPPORTED when conditional writes are ignored.
    """
    probe = output.child(f".finetune-preflight-{token}")
    content = f"write probe {token}, to be removed at once\n".encode()
    try:
        store.create(probe, content)
        _check_read_back(store, probe, content)
        _check_condition(store, probe)
    except BaseException:
        _remove_quietly(store, probe)
        raise
    try:
        store.delete(probe)
    except TrainerError as error:
        if error.reason is not FailureReason.STORAGE_ACCESS_DENIED:
            raise
        return f"{output} was written and read back; the probe stays there, {probe} (note: {error.message})"
    return f"{output} was written, read back and cleaned up"


def _check_read_back(store: Store, probe: Uri, content: bytes) -> None:
    if store.read(probe) != content:
        raise TrainerError(FailureReason.STORAGE_UNAVAILABLE, f"{probe} was written, but other bytes were read back")


def _check_condition(store: Store, probe: Uri) -> None:
    try:
        store.create(probe, b"second writer\n")
    except AlreadyExistsError:
        return
    raise TrainerError(
        FailureReason.NOT_SUPPORTED,
        f"the server of {probe} ignores If-None-Match on PUT, by which one of two writers is chosen: use a version "
        "that has conditional writes",
    )


def _remove_quietly(store: Store, probe: Uri) -> None:
    """Removes the probe; the failure before it is the one to report."""
    try:
        store.delete(probe)
    except TrainerError:
        return


STORAGE_WRITE = Check(
    name="storage.write",
    run=_run,
    needs=tuple(
        Need(check.name, "nothing is written while the data is not in order", or_skipped=True)
        for check in (STORAGE_READ, FIRST_ROWS, TEMPLATE, DATASET, TOKENS)
    ),
    asks=_places,
)
