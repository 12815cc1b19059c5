"""One training as a run of a tracker: begun, logged to, and ended with the training's own end."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.layout import FINGERPRINT_DIGITS, TRACKER_PYTHON_ENV
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.tracking.environment import kind_of, tracker_environment
from finetune_trainer.tracking.messages import Begin, RunStatus, TrackerKind, flattened
from finetune_trainer.tracking.tracker import END_SECONDS, Tracker
from finetune_trainer.train.context import Context
from finetune_trainer.train.inputs import Inputs

_PARAMETERS = ("method", "model", "dataset", "lora", "training", "dpo", "evaluation")
"""Sections of the recipe that a tracker gets as parameters."""
_LOCAL = "finetune"
"""The experiment of a local run."""
_STOPPING_SECONDS = 10.0
"""Seconds for the tracker's rest in a pod that is asked to stop."""


@contextmanager
def tracked_run(recipe: Recipe, inputs: Inputs, context: Context) -> Iterator[Tracker | None]:
    """The tracker of a training, which gets the training's end; None where the recipe names none.

    Args:
        recipe: the recipe.
        inputs: what goes in.
        context: the surroundings; only the main process of a training calls this.
    """
    kind = kind_of(recipe.tracking)
    if kind is None or recipe.tracking.tracker is None:
        yield None
        return
    folder = context.work / "tracker"
    folder.mkdir()
    tracker = Tracker(
        begin_of(kind, recipe, inputs),
        tracker_environment(kind, recipe.tracking.tracker.uri, context.environment, folder),
        folder,
        context.environment.get(TRACKER_PYTHON_ENV),
    )
    status, seconds = RunStatus.FAILED, END_SECONDS
    try:
        yield tracker
        status = RunStatus.FINISHED
    except TrainerError as error:
        if error.reason is FailureReason.PREEMPTED:
            status, seconds = RunStatus.KILLED, _STOPPING_SECONDS
        raise
    finally:
        tracker.end(status, seconds)


def begin_of(kind: TrackerKind, recipe: Recipe, inputs: Inputs) -> Begin:
    """What the tracker is told of the run. All attempts of a run have the same identity, and so one run there."""
    job, tracker = recipe.job, recipe.tracking.tracker
    identity = (job.namespace, job.name, job.uid, inputs.fingerprint, recipe.run_token or "")
    known: Mapping[str, Any] = recipe.to_dict()
    return Begin(
        tracker=kind,
        experiment=(tracker.experiment if tracker else None) or job.namespace or _LOCAL,
        name=job.name,
        run=hashlib.sha256("\n".join(identity).encode()).hexdigest()[:16],
        parameters=flattened({section: known[section] for section in _PARAMETERS if section in known}),
        tags={
            "finetune.dev/job": job.name,
            "finetune.dev/namespace": job.namespace,
            "finetune.dev/uid": job.uid,
            "finetune.dev/attempt": str(job.attempt),
            "finetune.dev/fingerprint": inputs.fingerprint[:FINGERPRINT_DIGITS],
            "finetune.dev/model-revision": inputs.model_revision or "",
        },
    )
