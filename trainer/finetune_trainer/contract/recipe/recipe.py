"""The whole recipe, which a pod reads from its mounted file."""

from typing import Annotated

from pydantic import Field

from finetune_trainer.contract.recipe.dataset import DatasetSchema, DatasetSpec
from finetune_trainer.contract.recipe.lora import LoraSpec
from finetune_trainer.contract.recipe.machine import MachineSpec
from finetune_trainer.contract.recipe.model import ModelSpec
from finetune_trainer.contract.recipe.output import OutputSpec, StorageSpec
from finetune_trainer.contract.recipe.preference import DpoSpec, Method
from finetune_trainer.contract.recipe.profile import ProfileRecord
from finetune_trainer.contract.recipe.tracking import TrackingSpec
from finetune_trainer.contract.recipe.training import CheckpointSpec, EvaluationSpec, TrainingSpec
from finetune_trainer.contract.scalar import PLAIN
from finetune_trainer.contract.wire import Wire


class JobIdentity(Wire):
    """The job and attempt of a recipe.

    They are part of object keys in the output, and they distinguish two writers. They do not change the result.
    """

    name: str = Field(description="The FineTuneJob's name.")
    namespace: str = Field("", description="The FineTuneJob's namespace; empty in a local run.")
    uid: str = Field("", description="The FineTuneJob's UID; empty in a local run.")
    attempt: int = Field(1, ge=1, description="Number of the attempt, from 1.")


RunToken = Annotated[str, Field(min_length=1, max_length=64), PLAIN]


class RecipeSections(Wire):
    """The sections that the spec of a FineTuneJob and a recipe share. A section that is added here is in both."""

    method: Method = Field(
        Method.SFT,
        description="What is trained: sft (supervised fine-tuning, the answers of the rows) or dpo (Direct Preference "
        "Optimization, of two answers the better one). Default: sft.",
    )
    model: ModelSpec = Field(description="The base model.")
    dataset: DatasetSpec = Field(description="The training data.")
    lora: LoraSpec = Field(default_factory=LoraSpec, description="The adapter that is trained.")
    training: TrainingSpec = Field(
        default_factory=TrainingSpec, description="Length, learning rate, batch and optimizer."
    )
    dpo: DpoSpec = Field(default_factory=DpoSpec, description="Settings of the method dpo.")
    evaluation: EvaluationSpec = Field(
        default_factory=EvaluationSpec, description="How the adapter is measured on the rows of dataset.validation."
    )
    checkpoint: CheckpointSpec = Field(
        default_factory=CheckpointSpec, description="How often the training state is saved."
    )
    output: OutputSpec = Field(description="Where the adapter goes.")
    storage: StorageSpec = Field(default_factory=StorageSpec, description="How object storage is reached.")
    tracking: TrackingSpec = Field(
        default_factory=TrackingSpec, description="The tracker of experiments to which metrics are sent."
    )

    @property
    def rows(self) -> DatasetSpec:
        """The section `dataset` as rows are read by it: `auto` is the schema that the method needs, if it needs one."""
        if self.method is Method.SFT:
            return self.dataset
        return self.dataset.model_copy(update={"schema_": DatasetSchema.PREFERENCE})


class Recipe(RecipeSections):
    """The input of the trainer and of preflight."""

    job: JobIdentity
    run_token: RunToken | None = None
    dataset_revisions: dict[str, str] = Field(
        default_factory=dict,
        description="Commits of Hub data sets that preflight has resolved, by repository (org/name). They replace "
        "dataset.revision, so that every attempt trains on the same rows even if a branch moves.",
    )
    machine: MachineSpec = Field(default_factory=MachineSpec)
    profile: ProfileRecord | None = Field(None, description="The profiles whose values are in the sections.")
