"""All checks of one recipe."""

import uuid

from finetune_trainer.contract.preflight_report import PreflightReport
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.preflight.checks import CHECKS
from finetune_trainer.preflight.context import PreflightContext
from finetune_trainer.preflight.report import report_of
from finetune_trainer.preflight.runner import run_checks
from finetune_trainer.storage.base import ByteCount, OpenStore


def check_recipe(
    recipe: Recipe,
    open_store: OpenStore,
    *,
    on_bytes: ByteCount = lambda _: None,
    probe_token: str | None = None,
) -> PreflightReport:
    """Checks a recipe.

    Args:
        recipe: the recipe.
        open_store: gives the store of a URI.
        on_bytes: called with the data's stored bytes as they are read.
        probe_token: makes the write probe's name unique; random by default.
    """
    context = PreflightContext(recipe, open_store, on_bytes, probe_token or uuid.uuid4().hex)
    return report_of(context, run_checks(CHECKS, context))
