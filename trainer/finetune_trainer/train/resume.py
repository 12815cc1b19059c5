"""The checkpoints of this very run: what an earlier pod has left, and what this one leaves."""

import logging
from dataclasses import replace

from finetune_trainer.checkpoints import Checkpointer, Found, Shelf
from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.layout import checkpoints_prefix
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.uri import Uri, parse_uri
from finetune_trainer.runtime.log import event
from finetune_trainer.runtime.versions import shaping_versions
from finetune_trainer.train.context import Context
from finetune_trainer.train.inputs import Inputs

_PATIENCE_SECONDS = 60.0
"""With storage that does not answer: a pod that is told to go has two minutes."""


def newest_checkpoint(recipe: Recipe, inputs: Inputs, context: Context) -> Found | None:
    """The newest whole checkpoint of this very run, fetched; None when there is none.

    Raises:
        TrainerError: the storage's reason, or the process was told to go.
    """
    found = shelf_of(recipe, inputs, context).newest(context.work / "checkpoint", context.downloaded)
    if found is not None:
        manifest, here = found.manifest, shaping_versions()
        event(
            "resuming",
            step=f"{manifest.step}/{manifest.total_steps}",
            uri=found.uri,
            # Another version may compute other last bits: the run goes on, but not exactly as it would have.
            other_versions=", ".join(
                f"{name} {was}" for name, was in manifest.versions.items() if was != here.get(name)
            )
            or None,
        )
        context.reporter.update(
            resumed_from_step=manifest.step,
            checkpoint_step=manifest.step,
            step=manifest.step,
            total_steps=manifest.total_steps,
            percent=100 * manifest.step // manifest.total_steps,
        )
    return found


def checkpoint_at(place: Uri, recipe: Recipe, inputs: Inputs, context: Context) -> Found:
    """The checkpoint that another pod of this training has chosen, fetched.

    Raises:
        TrainerError: the storage's reason, STORAGE_UNAVAILABLE where it is gone or damaged here, or the process was
            told to go.
    """
    found = shelf_of(recipe, inputs, context).newest(context.work / "checkpoint", context.downloaded, only=place)
    if found is None:
        message = f"the checkpoint {place}, which process 0 has chosen, cannot be had whole from here"
        raise TrainerError(FailureReason.STORAGE_UNAVAILABLE, message)
    return found


def shelf_of(recipe: Recipe, inputs: Inputs, context: Context) -> Shelf:
    """Where the checkpoints of this very run are."""
    asked = recipe.checkpoint.uri
    output = parse_uri(recipe.output.uri)
    place = checkpoints_prefix(output, parse_uri(asked) if asked else None, recipe.job.name, inputs.fingerprint)
    return Shelf(
        store=context.open_store(place),
        place=place,
        fingerprint=inputs.fingerprint,
        keep=recipe.checkpoint.keep,
        attempt=recipe.job.attempt,
        writer=context.writer,
        versions=shaping_versions(),
        now=context.now,
        patience=replace(context.patience, seconds=min(context.patience.seconds, _PATIENCE_SECONDS)),
    )


def remove_checkpoints(recipe: Recipe, inputs: Inputs, context: Context) -> None:
    """Removes this run's checkpoints: its adapter is there. What cannot be removed is only logged."""
    shelf = shelf_of(recipe, inputs, context)
    try:
        shelf.clear()
    except TrainerError as error:
        event("checkpoint", level=logging.WARNING, uri=shelf.place, message=f"not removed: {error.message}")


def left_behind(checkpointer: Checkpointer, start: Found | None) -> str:
    """What the next attempt finds, for the message at the end of this one."""
    step = checkpointer.put_step or (start.manifest.step if start else None)
    newest = f"the newest checkpoint is of step {step}" if step else "there is no checkpoint"
    return f"{newest} (a later one could not be put: {checkpointer.failure})" if checkpointer.failure else newest
