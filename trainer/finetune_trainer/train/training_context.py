"""The composition root of a training: its stores, its retries and its context, alike in a pod and in a local run."""

import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from finetune_trainer.contract.layout import ALLOW_CPU_ENV, NODE_NAME_ENV, POD_UID_ENV, PVC_ROOT
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.recipe.model import Sharding
from finetune_trainer.distributed.world import World
from finetune_trainer.progress.reporter import Reporter
from finetune_trainer.storage.registry import StoreRegistry
from finetune_trainer.storage.retry import Listener, RetryNotifier, RetryPolicy
from finetune_trainer.storage.timing import TRAINING
from finetune_trainer.train.context import Context
from finetune_trainer.train.known_causes import known_causes
from finetune_trainer.train.own_gpus import require_own_gpus


@contextmanager
def training_context(
    recipe: Recipe,
    environment: Mapping[str, str],
    reporter: Reporter,
    stop: threading.Event,
    *,
    work: Path | None,
    listeners: Sequence[Listener] = (),
    world: World | None = None,
    tracker_environment: Mapping[str, str] | None = None,
) -> Iterator[Context]:
    """The context of one training; errors with a known cause end it with their reason.

    Args:
        recipe: the recipe.
        environment: names the mounted credentials and the pod; empty where the libraries' own chains stand for them.
        reporter: gets the progress.
        stop: set it to end the training at the next step.
        work: where the working directory is made, which goes at the end; None for the system's temporary directory.
        listeners: hear what is waited for, besides the reporter.
        tracker_environment: variables with a tracker's credentials; None for those of `environment`.
        world: who this process is among those that train together; None for one that trains alone.

    Raises:
        TrainerError: see `known_causes`, `ProcessGroup.join` and, for one of several processes, `require_own_gpus`.
    """
    with known_causes(), tempfile.TemporaryDirectory(prefix="run-", dir=work) as folder:
        notifier = RetryNotifier(*listeners, reporter.waiting)
        stores = StoreRegistry.of_pod(recipe, environment, TRAINING.with_notifier(notifier))
        context = Context(
            work=Path(folder),
            open_store=stores,
            writer=environment.get(POD_UID_ENV) or uuid.uuid4().hex,
            pvc_root=Path(PVC_ROOT),
            reporter=reporter,
            stop=stop,
            retry=RetryPolicy(notifier=notifier),
            machine=f"node {node}" if (node := environment.get(NODE_NAME_ENV)) else "this machine",
            environment=environment if tracker_environment is None else tracker_environment,
            allow_cpu=environment.get(ALLOW_CPU_ENV) == "1",
        )
        if world is not None:
            from finetune_trainer.distributed.process_group import ProcessGroup

            # Before the others wait for this process.
            require_own_gpus(recipe, context)
            context = replace(
                context,
                process_group=ProcessGroup.join(
                    world, context.raise_if_stopping, overlapping=recipe.model.sharding is Sharding.FULL
                ),
            )
        yield context
