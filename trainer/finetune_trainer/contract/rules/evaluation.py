"""Rules on several fields that concern the `evaluation` section."""

from finetune_trainer.contract.recipe import Method, Recipe
from finetune_trainer.contract.recipe.training import Gate
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
            or any(getattr(recipe.evaluation.gate, name) is not None for name in Gate.model_fields)
        ),
        cel="!has(self.evaluation.gate) || has(self.evaluation.gate.minLossImprovement) || "
        "has(self.evaluation.gate.maxPerplexity) || has(self.evaluation.gate.minAccuracy)",
        message="set minLossImprovement, maxPerplexity or minAccuracy: an empty gate lets everything pass",
    ),
    Rule(
        path="evaluation.gate.minAccuracy",
        holds=lambda recipe: (
            recipe.evaluation.gate is None or recipe.evaluation.gate.min_accuracy is None or recipe.method is Method.DPO
        ),
        cel="!has(self.evaluation.gate) || !has(self.evaluation.gate.minAccuracy) || self.method == 'dpo'",
        message="only pairs have an accuracy (method: dpo): use minLossImprovement or maxPerplexity",
    ),
    Rule(
        path="evaluation.gate.maxPerplexity",
        holds=lambda recipe: (
            recipe.evaluation.gate is None
            or recipe.evaluation.gate.max_perplexity is None
            or recipe.method is not Method.DPO
        ),
        cel="!has(self.evaluation.gate) || !has(self.evaluation.gate.maxPerplexity) || self.method != 'dpo'",
        message="the loss of a pair has no perplexity (method: dpo): use minLossImprovement or minAccuracy",
    ),
)
