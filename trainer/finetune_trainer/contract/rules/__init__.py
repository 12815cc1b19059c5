"""The rules over several fields of a recipe, each said once.

The CRD takes their CEL; the operator, the command line, preflight and the trainer ask `holds`. A rule that is added to
one of these lists holds in all of them.
"""

from finetune_trainer.contract.problem import Problem
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.rule import broken
from finetune_trainer.contract.rules import dataset, evaluation, lora, model, places, training

RULES = (*model.RULES, *dataset.RULES, *lora.RULES, *training.RULES, *evaluation.RULES)
"""Rules of every recipe."""
CLUSTER_RULES = places.RULES
"""Rules of a recipe that runs in a cluster."""


def problems(recipe: Recipe) -> list[Problem]:
    """A problem for each broken rule that holds wherever the recipe runs, in the order of the sections."""
    return broken(RULES, recipe, "spec")


def cluster_problems(recipe: Recipe) -> list[Problem]:
    """A problem for each broken rule that holds in a cluster only."""
    return broken(CLUSTER_RULES, recipe, "spec")
