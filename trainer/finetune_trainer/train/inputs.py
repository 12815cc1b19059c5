"""The run's inputs, by content; nothing is fetched yet."""

from dataclasses import dataclass

from finetune_trainer.contract.fingerprint import fingerprint
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.inputs.initial_adapter import initial_adapter_objects, require_agreement
from finetune_trainer.inputs.sources import dataset_objects, model_objects, validation_objects
from finetune_trainer.model.files import require_complete
from finetune_trainer.storage.base import OpenStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What goes in, by content.

    Attributes:
        dataset: the training data's objects, in reading order.
        validation: the objects of validation rows of their own; empty when there are none.
        model: the model's files.
        adapter: the files of the adapter that is continued from; empty when there is none.
        fingerprint: the name of the run that they and the recipe make.
    """

    dataset: list[SourceObject]
    validation: list[SourceObject]
    model: list[SourceObject]
    adapter: list[SourceObject]
    fingerprint: str

    @property
    def model_revision(self) -> str | None:
        """The commit of a Hub model; None for a model from elsewhere."""
        return self.model[0].revision


def resolve_inputs(recipe: Recipe, open_store: OpenStore) -> Inputs:
    """Looks up the dataset's and the model's objects.

    Raises:
        TrainerError: something is missing, may not be read, is no complete model, or no adapter for this recipe.
    """
    dataset = dataset_objects(recipe.dataset, open_store)
    model = model_objects(recipe, open_store)
    require_complete(recipe.model.uri, model)
    adapter = initial_adapter_objects(recipe, open_store)
    require_agreement(recipe, adapter, open_store)
    validation = validation_objects(recipe.dataset, open_store)
    identity = fingerprint(recipe, [*dataset, *validation], model, adapter)
    return Inputs(dataset=dataset, validation=validation, model=model, adapter=adapter, fingerprint=identity)
