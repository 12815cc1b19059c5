"""The recipe of a FineTuneJob, as its pods read it."""

from finetune_operator.api.finetunejob import FineTuneJob
from finetune_trainer.contract.recipe import JobIdentity, Recipe
from finetune_trainer.contract.recipe.profile import ProfileRecord
from finetune_trainer.contract.termination import PreflightSummary


def recipe_of(finetunejob: FineTuneJob, attempt: int, checked: PreflightSummary | None = None) -> Recipe:
    """The recipe of one attempt.

    Args:
        finetunejob: the FineTuneJob.
        attempt: number of the attempt.
        checked: what preflight found. The commits that it resolved for a Hub model and Hub data sets replace the spec's
            revisions, so that every attempt trains on the same commits even if a branch moves.
    """
    recipe = finetunejob.spec.recipe(
        JobIdentity(name=finetunejob.name, namespace=finetunejob.namespace, uid=finetunejob.uid, attempt=attempt)
    )
    pinned: dict[str, object] = {}
    if finetunejob.profile is not None:
        used = finetunejob.profile
        pinned["profile"] = ProfileRecord(sources=used.sources, digest=used.digest)
    if checked is None:
        return recipe.model_copy(update=pinned)
    pinned["dataset_revisions"] = checked.dataset_revisions
    if checked.model_revision is not None:
        pinned["model"] = recipe.model.model_copy(update={"revision": checked.model_revision})
    return recipe.model_copy(update=pinned)
