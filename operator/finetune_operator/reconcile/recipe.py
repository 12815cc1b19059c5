"""The recipe of a FineTuneJob, as its pods read it."""

from finetune_operator.api.job import FineTuneJob
from finetune_trainer.contract.recipe import JobIdentity, Recipe


def recipe_of(job: FineTuneJob, attempt: int) -> Recipe:
    """The recipe of one attempt."""
    return job.spec.recipe(JobIdentity(name=job.name, namespace=job.namespace, uid=job.uid, attempt=attempt))
