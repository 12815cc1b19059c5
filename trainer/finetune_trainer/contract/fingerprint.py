"""The fingerprint: a hash of all inputs of a run that decide its adapter.

Two jobs with the same fingerprint would train the same adapter, whatever their names and clusters. So the second job
can reuse the adapter of the first. Settings that do not change the weights are left out: storage access, the output's
place, logging, checkpoints. The data, the model and an initial adapter are identified by their content and not by their
address. A setting with several spellings (a decimal, a set of names, a default) is normalised first.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe import Method, Recipe
from finetune_trainer.contract.recipe.model import QuantizationType
from finetune_trainer.contract.recipe.training import DEFAULT_EPOCHS, EvaluationMetric

_SHAPES_NO_WEIGHT: dict[str, Any] = {
    "model": {
        "uri",
        "revision",
        "token_secret_ref",
        "cache",
        "trust_remote_code",
        "attention",
        "device_map",
        "sharding",
    },
    "dataset": {
        **dict.fromkeys(("uri", "uris", "revision", "split", "limits", "sha256", "format", "packing"), True),
        "validation": {"uri", "split", "sha256"},
    },
    "lora": {"initial_adapter_uri", "initial_adapter_revision"},
    "training": {"micro_batch_size", "logging_steps", "gradient_checkpointing"},
}
DECIMALS = (
    "dataset.validation.fraction",
    "lora.dropout",
    "training.learningRate",
    "training.minLearningRate",
    "training.loraPlusRatio",
    "training.warmup",
    "training.weightDecay",
    "training.maxGradNorm",
    "training.neftuneAlpha",
    "training.earlyStopping.minImprovement",
    "evaluation.gate.minLossImprovement",
    "evaluation.gate.maxPerplexity",
    "evaluation.gate.minAccuracy",
    "dpo.beta",
    "dpo.labelSmoothing",
    "dpo.sftWeight",
)
"""Fields that are numbers in strings: `2e-4` and `0.0002` are equal."""
_SETS = ("lora.targetModules", "lora.modulesToSave")
"""Lists in which order and repetitions do not matter."""


def fingerprint(
    recipe: Recipe,
    dataset: Sequence[SourceObject],
    model: Sequence[SourceObject],
    adapter: Sequence[SourceObject] = (),
) -> str:
    """The fingerprint: SHA-256, in hexadecimal.

    Args:
        recipe: the recipe.
        dataset: the data's objects in reading order. The objects of a separate validation data set come last.
        model: the base model's files, in any order.
        adapter: the files of the initial adapter, in any order; empty when there is none.
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
            "method",
            "dpo",
            "evaluation",
            "output",
            "run_token",
        },
        exclude={**_SHAPES_NO_WEIGHT, "output": {"uri", "on_existing", "deletion_policy"}},
    )
    _normalise(shaping)
    shaping["datasetObjects"] = [_identity(item) for item in dataset]
    shaping["modelObjects"] = sorted(_identity(item) for item in model)
    if adapter:
        shaping["adapterObjects"] = sorted(_identity(item) for item in adapter)
    canonical = json.dumps(shaping, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _normalise(shaping: dict[str, Any]) -> None:
    """Replaces every setting by its canonical form, in place."""
    for path in DECIMALS:
        section, key = _field(shaping, path)
        if key in section:
            section[key] = float(section[key])
    for path in _SETS:
        section, key = _field(shaping, path)
        if key in section:
            section[key] = sorted(set(section[key]))
    training, quantization = shaping["training"], shaping["model"]["quantization"]
    if shaping["method"] == Method.SFT:
        # Not among the inputs of older runs, whose adapters are reused.
        del shaping["method"], shaping["dpo"]
    if (early := training.get("earlyStopping", {})).get("metric") == EvaluationMetric.LOSS:
        # Nor is this.
        del early["metric"]
    if "maxSteps" not in training:
        training.setdefault("epochs", DEFAULT_EPOCHS)
    for name, nothing in (("neftuneAlpha", 0), ("minLearningRate", 0), ("loraPlusRatio", 1)):
        if training.get(name) == nothing:
            del training[name]
    if quantization["type"] in (QuantizationType.INT8, QuantizationType.NONE):
        del quantization["doubleQuant"]


def _field(shaping: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """The section of a field (empty if the section is absent), and the field's key."""
    *sections, key = path.split(".")
    for name in sections:
        shaping = shaping.get(name, {})
    return shaping, key


def _identity(item: SourceObject) -> list[str]:
    """File name, size, and the content identity: the SHA-256 if it is known, else the ETag."""
    name = item.uri.rsplit("/", 1)[-1]
    return [name, str(item.size), item.sha256 or item.etag or ""]
