"""Fetches once a pod: its first process fetches, the others use the same files; all resume from one checkpoint."""

import json
from pathlib import Path

from finetune_trainer.checkpoints import FetchedCheckpoint
from finetune_trainer.contract.checkpoint import CheckpointManifest
from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.uri import Uri, parse_uri
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.train.context import Context
from finetune_trainer.train.fetch import FetchedInputs, fetch_inputs, fetch_inputs_without_checkpoint
from finetune_trainer.train.inputs import Inputs
from finetune_trainer.train.resume import checkpoint_at

_CHECKPOINT = "checkpoint"


def fetch_once(recipe: Recipe, inputs: Inputs, process_group: ProcessGroup, context: Context) -> FetchedInputs:
    """What the run needs, on this pod's disk; process 0 chooses the checkpoint.

    Raises:
        TrainerError: the storage's reason; what was found is damaged; another process failed; or the process was told
            to go.
    """
    key = f"fetched/{process_group.world.node}"
    if not process_group.is_local_main_process:
        return _from_text(process_group.wait_for(key))
    if process_group.is_main_process:
        fetched = fetch_inputs(recipe, inputs, context)
        process_group.publish(_CHECKPOINT, str(fetched.checkpoint.uri) if fetched.checkpoint else "")
    else:
        fetched = fetch_inputs_without_checkpoint(recipe, inputs, context)
        chosen = process_group.wait_for(_CHECKPOINT)
        checkpoint = checkpoint_at(parse_uri(chosen), recipe, inputs, context) if chosen else None
        fetched = FetchedInputs(
            model=fetched.model, licence=fetched.licence, initial_adapter=fetched.initial_adapter, checkpoint=checkpoint
        )
    process_group.publish(key, _to_text(fetched))
    return fetched


def _to_text(fetched: FetchedInputs) -> str:
    checkpoint = fetched.checkpoint
    return json.dumps(
        {
            "model": str(fetched.model),
            "licence": fetched.licence,
            "adapter": str(fetched.initial_adapter) if fetched.initial_adapter else None,
            "checkpoint": None
            if checkpoint is None
            else {
                "folder": str(checkpoint.folder),
                "manifest": checkpoint.manifest.to_json(),
                "uri": str(checkpoint.uri),
            },
        }
    )


def _from_text(text: str) -> FetchedInputs:
    values = json.loads(text)
    checkpoint = values["checkpoint"]
    return FetchedInputs(
        model=Path(values["model"]),
        licence=values["licence"],
        initial_adapter=Path(values["adapter"]) if values["adapter"] else None,
        checkpoint=None
        if checkpoint is None
        else _checkpoint(checkpoint["folder"], checkpoint["manifest"], parse_uri(checkpoint["uri"])),
    )


def _checkpoint(folder: str, manifest: str, uri: Uri) -> FetchedCheckpoint:
    read = CheckpointManifest.read(manifest.encode())
    if read is None:
        raise TrainerError(FailureReason.INTERNAL, f"the manifest of {uri} was not understood by a second process")
    return FetchedCheckpoint(folder=Path(folder), manifest=read, uri=uri)
