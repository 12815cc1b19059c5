"""One run, from recipe to committed adapter. Read it from top to bottom; each step is a module of its own.

Imports stay light: torch and its friends come in only once it is known that there is something to train.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from finetune_trainer.checkpoints import Checkpointer
from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.progress import Stage
from finetune_trainer.contract.recipe import Method, Recipe
from finetune_trainer.contract.rules import problems
from finetune_trainer.contract.termination import Outcome, OutputRecord
from finetune_trainer.data.templates.choose import check_syntax
from finetune_trainer.export.adapter import write_adapter
from finetune_trainer.export.record import write_record
from finetune_trainer.output.reuse import reusable_output
from finetune_trainer.runtime.log import event, go_offline, libraries_quiet
from finetune_trainer.tracking.tracker import Tracker
from finetune_trainer.train.context import Context, Result
from finetune_trainer.train.fetch import FetchedInputs, fetch_inputs
from finetune_trainer.train.inputs import Inputs, resolve_inputs
from finetune_trainer.train.output import publish_output, write_merged_model
from finetune_trainer.train.own_gpus import require_own_gpus
from finetune_trainer.train.resume import checkpoint_store, newest_checkpoint_message, remove_checkpoints
from finetune_trainer.train.tracked_run import tracked_run

_DONE_BEFORE = "done-before"
"""Under which process 0 says whether there is anything to train."""

if TYPE_CHECKING:
    from finetune_trainer.train.model_and_data import ModelAndData
    from finetune_trainer.train.quality import Quality
    from finetune_trainer.train.trainer import StepTrainer


def run(recipe: Recipe, context: Context) -> Result:
    """Trains the adapter of a recipe and commits it, unless it is there already.

    Raises:
        TrainerError: every end with a known cause, the stop flag among them.
    """
    context.reporter.stage(Stage.STARTING)
    refuse(recipe)
    inputs = resolve_inputs(recipe, context.open_store)
    event("starting", job=recipe.job.name, attempt=recipe.job.attempt, fingerprint=inputs.fingerprint)
    existing = reusable(recipe, inputs, context)
    if context.process_group is not None:
        context.process_group.publish(_DONE_BEFORE, "yes" if existing is not None else "no")
        if existing is not None:
            context.process_group.barrier()
    if existing is not None:
        remove_checkpoints(recipe, inputs, context)
        return Result(outcome=Outcome.REUSED, fingerprint=inputs.fingerprint, output=existing)

    with libraries_quiet():
        return _run(recipe, inputs, context)


def run_worker(recipe: Recipe, context: Context) -> None:
    """Trains in a process other than the main one, and ends with the last step: only the main process commits.

    Raises:
        TrainerError: every end with a known cause, the end of another process among them.
    """
    process_group = context.process_group
    assert process_group is not None
    inputs = resolve_inputs(recipe, context.open_store)
    if process_group.wait_for(_DONE_BEFORE) == "yes":
        process_group.barrier()
        return
    with libraries_quiet():
        fetched = fetch_for_processes(recipe, inputs, context)
        go_offline()
        from finetune_trainer.train.model_and_data import load_model_and_data

        model_and_data = load_model_and_data(recipe, inputs, fetched.model, context)
        train_adapter(
            recipe,
            model_and_data,
            fetched,
            Checkpointer(checkpoint_store(recipe, inputs, context), context.reporter),
            context,
        )


def fetch_for_processes(recipe: Recipe, inputs: Inputs, context: Context) -> FetchedInputs:
    """What the run needs, on this machine; several processes of a pod share it.

    Raises:
        TrainerError: see `fetch_inputs`.
    """
    if context.process_group is None:
        return fetch_inputs(recipe, inputs, context)
    from finetune_trainer.train.fetch_once import fetch_once

    return fetch_once(recipe, inputs, context.process_group, context)


def _run(recipe: Recipe, inputs: Inputs, context: Context) -> Result:
    reporter = context.reporter
    if context.process_group is None:  # Else this was done before the processes were connected.
        require_own_gpus(recipe, context)
    reporter.stage(Stage.FETCHING)
    fetched = fetch_for_processes(recipe, inputs, context)
    context.raise_if_stopping()

    reporter.stage(Stage.LOADING)
    go_offline()
    from finetune_trainer.train.model_and_data import load_model_and_data

    model_and_data = load_model_and_data(recipe, inputs, fetched.model, context)
    checkpointer = Checkpointer(checkpoint_store(recipe, inputs, context), reporter)
    with tracked_run(recipe, inputs, context) as tracker:
        trainer = train_adapter(recipe, model_and_data, fetched, checkpointer, context, tracker)
        output = _finish(recipe, inputs, trainer, model_and_data, fetched, checkpointer, context, tracker)
    reporter.stage(Stage.FINISHED)
    return Result(outcome=Outcome.SUCCEEDED, fingerprint=inputs.fingerprint, output=output)


def _finish(
    recipe: Recipe,
    inputs: Inputs,
    trainer: "StepTrainer",
    model_and_data: "ModelAndData",
    fetched: FetchedInputs,
    checkpointer: Checkpointer,
    context: Context,
    tracker: Tracker | None,
) -> OutputRecord:
    """Measures, writes and commits the adapter of a trained model.

    Raises:
        TrainerError: see `evaluate_adapter` and `publish_output`.
    """
    from finetune_trainer.train.facts import run_facts

    reporter = context.reporter
    try:
        quality = evaluate_adapter(recipe, trainer, model_and_data, fetched, checkpointer, context)
        if tracker is not None:
            tracker.log(trainer.state.global_step, quality.metrics)

        reporter.stage(Stage.SAVING)
        tokenizer = model_and_data.tokenizer
        adapter = write_adapter(trainer.model, tokenizer, recipe, context.work / "adapter", inputs.model_revision)
        facts = run_facts(trainer, recipe, inputs, model_and_data, quality, fetched.licence, context)
        write_record(facts, adapter.folder)
        merged = write_merged_model(recipe, trainer, tokenizer, fetched.model, context)
    finally:
        trainer.release_other_processes()

    reporter.stage(Stage.UPLOADING)
    output = publish_output(recipe, inputs, adapter, merged, facts, context)
    remove_checkpoints(recipe, inputs, context)
    return output


def refuse(recipe: Recipe) -> None:
    """Refuses a recipe that contradicts itself; every such field is named.

    Raises:
        TrainerError: at least one field.
    """
    if broken := problems(recipe):
        raise TrainerError(FailureReason.INVALID_SPEC, "; ".join(map(str, broken)))
    check_syntax(recipe.dataset.chat_template)


def reusable(recipe: Recipe, inputs: Inputs, context: Context) -> OutputRecord | None:
    """The adapter of this run, if it exists and may be reused.

    Raises:
        TrainerError: see `reuse.reusable_output`.
    """
    existing = reusable_output(recipe, inputs.fingerprint, context.open_store)
    if existing is not None:
        event("reused", uri=existing.uri)
    return existing


def train_adapter(
    recipe: Recipe,
    model_and_data: "ModelAndData",
    fetched: FetchedInputs,
    checkpointer: Checkpointer,
    context: Context,
    tracker: Tracker | None = None,
) -> "StepTrainer":
    """Trains, from the fetched checkpoint where there is one; returns the trainer with the adapter that is kept.

    Raises:
        TrainerError: the stop flag was set, memory ran out, or the loss diverged.
    """
    from transformers import TrainerCallback

    from finetune_trainer.train.build_trainer import build_trainer
    from finetune_trainer.train.callbacks import ReportSteps, SaveWhenDue, SendMetrics, StopWhenRequested
    from finetune_trainer.train.divergence import Divergence, with_advice
    from finetune_trainer.train.evaluation import Evaluation
    from finetune_trainer.train.history import KeepHistory
    from finetune_trainer.train.hooks import TrainerHooks

    reporter, process_group, divergence = context.reporter, context.process_group, Divergence()
    stop_requested = context.stop.is_set if process_group is None else process_group.has_agreed_to_stop
    end: TrainerCallback = StopWhenRequested(stop_requested)
    if process_group is None or process_group.is_main_process:
        end = SaveWhenDue(checkpointer, recipe.checkpoint, stop_requested, context.clock, divergence)
    report, rows = ReportSteps(reporter, context.clock), model_and_data.validation
    hooks = TrainerHooks(
        stop_requested=context.stop.is_set,
        heartbeat=reporter.update,
        on_smaller_micro_batches=report.smaller_micro_batches,
        evaluation=Evaluation(recipe, rows, reporter, stop_requested) if rows else None,
        divergence=divergence,
    )
    trainer = build_trainer(
        recipe,
        model_and_data.base,
        model_and_data.tokenizer,
        model_and_data.data.rows,
        model_and_data.dtype,
        context.work / f"trainer-{process_group.world.rank if process_group else 0}",
        [KeepHistory(context.clock, context.now), report, end, *([SendMetrics(tracker)] if tracker else [])],
        hooks,
        fetched.initial_adapter,
        process_group,
        model_and_data.sharded_weights,
    )
    context.reporter.update(memory_estimate_bytes=trainer.plan.memory.total if trainer.plan.memory else None)
    compute_dtype = str(model_and_data.dtype).removeprefix("torch.")
    event(
        "training",
        rows=len(model_and_data.data.rows),
        packed=trainer.micro_batches.packed,
        pass_tokens=trainer.micro_batches.max_tokens,
        processes=process_group.world.size if process_group else None,
        compute_dtype=compute_dtype,
    )
    start = fetched.checkpoint
    if recipe.method is Method.DPO and not recipe.dpo.reference_free:
        _measure_reference(recipe, trainer, model_and_data, start.folder if start else None, checkpointer, context)
    try:
        trainer.train_from(start.folder if start and start.manifest.step else None)
    except TrainerError as error:
        checkpointer.wait()
        message = with_advice(error, compute_dtype).message
        raise TrainerError(error.reason, f"{message}; {newest_checkpoint_message(checkpointer, start)}") from error
    checkpointer.wait()
    if not trainer.ended:
        done, total = trainer.state.global_step, trainer.state.max_steps
        if process_group is not None:
            process_group.barrier()
        message = (
            f"told to stop; stopped after step {done} of {total}; {newest_checkpoint_message(checkpointer, start)}"
        )
        raise TrainerError(FailureReason.PREEMPTED, message)
    trainer.continue_on_main_process()
    context.reporter.update(loss=trainer.last_loss)
    return trainer


def _measure_reference(
    recipe: Recipe,
    trainer: "StepTrainer",
    model_and_data: "ModelAndData",
    checkpoint: Path | None,
    checkpointer: Checkpointer,
    context: Context,
) -> None:
    """Gives every pair its log-probabilities under the reference model.

    Raises:
        TrainerError: the stop flag was set.
    """
    from finetune_trainer.train.micro_batch_trainer import StopRequested
    from finetune_trainer.train.reference import keep_nothing, measure_reference
    from finetune_trainer.train.reference_checkpoints import ReferenceCheckpoints

    context.reporter.stage(Stage.EVALUATING)
    event("reference", pairs=len(model_and_data.data.rows))
    kept = ReferenceCheckpoints(checkpointer, context.work, recipe.checkpoint, context.clock)
    writes = context.process_group is None or context.process_group.is_main_process
    try:
        measure_reference(
            trainer,
            model_and_data.data.rows,
            model_and_data.validation,
            checkpoint,
            kept.keep if writes else keep_nothing,
        )
    except StopRequested:
        message = f"told to stop before the first step, while the reference model was measured; {kept.message()}"
        raise TrainerError(FailureReason.PREEMPTED, message) from None


def evaluate_adapter(
    recipe: Recipe,
    trainer: "StepTrainer",
    model_and_data: "ModelAndData",
    fetched: FetchedInputs,
    checkpointer: Checkpointer,
    context: Context,
) -> "Quality":
    """Measures the adapter beside its base model, where the recipe asks for it.

    Raises:
        TrainerError: the stop flag was set, or the gate was missed.
    """
    from finetune_trainer.train.micro_batch_trainer import StopRequested
    from finetune_trainer.train.quality import Quality, compare

    if model_and_data.validation is None and not model_and_data.prompts.texts:
        return Quality()
    context.reporter.stage(Stage.EVALUATING)
    try:
        return compare(
            trainer,
            model_and_data.tokenizer,
            model_and_data.validation,
            model_and_data.prompts,
            recipe.evaluation.gate,
            fetched.initial_adapter,
        )
    except StopRequested:
        reason, message = FailureReason.PREEMPTED, "told to stop after the training, while its adapter was measured"
    except TrainerError as error:
        reason, message = error.reason, error.message
    raise TrainerError(reason, f"{message}; {newest_checkpoint_message(checkpointer, fetched.checkpoint)}")
