"""Collects the facts of a trained run: what the report and the model card are made from."""

from typing import TYPE_CHECKING

import torch

from finetune_trainer.contract.history import history_of
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.export.facts import RunFacts
from finetune_trainer.memory.process import peak_process_bytes
from finetune_trainer.model.adapter import adapted_modules, modules_without_adapter
from finetune_trainer.runtime.versions import shaping_versions
from finetune_trainer.train.context import Context
from finetune_trainer.train.inputs import Inputs
from finetune_trainer.train.model_and_data import ModelAndData
from finetune_trainer.train.quality import Quality
from finetune_trainer.train.token_dataset import rows_by_length

if TYPE_CHECKING:
    from finetune_trainer.train.trainer import StepTrainer


def run_facts(
    trainer: "StepTrainer",
    recipe: Recipe,
    inputs: Inputs,
    model_and_data: ModelAndData,
    quality: Quality,
    licence: str | None,
    context: Context,
) -> RunFacts:
    """The facts, once training has ended."""
    progress = context.reporter.progress
    return RunFacts(
        recipe=recipe,
        fingerprint=inputs.fingerprint,
        base_revision=inputs.model_revision,
        base_licence=licence,
        base_config=model_and_data.config,
        dataset=inputs.dataset,
        counts=model_and_data.data.counts,
        lengths=rows_by_length(model_and_data.data.rows),
        target_modules=adapted_modules(trainer.model),
        modules_without_adapter=modules_without_adapter(trainer.model),
        metrics={**final_metrics(trainer), **quality.metrics},
        samples=quality.samples,
        history=history_of(trainer.state.log_history),
        resumed_from_step=progress.resumed_from_step,
        smaller_micro_batch_tokens=progress.pass_tokens,
        stage_seconds=context.reporter.stage_seconds(),
        device=_device(),
        peak_gpu_memory_bytes=sum(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count()))) or None,
        peak_gpu_reserved_bytes=sum(map(torch.cuda.max_memory_reserved, range(torch.cuda.device_count()))) or None,
        peak_memory_bytes=peak_process_bytes() or 0,
        memory_estimate_bytes=trainer.plan.memory.total if trainer.plan.memory else None,
        versions=shaping_versions(),
        created=context.now(),
    )


def _device() -> str:
    if not torch.cuda.is_available():
        return f"CPU, {torch.get_num_threads()} threads"
    return ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))


def final_metrics(trainer: "StepTrainer") -> dict[str, float]:
    """Loss of the last step in nats per trained token, steps done, and tokens that went through the model."""
    return {
        "loss": trainer.last_loss,
        "steps": float(trainer.state.global_step),
        "tokens": float(trainer.state.num_input_tokens_seen),
    }
