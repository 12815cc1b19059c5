"""Every field of the recipe does what it says: a test runs it."""

from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.wire import Wire

ELSEWHERE = {
    # What names the job and where things are, and how rows are read: not this half's.
    "model.uri", "model.revision", "model.tokenSecretRef", "model.cache", "dataset.uri", "dataset.uris",
    "dataset.revision", "dataset.split", "datasetRevisions",
    "dataset.format", "dataset.schema", "dataset.fields", "dataset.ignoredColumns", "dataset.sha256", "dataset.limits",
    "output.uri", "output.deletionPolicy",
    "storage.secretRef", "storage.endpoint", "storage.region", "storage.addressingStyle", "storage.checksums",
    "storage.caBundle", "runToken", "machine.gpus", "machine.gpuMemoryBytes",
    "machine.nodes", "profile",
}  # fmt: skip
WORKS = {
    # A test in tests/trainer/test_options.py (or the file named) runs each of them.
    "model.quantization", "model.attention", "dataset.loss", "dataset.maxLength", "dataset.packing", "lora.rank",
    "dataset.chatTemplate",
    "lora.alpha", "lora.dropout", "lora.targetModules", "lora.bias", "lora.variant", "training.epochs",
    "training.maxSteps", "training.learningRate", "training.scheduler", "training.warmup", "training.batchSize",
    "training.microBatchSize", "training.optimizer", "training.weightDecay", "training.maxGradNorm",
    "training.gradientCheckpointing", "training.seed", "training.loggingSteps",
    "training.restarts", "training.neftuneAlpha",
    "training.minLearningRate", "training.loraPlusRatio", "model.trustRemoteCode", "model.deviceMap",
    "lora.modulesToSave", "lora.initialAdapterUri", "lora.initialAdapterRevision",
    "output.onExisting", "output.merged",
    # tests/trainer/test_sharding.py
    "model.sharding",
    # tests/trainer/test_evaluation.py
    "dataset.validation", "training.earlyStopping", "evaluation.everySteps", "evaluation.gate",
    "evaluation.samplePrompts",
    # tests/integrations/test_tracking.py
    "tracking.mlflow", "tracking.wandb", "tracking.trackio",
    # tests/trainer/test_checkpoints.py, and everyMinutes tests/unit/trainer_train/test_due.py
    # tests/trainer/test_preference.py
    "method", "dpo.beta", "dpo.lossType", "dpo.labelSmoothing", "dpo.sftWeight", "dpo.referenceFree",
    "checkpoint.everySteps", "checkpoint.everyMinutes", "checkpoint.keep", "checkpoint.uri",
}  # fmt: skip


def test_no_field_of_the_recipe_is_forgotten() -> None:
    """A new field must be run by a test, or be somebody else's: it cannot be ignored."""
    assert _fields(Recipe) == ELSEWHERE | WORKS


def _fields(model: type[Wire]) -> set[str]:
    """Fields of sections, one level deep, by their names on the wire."""
    found = set()
    for name, field in model.model_fields.items():
        section = field.annotation
        alias = field.alias or name
        if name == "job":
            continue
        if isinstance(section, type) and issubclass(section, Wire):
            found |= {f"{alias}.{inner.alias}" for inner in section.model_fields.values()}
        else:
            found.add(alias)
    return found
