"""The recipe: the part of a FineTuneJob that decides the result. The trainer reads it; the CRD is generated from it.

Each section has a module. The description of a field gives its meaning, unit, default and an example, because it is
shown by `kubectl explain`. A field whose default is None is optional. The value `auto` is decided at run time and
reported.
"""

from finetune_trainer.contract.recipe.dataset import DatasetSpec, Validation
from finetune_trainer.contract.recipe.lora import LoraSpec
from finetune_trainer.contract.recipe.model import ModelSpec, Quantization
from finetune_trainer.contract.recipe.output import OutputSpec, StorageSpec
from finetune_trainer.contract.recipe.preference import DpoSpec, Method
from finetune_trainer.contract.recipe.recipe import JobIdentity, Recipe
from finetune_trainer.contract.recipe.training import CheckpointSpec, EvaluationSpec, TrainingSpec

__all__ = [
    "CheckpointSpec",
    "DatasetSpec",
    "DpoSpec",
    "EvaluationSpec",
    "JobIdentity",
    "LoraSpec",
    "Method",
    "ModelSpec",
    "OutputSpec",
    "Quantization",
    "Recipe",
    "StorageSpec",
    "TrainingSpec",
    "Validation",
]
