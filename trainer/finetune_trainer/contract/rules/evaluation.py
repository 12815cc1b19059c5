"""Rules on several fields that concern the `evaluation` section."""

from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.rule import Rule

RULES: tuple[Rule[Recipe], ...] = (
    Rule(
        path="evaluation.everySteps",
        holds=lambda recipe: recipe.evaluation.every_steps is None or recipe.dataset.validation is not None,
        cel="!has(self.evaluation.everySteps) || has(self.dataset.validation)",
        message="needs dataset.validation: add it, or remove everySteps",
    ),
    Rule(
        path="evaluation.gate",
        holds=lambda recipe: recipe.evaluation.gate is None or recipe.dataset.validation is not None,
        cel="!has(self.evaluation.gate) || has(self.dataset.validation)",
        message="needs dataset.validation: add it, or remove the gate",
    ),
    Rule(
        path="evaluation.gate",
        holds=lambda recipe: (
            recipe.evaluation.gate is None
            or (recipe.evaluation.gate.min_loss_improvement, recipe.evaluation.gate.max_perplexity) != (None, None)
        ),
        cel="!has(self.evaluation.gate) || has(self.evaluation.gate.minLossImprovement) || "
        "has(self.evaluation.gate.maxPerplexity)",
        message="set minLossImprovement, maxPerplexity, or both: an empty gate lets everything pass",
    ),
)
