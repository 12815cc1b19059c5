"""Rules over several fields of the recipe, which no single field's type can hold.

The operator and the trainer both ask, so that a recipe is refused where it is written, with every broken rule at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.recipe.dataset import FIELDS_OF, DatasetSchema, DatasetSpec, Loss, Switch
from finetune_trainer.contract.recipe.lora import ALL_LINEAR, LoraVariant
from finetune_trainer.contract.recipe.model import Attention, DeviceMap, QuantizationType, Sharding
from finetune_trainer.contract.recipe.training import Scheduler
from finetune_trainer.contract.uri import Scheme, parse_uri


@dataclass(frozen=True, slots=True, kw_only=True)
class Inconsistency:
    """One broken rule.

    Attributes:
        path: the field to change, for example `spec.training.microBatchSize`.
        value: what stands there.
        message: the rule, and what to write.
    """

    path: str
    value: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.value}: {self.message}"


def inconsistencies(recipe: Recipe) -> list[Inconsistency]:
    """Every broken rule, in the order of the sections."""
    return [*_model(recipe), *_dataset(recipe), *_lora(recipe), *_training(recipe), *_evaluation(recipe)]


def _model(recipe: Recipe) -> Iterator[Inconsistency]:
    if recipe.model.revision is not None and parse_uri(recipe.model.uri).scheme is not Scheme.HF:
        message = f"only hf:// models have revisions, and model.uri is {recipe.model.uri}; remove the field"
        yield Inconsistency(path="spec.model.revision", value=recipe.model.revision, message=message)
    if recipe.model.cache is not None and parse_uri(recipe.model.uri).scheme not in (Scheme.HF, Scheme.S3):
        message = f"only hf:// and s3:// models are fetched, and model.uri is {recipe.model.uri}; remove the field"
        yield Inconsistency(path="spec.model.cache", value=recipe.model.cache, message=message)
    if recipe.model.attention is Attention.VARLEN and recipe.dataset.packing is Switch.DISABLED:
        message = "is for packed rows, and dataset.packing is disabled; use auto or pack"
        yield Inconsistency(path="spec.model.attention", value=recipe.model.attention, message=message)
    if recipe.model.sharding is not Sharding.NONE:
        for message in _against_sharding(recipe):
            yield Inconsistency(path="spec.model.sharding", value=recipe.model.sharding, message=message)


def _against_sharding(recipe: Recipe) -> Iterator[str]:
    if recipe.model.device_map is not DeviceMap.NONE:
        yield "is for several processes, and model.deviceMap spreads the layers in one; remove one of the two"
    elif recipe.machine.processes == 1:
        yield "divides the weights over several processes, and there is one; raise resources.gpus or resources.nodes"
    if recipe.model.quantization.type is QuantizationType.INT8:
        # bitsandbytes keeps int8 weights in its own layer state, under other names from the first pass on.
        yield "does not work on int8 weights; use nf4, fp4 or none in model.quantization.type"
    if recipe.lora.variant is LoraVariant.DORA:
        # PEFT measures every weight when it makes the adapter, before there is a pass that puts a layer together.
        yield "does not work with lora.variant dora, which needs all weights at once to begin; use lora or rslora"


def _dataset(recipe: Recipe) -> Iterator[Inconsistency]:
    yield from _fields(recipe.dataset)
    dataset, schema = recipe.dataset, recipe.dataset.schema_
    if dataset.chat_template is not None and schema is DatasetSchema.TEXT:
        shown = dataset.chat_template.strip().splitlines()[0][:40]
        message = f"rows of schema {schema} are no conversations, and a template would not be used; remove the field"
        yield Inconsistency(path="spec.dataset.chatTemplate", value=shown, message=message)
    if schema is DatasetSchema.TEXT and dataset.loss in (Loss.ASSISTANT, Loss.COMPLETION):
        message = "running text has no such part; use auto or all"
        yield Inconsistency(path="spec.dataset.loss", value=dataset.loss, message=message)


def _fields(dataset: DatasetSpec) -> Iterator[Inconsistency]:
    """A column that is named and never read would train on another one."""
    fields, schema = dataset.fields, dataset.schema_
    if fields is None:
        return
    if schema is DatasetSchema.AUTO:
        if not any(fields.named <= used for used in FIELDS_OF.values()):
            message = "no schema has all of these parts; set dataset.schema and remove the others"
            yield Inconsistency(path="spec.dataset.fields", value=", ".join(sorted(fields.named)), message=message)
        return
    for name in sorted(fields.named - FIELDS_OF[schema]):
        message = f"rows of schema {schema} have only {', '.join(sorted(FIELDS_OF[schema]))}; remove the field"
        yield Inconsistency(path=f"spec.dataset.fields.{name}", value=getattr(fields, name), message=message)


def _lora(recipe: Recipe) -> Iterator[Inconsistency]:
    lora = recipe.lora
    if (revision := lora.initial_adapter_revision) is not None:
        place = lora.initial_adapter_uri
        message = None
        if place is None or parse_uri(place).scheme is not Scheme.HF:
            message = f"only hf:// adapters have revisions, and lora.initialAdapterUri is {place}; remove the field"
        elif place == recipe.model.uri:
            message = "model.uri is the same repository, and model.revision is for both; remove the field"
        if message is not None:
            yield Inconsistency(path="spec.lora.initialAdapterRevision", value=revision, message=message)
    if ALL_LINEAR in lora.target_modules and len(lora.target_modules) > 1:
        message = f"{ALL_LINEAR} stands alone; remove it or the other names"
        yield Inconsistency(path="spec.lora.targetModules", value=", ".join(lora.target_modules), message=message)
    if lora.variant is LoraVariant.DORA and recipe.model.quantization.type is QuantizationType.INT8:
        # PEFT unpacks the weights to measure them, and bitsandbytes then no longer finds their scales (peft 0.21).
        message = "does not work on int8 weights; use nf4, fp4 or none in model.quantization.type, or lora or rslora"
        yield Inconsistency(path="spec.lora.variant", value=lora.variant, message=message)
    if both := sorted(set(lora.modules_to_save or ()) & set(lora.target_modules)):
        message = "a module is trained whole or gets an adapter, not both; remove it here or from targetModules"
        yield Inconsistency(path="spec.lora.modulesToSave", value=", ".join(both), message=message)


def _training(recipe: Recipe) -> Iterator[Inconsistency]:
    training = recipe.training
    micro = training.micro_batch_size
    if micro is not None and training.batch_size % micro:
        message = f"must divide batchSize, which is {training.batch_size}"
        yield Inconsistency(path="spec.training.microBatchSize", value=str(micro), message=message)
    if training.restarts is not None and training.scheduler is not Scheduler.COSINE_WITH_RESTARTS:
        message = f"the scheduler {training.scheduler} has none; remove it, or use cosine_with_restarts"
        yield Inconsistency(path="spec.training.restarts", value=str(training.restarts), message=message)
    if (least := training.min_learning_rate) is not None:
        path = "spec.training.minLearningRate"
        if training.scheduler is not Scheduler.COSINE:
            message = f"the scheduler {training.scheduler} has none; remove it, or use cosine"
            yield Inconsistency(path=path, value=least, message=message)
        elif float(least) >= float(training.learning_rate):
            message = f"must be below learningRate, which is {training.learning_rate}"
            yield Inconsistency(path=path, value=least, message=message)
    if training.early_stopping is not None:
        if recipe.dataset.validation is None:
            message = "needs dataset.validation; add it or remove earlyStopping"
            yield Inconsistency(path="spec.training.earlyStopping", value="set", message=message)
        elif recipe.evaluation.every_steps is None:
            message = "needs evaluation.everySteps; without it only the end is measured. Add it or remove earlyStopping"
            yield Inconsistency(path="spec.training.earlyStopping", value="set", message=message)


def _evaluation(recipe: Recipe) -> Iterator[Inconsistency]:
    evaluation = recipe.evaluation
    if recipe.dataset.validation is not None:
        return
    if evaluation.every_steps is not None:
        message = "needs dataset.validation; add it or remove everySteps"
        yield Inconsistency(path="spec.evaluation.everySteps", value=str(evaluation.every_steps), message=message)
    if evaluation.gate is not None:
        message = "needs dataset.validation; add it or remove the gate"
        yield Inconsistency(path="spec.evaluation.gate", value="set", message=message)
