"""The recipe of a FineTuneJob, as its pods read it."""

from finetune_operator.api.job import FineTuneJob
from finetune_trainer.contract.recipe import JobIdentity, Recipe


def recipe_of(job: FineTuneJob, attempt: int) -> Recipe:
    """The part of the spec that shapes the result, with whose it is and which attempt this is."""
    spec = job.spec
    return Recipe(
        job=JobIdentity(name=job.name, namespace=job.namespace, uid=job.uid, attempt=attempt),
        model=spec.model,
        dataset=spec.dataset,
        lora=spec.lora,
        training=spec.training,
        evaluation=spec.evaluation,
        checkpoint=spec.checkpoint,
        output=spec.output,
        storage=spec.storage,
        profile=spec.profile,
        run_token=spec.run_token,
    )
