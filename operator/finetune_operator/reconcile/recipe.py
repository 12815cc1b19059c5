"""The recipe of a FineTuneJob, as its pods read it."""

from finetune_operator.api.finetunejob import FineTuneJob
from finetune_trainer.contract.recipe import JobIdentity, Recipe


def recipe_of(finetunejob: FineTuneJob, attempt: int, revision: str | None = None) -> Recipe:
    """The recipe of one attempt.

    Args:
        finetunejob: the FineTuneJob.
        attempt: number of the attempt.
        revision: the commit that preflight resolved for a Hub model. It replaces spec.model.revision, so that every
            attempt trains on the same commit even if the branch moves.
    """
    recipe = finetunejob.spec.recipe(
        JobIdentity(name=finetunejob.name, namespace=finetunejob.namespace, uid=finetunejob.uid, attempt=attempt)
    )
    if revision is None:
        return recipe
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"revision": revision})})
