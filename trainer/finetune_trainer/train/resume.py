"""The checkpoints of this run: those of an earlier pod to resume from, and those of this one."""

import logging
from dataclasses import replace

from finetune_trainer.checkpoints import Checkpointer, CheckpointStore, FetchedCheckpoint
from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.layout import checkpoints_prefix
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.uri import Uri
from finetune_trainer.runtime.log import event
from finetune_trainer.runtime.versions import shaping_versions
from finetune_trainer.train.context import Context
from finetune_trainer.train.inputs import Inputs

_RETRY_SECONDS = 60.0
"""With storage that does not answer: a pod that is asked to stop has two minutes."""


def newest_checkpoint(recipe: Recipe, inputs: Inputs, context: Context) -> FetchedCheckpoint | None:
    """The newest complete checkpoint of this run, fetched; None if there is none.

    Raises:
        TrainerError: the storage's reason, or the process was asked to stop.
    """
    checkpoint = checkpoint_store(recipe, inputs, context).fetch_newest(context.work / "checkpoint", context.downloaded)
    if checkpoint is None:
        return None
    manifest, here = checkpoint.manifest, shaping_versions()
    event(
        "resuming",
        step=f"{manifest.step}/{manifest.total_steps}" if manifest.step else 0,
        uri=checkpoint.uri,
        # Another version may compute other last bits: the run goes on, but not exactly as it would have.
        other_versions=", ".join(f"{name} {was}" for name, was in manifest.versions.items() if was != here.get(name))
        or None,
    )
    if manifest.step:
        context.reporter.update(
            resumed_from_step=manifest.step,
            checkpoint_step=manifest.step,
            step=manifest.step,
            total_steps=manifest.total_steps,
            percent=100 * manifest.step // manifest.total_steps,
        )
    return checkpoint


def checkpoint_at(uri: Uri, recipe: Recipe, inputs: Inputs, context: Context) -> FetchedCheckpoint:
    """The checkpoint that another pod of this training has chosen, fetched.

    Raises:
        TrainerError: the storage's reason, STORAGE_UNAVAILABLE where it is gone or damaged here, or the process was
            asked to stop.
    """
    checkpoint = checkpoint_store(recipe, inputs, context).fetch_newest(
        context.work / "checkpoint", context.downloaded, only=uri
    )
    if checkpoint is None:
        message = f"the checkpoint {uri}, which process 0 has chosen, cannot be had whole from here"
        raise TrainerError(FailureReason.STORAGE_UNAVAILABLE, message)
    return checkpoint


def checkpoint_store(recipe: Recipe, inputs: Inputs, context: Context) -> CheckpointStore:
    """Where the checkpoints of this run are."""
    uri = checkpoints_prefix(recipe.output.uri, recipe.checkpoint.uri, recipe.job.name, inputs.fingerprint)
    return CheckpointStore(
        store=context.open_store(uri),
        uri=uri,
        fingerprint=inputs.fingerprint,
        keep=recipe.checkpoint.keep,
        attempt=recipe.job.attempt,
        writer=context.writer,
        versions=shaping_versions(),
        now=context.now,
        retry=replace(context.retry, seconds=min(context.retry.seconds, _RETRY_SECONDS)),
    )


def remove_checkpoints(recipe: Recipe, inputs: Inputs, context: Context) -> None:
    """Removes this run's checkpoints: its adapter is there. What cannot be removed is only logged."""
    checkpoints = checkpoint_store(recipe, inputs, context)
    try:
        checkpoints.delete_all()
    except TrainerError as error:
        event("checkpoint", level=logging.WARNING, uri=checkpoints.uri, message=f"not removed: {error.message}")


def newest_checkpoint_message(checkpointer: Checkpointer, start: FetchedCheckpoint | None) -> str:
    """What the next attempt finds, for the message at the end of this one."""
    step = checkpointer.uploaded_step or (start.manifest.step if start else None)
    newest = f"the newest checkpoint is of step {step}" if step else "there is no checkpoint"
    return f"{newest} (a later one could not be put: {checkpointer.failure})" if checkpointer.failure else newest
