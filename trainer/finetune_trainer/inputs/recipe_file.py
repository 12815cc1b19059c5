"""The recipe from its mounted file, or everything that is wrong with it."""

from pathlib import Path

from pydantic import ValidationError

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.layout import RECIPE_ENV
from finetune_trainer.contract.recipe import Recipe


def read_recipe(path: str) -> Recipe:
    """The recipe in a JSON file.

    Raises:
        TrainerError: INVALID_RECIPE; every wrong field is named with its value and the rule.
    """
    if not path:
        raise TrainerError(FailureReason.INVALID_RECIPE, f"no recipe: give --recipe FILE or set {RECIPE_ENV}")
    try:
        return Recipe.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise TrainerError(FailureReason.INVALID_RECIPE, f"recipe {path}: {error.strerror}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or path}: {item['input']!r:.80}: {item['msg']}"
            for item in error.errors(include_url=False)
        )
        raise TrainerError(FailureReason.INVALID_RECIPE, problems) from error
