"""Publishes the output: the merged model, the upload, the manifest and latest.json."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.contract.history import LossSummary
from finetune_trainer.contract.latest import Latest
from finetune_trainer.contract.layout import latest_uri, merged_folder, run_prefix, writer_folder
from finetune_trainer.contract.manifest import DataFacts, Manifest, ManifestFile, MemoryFacts
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.recipe.output import Merged
from finetune_trainer.contract.termination import OutputRecord
from finetune_trainer.export.adapter import Adapter
from finetune_trainer.export.base_model import model_id
from finetune_trainer.export.facts import RunFacts, settings_of
from finetune_trainer.output.latest import point_to
from finetune_trainer.output.publish import RunLocation, publish
from finetune_trainer.output.reuse import committed_output
from finetune_trainer.runtime.log import event
from finetune_trainer.storage.base import Store
from finetune_trainer.train.context import Context
from finetune_trainer.train.inputs import Inputs

if TYPE_CHECKING:
    from finetune_trainer.train.trainer import StepTrainer


def write_merged_model(
    recipe: Recipe, trainer: "StepTrainer", tokenizer: Any, base: Path, context: Context
) -> Path | None:
    """The folder of the merged model on this machine, when the recipe asks for one."""
    if recipe.output.merged is Merged.NONE:
        return None
    from finetune_trainer.export.merged import write_merged

    folder = context.work / "merged"
    write_merged(trainer.model, tokenizer, base, folder, unshard=trainer.unshard)
    event("merged", bytes=sum(file.stat().st_size for file in folder.iterdir()))
    return folder


def publish_output(
    recipe: Recipe,
    inputs: Inputs,
    adapter: Adapter,
    merged: Path | None,
    facts: RunFacts,
    context: Context,
) -> OutputRecord:
    """Uploads the adapter, commits it, and reads it back: what is reported is what a consumer finds."""
    output = recipe.output.uri
    place = RunLocation(
        store=context.open_store(output),
        run=run_prefix(output, recipe.job.name, inputs.fingerprint),
    )
    attempt, writer = recipe.job.attempt, context.writer
    folders = {writer_folder(attempt, writer): adapter.folder}
    if merged is not None:
        folders[merged_folder(attempt, writer)] = merged

    def describe(files: list[ManifestFile]) -> Manifest:
        return Manifest(
            fingerprint=inputs.fingerprint,
            adapter=writer_folder(attempt, writer),
            merged=merged_folder(attempt, writer) if merged is not None else None,
            files=files,
            base_model=model_id(recipe.model.uri),
            base_model_revision=inputs.model_revision,
            dataset=inputs.dataset,
            initial_adapter=inputs.adapter,
            rows=facts.counts.rows,
            data=DataFacts(
                tokens=facts.counts.tokens,
                trained_tokens=facts.counts.trained_tokens,
                truncated=facts.counts.truncated,
                dropped=facts.counts.dropped,
                longest=facts.counts.longest,
                duplicates=facts.counts.duplicates,
                validation=facts.counts.validation,
                trained_too=facts.counts.trained_too,
            ),
            rank=recipe.lora.rank,
            target_modules=adapter.target_modules,
            modules_without_adapter=list(facts.modules_without_adapter),
            metrics=dict(facts.metrics),
            memory=MemoryFacts(
                estimate_bytes=facts.memory_estimate_bytes,
                peak_gpu_memory_bytes=facts.peak_gpu_memory_bytes,
                peak_gpu_reserved_bytes=facts.peak_gpu_reserved_bytes,
                peak_memory_bytes=facts.peak_memory_bytes,
            ),
            losses=LossSummary.of(facts.history),
            versions=dict(facts.versions),
            recipe=settings_of(recipe),
            attempt=attempt,
            writer=writer,
            job_uid=recipe.job.uid or None,
            created=facts.created,
        )

    mode, uploaded = recipe.output.on_existing, context.reporter.uploaded
    publish(place, folders, describe, mode, uploaded, context.retry)
    record = context.retry.call(lambda: committed_output(recipe, inputs.fingerprint, context.open_store))
    assert record is not None, "the manifest was written a moment ago"
    event("published", uri=record.uri, digest=record.digest, bytes=record.size_bytes)
    update_latest(recipe, record, facts, place.store)
    return record


def update_latest(recipe: Recipe, record: OutputRecord, facts: RunFacts, store: Store) -> None:
    """Lets latest.json name this run. The adapter is committed: a pointer that cannot be written is only logged."""
    uri = latest_uri(recipe.output.uri, recipe.job.name)
    latest = Latest(
        manifest=record.manifest_uri,
        digest=record.digest,
        adapter=record.uri,
        merged=record.merged_uri,
        fingerprint=facts.fingerprint,
        created=facts.created,
    )
    try:
        pointed = point_to(latest, store, uri)
    except TrainerError as error:
        event("latest", level=logging.WARNING, uri=uri, message=f"not written: {error.message}")
    else:
        event("latest", uri=uri, written=pointed)
