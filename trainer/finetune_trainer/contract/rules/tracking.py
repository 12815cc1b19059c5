"""The rule that a training has one tracker."""

from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.rule import Rule

RULES: tuple[Rule[Recipe], ...] = (
    Rule(
        path="tracking",
        holds=lambda recipe: (
            sum(
                tracker is not None
                for tracker in (recipe.tracking.mlflow, recipe.tracking.wandb, recipe.tracking.trackio)
            )
            <= 1
        ),
        cel="!has(self.tracking) || [has(self.tracking.mlflow), has(self.tracking.wandb), has(self.tracking.trackio)]"
        ".filter(named, named).size() <= 1",
        message="a training sends to one tracker: keep mlflow, wandb or trackio",
    ),
)
