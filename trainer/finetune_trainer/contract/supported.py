"""What of the recipe this version does not do yet.

A field that is accepted and then ignored is worse than a refusal: the operator, the command line and the trainer itself
ask here first, and refuse the job with every such field named. A field that stands at its default asks for nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from finetune_trainer.contract.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsupported:
    """One field that asks for what is not there.

    Attributes:
        path: the field, for example `spec.output.merged`.
        value: what stands there.
        message: what is not there, and what to write instead.
    """

    path: str
    value: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.value}: {self.message}"


def unsupported_fields(recipe: Recipe) -> list[Unsupported]:
    """Every field of the recipe that this version would have to ignore, in the order of the sections."""
    return [found for section in _SECTIONS for found in section(recipe)]


def _dataset(recipe: Recipe) -> Iterator[Unsupported]:
    dataset = recipe.dataset
    if dataset.validation is not None:
        yield _not_yet("dataset.validation", "set", "the adapter is not measured yet; remove the section")


def _training(recipe: Recipe) -> Iterator[Unsupported]:
    if recipe.training.early_stopping is not None:
        message = "the validation loss is not measured yet; remove the section"
        yield _not_yet("training.earlyStopping", "set", message)


def _evaluation(recipe: Recipe) -> Iterator[Unsupported]:
    evaluation = recipe.evaluation
    message = "the adapter is not measured yet; remove the field"
    if evaluation.every_steps is not None:
        yield _not_yet("evaluation.everySteps", str(evaluation.every_steps), message)
    if evaluation.gate is not None:
        yield _not_yet("evaluation.gate", "set", message)
    if evaluation.sample_prompts is not None:
        yield _not_yet("evaluation.samplePrompts", f"{len(evaluation.sample_prompts)} prompts", message)


_SECTIONS: tuple[Callable[[Recipe], Iterator[Unsupported]], ...] = (
    _dataset,
    _training,
    _evaluation,
)


def _not_yet(field: str, value: str, message: str) -> Unsupported:
    return Unsupported(path=f"spec.{field}", value=str(value), message=message)
