"""One run, from recipe to committed adapter. Read it from top to bottom; each step is a module of its own.

Imports stay light: torch and its friends come in only once it is known that there is something to train.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_trainer.checkpoints import Checkpointer, Found, Shelf
from finetune_trainer.contract.consistency import inconsistencies
from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.history import LossSummary
from finetune_trainer.contract.latest import Latest
from finetune_trainer.contract.layout import checkpoints_prefix, latest_uri, merged_folder, run_prefix, writer_folder
from finetune_trainer.contract.manifest import DataFacts, Manifest, ManifestFile
from finetune_trainer.contract.progress import Stage
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.recipe.output import Merged
from finetune_trainer.contract.supported import unsupported_fields
from finetune_trainer.contract.termination import Outcome, OutputRecord
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.data.templates.choose import check_syntax, only_conversations, use_chat_template
from finetune_trainer.data.tokenize import token_rows
from finetune_trainer.data.tokens import TokenCounts
from finetune_trainer.export.adapter import Adapter, write_adapter
from finetune_trainer.export.base_model import base_licence, model_id
from finetune_trainer.export.facts import RunFacts, settings_of
from finetune_trainer.export.record import write_record
from finetune_trainer.latest import point_to
from finetune_trainer.log import event, go_offline, libraries_quiet
from finetune_trainer.publish import Place, publish
from finetune_trainer.sources import existing_output, reusable_output
from finetune_trainer.storage.base import Store
from finetune_trainer.train.context import Context, Result
from finetune_trainer.train.inputs import Inputs, fetch_adapter, fetch_model, find_inputs
from finetune_trainer.versions import shaping_versions

if TYPE_CHECKING:
    import torch

    from finetune_trainer.train.trainer import StepTrainer

_CHECKPOINT_PATIENCE_SECONDS = 60.0
"""With storage that does not answer: a pod that is told to go has two minutes."""


def run(recipe: Recipe, context: Context) -> Result:
    """Trains the adapter of a recipe and commits it, unless it is there already.

    Raises:
        TrainerError: every end with a known cause, the stop flag among them.
    """
    context.reporter.stage(Stage.STARTING)
    refuse(recipe)
    inputs = find_inputs(recipe, context.open_store)
    event("starting", job=recipe.job.name, attempt=recipe.job.attempt, fingerprint=inputs.fingerprint)
    if (existing := reusable(recipe, inputs, context)) is not None:
        remove_checkpoints(recipe, inputs, context)
        return Result(outcome=Outcome.REUSED, fingerprint=inputs.fingerprint, output=existing)

    with libraries_quiet():
        return _run(recipe, inputs, context)


def _run(recipe: Recipe, inputs: Inputs, context: Context) -> Result:
    reporter = context.reporter
    reporter.stage(Stage.FETCHING)
    folder, initial = fetch_model(recipe, inputs, context), fetch_adapter(recipe, inputs, context)
    licence = base_licence(recipe.model.uri, context.open_store)
    start = newest_checkpoint(recipe, inputs, context)
    context.leave_if_told()

    reporter.stage(Stage.LOADING)
    go_offline()
    from finetune_trainer.model.fit import require_fit
    from finetune_trainer.model.load import compute_dtype, load_base, load_tokenizer
    from finetune_trainer.train.facts import run_facts
    from finetune_trainer.train.rows import largest_id, longest_row

    dtype = compute_dtype(recipe.model.quantization.compute_dtype)
    tokenizer = load_tokenizer(folder, remote_code=recipe.model.trust_remote_code)
    use_chat_template(tokenizer, recipe.dataset.chat_template)
    rows, counts = tokenised(recipe, inputs, tokenizer, context)
    context.leave_if_told()
    base = load_base(folder, recipe.model, dtype)
    length = recipe.dataset.max_length
    require_fit(base, longest=longest_row(rows), largest_id=largest_id(rows), max_length=length)
    context.leave_if_told()

    checkpointer = Checkpointer(shelf_of(recipe, inputs, context), reporter)
    trainer, metrics = trained(recipe, base, tokenizer, rows, dtype, initial, checkpointer, start, context)

    reporter.stage(Stage.SAVING)
    adapter = write_adapter(trainer.model, tokenizer, recipe, context.work / "adapter", inputs.model_revision)
    facts = run_facts(trainer, recipe, inputs, rows, counts, metrics, licence, context)
    write_record(facts, adapter.folder)
    merged = merged_model(recipe, trainer, tokenizer, folder, context)

    reporter.stage(Stage.UPLOADING)
    output = published(recipe, inputs, adapter, merged, facts, context)
    remove_checkpoints(recipe, inputs, context)
    reporter.stage(Stage.FINISHED)
    return Result(outcome=Outcome.SUCCEEDED, fingerprint=inputs.fingerprint, output=output)


def refuse(recipe: Recipe) -> None:
    """Refuses a recipe that contradicts itself or asks for what is not there; every such field is named.

    Raises:
        TrainerError: at least one field.
    """
    if broken := inconsistencies(recipe):
        raise TrainerError(FailureReason.INVALID_RECIPE, "; ".join(map(str, broken)))
    if asked := unsupported_fields(recipe):
        raise TrainerError(FailureReason.NOT_SUPPORTED, "; ".join(map(str, asked)))
    check_syntax(recipe.dataset.chat_template)


def reusable(recipe: Recipe, inputs: Inputs, context: Context) -> OutputRecord | None:
    """The adapter of this very run, when it is there and may be taken.

    Raises:
        TrainerError: see `sources.reusable_output`.
    """
    existing = reusable_output(recipe, inputs.fingerprint, context.open_store)
    if existing is not None:
        event("reused", uri=existing.uri)
    return existing


def newest_checkpoint(recipe: Recipe, inputs: Inputs, context: Context) -> Found | None:
    """The newest whole checkpoint of this very run, fetched; None when there is none.

    Raises:
        TrainerError: the storage's reason, or the process was told to go.
    """
    found = shelf_of(recipe, inputs, context).newest(context.work / "checkpoint", context.downloaded)
    if found is not None:
        manifest, here = found.manifest, shaping_versions()
        event(
            "resuming",
            step=f"{manifest.step}/{manifest.total_steps}",
            uri=found.uri,
            # Another version may compute other last bits: the run goes on, but not exactly as it would have.
            other_versions=", ".join(
                f"{name} {was}" for name, was in manifest.versions.items() if was != here.get(name)
            )
            or None,
        )
        context.reporter.update(
            resumed_from_step=manifest.step,
            checkpoint_step=manifest.step,
            step=manifest.step,
            total_steps=manifest.total_steps,
            percent=100 * manifest.step // manifest.total_steps,
        )
    return found


def shelf_of(recipe: Recipe, inputs: Inputs, context: Context) -> Shelf:
    """Where the checkpoints of this very run are."""
    asked = recipe.checkpoint.uri
    output = parse_uri(recipe.output.uri)
    place = checkpoints_prefix(output, parse_uri(asked) if asked else None, recipe.job.name, inputs.fingerprint)
    return Shelf(
        store=context.open_store(place),
        place=place,
        fingerprint=inputs.fingerprint,
        keep=recipe.checkpoint.keep,
        attempt=recipe.job.attempt,
        writer=context.writer,
        versions=shaping_versions(),
        now=context.now,
        patience=replace(context.patience, seconds=min(context.patience.seconds, _CHECKPOINT_PATIENCE_SECONDS)),
    )


def remove_checkpoints(recipe: Recipe, inputs: Inputs, context: Context) -> None:
    """Removes this run's checkpoints: its adapter is there. What cannot be removed is only logged."""
    shelf = shelf_of(recipe, inputs, context)
    try:
        shelf.clear()
    except TrainerError as error:
        event("checkpoint", level=logging.WARNING, uri=shelf.place, message=f"not removed: {error.message}")


def tokenised(recipe: Recipe, inputs: Inputs, tokenizer: Any, context: Context) -> "tuple[Any, TokenCounts]":
    """The rows as tokens, on disk, and what became of them.

    Raises:
        TrainerError: a row is wrong, or none is left; or the process was told to go.
    """
    from finetune_trainer.data.duplicates import DuplicateCounter
    from finetune_trainer.data.read import read_examples
    from finetune_trainer.train.rows import write_rows

    dataset, counts, repeated = recipe.dataset, TokenCounts(), DuplicateCounter()
    examples = read_examples(dataset, inputs.dataset, context.open_store, context.downloaded, repeated)
    examples = only_conversations(examples, dataset.chat_template)
    rows = token_rows(examples, tokenizer, loss=dataset.loss, max_length=dataset.max_length, counts=counts)
    written = write_rows(map(context.unless_told, rows), context.work / "rows.arrow")
    counts.duplicates = repeated.count
    event(
        "dataset",
        rows=counts.rows,
        tokens=counts.tokens,
        trained_tokens=counts.trained_tokens,
        truncated=counts.truncated,
        dropped=counts.dropped,
        longest=counts.longest,
        duplicates=counts.duplicates,
    )
    if not counts.rows:
        message = f"no row has a token to train: {counts.dropped} of {counts.dropped} rows were dropped"
        raise TrainerError(
            FailureReason.DATASET_INVALID, f"{message} (dataset.maxLength is {dataset.max_length} tokens)"
        )
    return written, counts


def trained(
    recipe: Recipe,
    base: Any,
    tokenizer: Any,
    rows: Any,
    dtype: "torch.dtype",
    initial: Path | None,
    checkpointer: Checkpointer,
    start: Found | None,
    context: Context,
) -> "tuple[StepTrainer, dict[str, float]]":
    """Trains, from the checkpoint `start` where there is one; returns the trainer with its model, and final metrics.

    Raises:
        TrainerError: the stop flag was set, memory ran out, or the loss diverged.
    """
    from finetune_trainer.train.callbacks import ReportSteps, SaveWhenDue
    from finetune_trainer.train.history import KeepHistory
    from finetune_trainer.train.trainer import make_trainer

    history, report = KeepHistory(context.clock, context.now), ReportSteps(context.reporter, context.clock)
    save = SaveWhenDue(checkpointer, recipe.checkpoint, context.stop, context.clock)
    callbacks = [history, report, save]
    trainer = make_trainer(recipe, base, tokenizer, rows, dtype, context.work / "trainer", callbacks, initial)
    trainer.told_to_stop, trainer.on_smaller_passes = context.stop.is_set, report.smaller_passes
    event(
        "training",
        rows=len(rows),
        packed=trainer.passes.packed,
        pass_tokens=trainer.passes.max_tokens,
        compute_dtype=str(dtype).removeprefix("torch."),
    )
    try:
        if start is not None and start.manifest.step == start.manifest.total_steps:
            trainer.load_finished(start.folder)
        else:
            trainer.train_from(start.folder if start else None)
    except TrainerError as error:
        checkpointer.wait()
        raise TrainerError(error.reason, f"{error.message}; {left_behind(checkpointer, start)}") from error
    checkpointer.wait()
    done, total = trainer.state.global_step, trainer.state.max_steps
    if done < total:
        message = f"told to stop; stopped after step {done} of {total}; {left_behind(checkpointer, start)}"
        raise TrainerError(FailureReason.PREEMPTED, message)
    metrics = final_metrics(trainer)
    context.reporter.update(loss=metrics["loss"])
    return trainer, metrics


def left_behind(checkpointer: Checkpointer, start: Found | None) -> str:
    """What the next attempt finds, for the message at the end of this one."""
    step = checkpointer.put_step or (start.manifest.step if start else None)
    newest = f"the newest checkpoint is of step {step}" if step else "there is no checkpoint"
    return f"{newest} (a later one could not be put: {checkpointer.failure})" if checkpointer.failure else newest


def final_metrics(trainer: "StepTrainer") -> dict[str, float]:
    """Loss of the last step in nats per trained token, steps done, and tokens that went through the model."""
    return {
        "loss": trainer.last_loss,
        "steps": float(trainer.state.global_step),
        "tokens": float(trainer.state.num_input_tokens_seen),
    }


def merged_model(recipe: Recipe, trainer: "StepTrainer", tokenizer: Any, base: Path, context: Context) -> Path | None:
    """The folder of the merged model on this machine, when the recipe asks for one."""
    if recipe.output.merged is Merged.NONE:
        return None
    from finetune_trainer.export.merged import write_merged

    folder = context.work / "merged"
    write_merged(trainer.model, tokenizer, base, folder)
    event("merged", bytes=sum(file.stat().st_size for file in folder.iterdir()))
    return folder


def published(
    recipe: Recipe,
    inputs: Inputs,
    adapter: Adapter,
    merged: Path | None,
    facts: RunFacts,
    context: Context,
) -> OutputRecord:
    """Uploads the adapter, commits it, and reads it back: what is reported is what a consumer finds."""
    output = parse_uri(recipe.output.uri)
    place = Place(
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
            ),
            rank=recipe.lora.rank,
            target_modules=adapter.target_modules,
            metrics=dict(facts.metrics),
            losses=LossSummary.of(facts.history),
            versions=dict(facts.versions),
            recipe=settings_of(recipe),
            attempt=attempt,
            writer=writer,
            job_uid=recipe.job.uid or None,
            created=facts.created,
        )

    mode, uploaded = recipe.output.on_existing, context.reporter.uploaded
    publish(place, folders, describe, mode, uploaded, context.patience)
    record = context.patience.call(lambda: existing_output(recipe, inputs.fingerprint, context.open_store))
    assert record is not None, "the manifest was written a moment ago"
    event("published", uri=record.uri, digest=record.digest, bytes=record.size_bytes)
    point_latest(recipe, record, facts, place.store)
    return record


def point_latest(recipe: Recipe, record: OutputRecord, facts: RunFacts, store: Store) -> None:
    """Lets latest.json name this run. The adapter is committed: a pointer that cannot be written is only logged."""
    uri = latest_uri(parse_uri(recipe.output.uri), recipe.job.name)
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
