"""The rules on several fields of a recipe, each with one definition.

The CRD has the rules' CEL. The operator, the command line, preflight and the trainer call `holds`. A rule that is added
to one of these lists is checked in all of them.
"""

from collections.abc import Mapping
from typing import Any

from finetune_trainer.contract.problem import Problem
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.rule import broken
from finetune_trainer.contract.rules import dataset, evaluation, lora, model, places, preference, tracking, training

RULES = (
    *model.RULES,
    *dataset.RULES,
    *lora.RULES,
    *training.RULES,
    *preference.RULES,
    *evaluation.RULES,
    *tracking.RULES,
)
"""The rules for every recipe."""
CLUSTER_RULES = places.RULES
"""The additional rules for a recipe that runs in a cluster."""


def problems(recipe: Recipe, own: Mapping[str, Any] | None = None) -> list[Problem]:
    """A problem for each broken rule of `RULES`, in their order. For `own` see `contract.rule.broken`."""
    return broken(RULES, recipe, "spec", own)


def cluster_problems(recipe: Recipe) -> list[Problem]:
    """A problem for each broken rule of `CLUSTER_RULES`, in their order."""
    return broken(CLUSTER_RULES, recipe, "spec")
