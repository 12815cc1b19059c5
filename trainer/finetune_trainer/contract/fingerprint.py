"""The fingerprint: the name of a run by what goes into it.

Two jobs with the same fingerprint would train the same adapter, whatever they are called and wherever they run, so the
second one takes the first one's. Storage access, the output's place, logging and checkpoints shape no weight and are
left out; the data and the model count by content identity, not by address.
"""

import hashlib
import json
from collections.abc import Sequence

from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe import Recipe

_SHAPES_NO_WEIGHT: dict[str, set[str]] = {
    "model": {
        "uri",
        "revision",
        "token_secret_ref",
        "trust_remote_code",
        "attention",
        "device_map",
    },
    "dataset": {"uri", "uris", "limits", "sha256", "format"},
    "training": {"micro_batch_size", "logging_steps", "gradient_checkpointing"},
}


def fingerprint(recipe: Recipe, dataset: Sequence[SourceObject], model: Sequence[SourceObject]) -> str:
    """SHA-256, in hexadecimal, of what decides the result.

    Args:
        recipe: the recipe.
        dataset: the data's objects in reading order; validation rows of their own come last.
        model: the base model's files, in any order.
    """
    shaping = recipe.model_dump(
        mode="json",
        by_alias=True,
        exclude_none=True,
        include={
            "model",
            "dataset",
            "lora",
            "training",
            "evaluation",
            "output",
            "profile",
            "run_token",
        },
        exclude={**_SHAPES_NO_WEIGHT, "output": {"uri", "on_existing", "deletion_policy"}},
    )
    shaping["datasetObjects"] = [_identity(item) for item in dataset]
    shaping["modelObjects"] = sorted(_identity(item) for item in model)
    canonical = json.dumps(shaping, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _identity(item: SourceObject) -> list[str]:
    """File name, size and the strongest content identity known."""
    name = item.uri.rsplit("/", 1)[-1]
    return [name, str(item.size), item.sha256 or item.etag or ""]
