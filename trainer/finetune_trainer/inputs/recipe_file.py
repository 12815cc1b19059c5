"""Reads the recipe from its mounted file."""

from pathlib import Path

from pydantic import ValidationError

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.layout import RECIPE_ENV
from finetune_trainer.contract.problem import Problem, problems_of
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.rules import problems


def read_recipe(path: str) -> Recipe:
    """Reads a recipe from a JSON file and checks all rules.

    Raises:
        TrainerError: INVALID_SPEC. The file is missing, or a field is invalid. The message names every invalid field
            with its value and the rule.
    """
    if not path:
        raise TrainerError(FailureReason.INVALID_SPEC, f"no recipe: give --recipe FILE or set {RECIPE_ENV}")
    try:
        recipe = Recipe.model_validate_json(Path(path).read_bytes(), strict=True)
    except OSError as error:
        raise TrainerError(FailureReason.INVALID_SPEC, f"recipe {path}: {error.strerror}") from error
    except ValidationError as error:
        raise _refused(problems_of(error, "spec")) from error
    if broken := problems(recipe):
        raise _refused(broken)
    return recipe


def _refused(problems: list[Problem]) -> TrainerError:
    return TrainerError(FailureReason.INVALID_SPEC, "; ".join(map(str, problems)))
