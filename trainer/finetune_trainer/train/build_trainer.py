"""Builds the trainer: the plan of a step, whether rows are packed, the arguments, the adapter's configuration."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe import Method, Recipe
from finetune_trainer.contract.recipe.dataset import Switch
from finetune_trainer.contract.recipe.model import Attention
from finetune_trainer.memory.process import keep_freed_memory
from finetune_trainer.memory.step_plan import StepPlan
from finetune_trainer.model.adapter import (
    lora_config,
    require_saveable,
    require_targets,
)
from finetune_trainer.model.attention import is_varlen
from finetune_trainer.model.position_scaling import longest_row_of_short_kind
from finetune_trainer.train.hooks import TrainerHooks
from finetune_trainer.train.isolation import Arrangement, rows_are_isolated
from finetune_trainer.train.micro_batches import MicroBatches, collate_rows
from finetune_trainer.train.neftune import Neftune
from finetune_trainer.train.objective import objective_of
from finetune_trainer.train.step_planning import free_device_bytes, plan_step_on_device
from finetune_trainer.train.token_dataset import longest_row, sequences_per_row
from finetune_trainer.train.training_arguments import training_arguments

if TYPE_CHECKING:
    from finetune_trainer.distributed.process_group import ProcessGroup
    from finetune_trainer.model.sharded_weights import ShardedWeights
from finetune_trainer.train.trainer import StepTrainer


def build_trainer(
    recipe: Recipe,
    model: Any,
    tokenizer: Any,
    rows: Any,
    dtype: torch.dtype,
    folder: Path,
    callbacks: Sequence[TrainerCallback],
    hooks: TrainerHooks | None = None,
    initial_adapter: Path | None = None,
    process_group: "ProcessGroup | None" = None,
    sharded_weights: "ShardedWeights | None" = None,
) -> StepTrainer:
    """The trainer, with the adapter put on the model and in float32, ready to train.

    Args:
        recipe: the recipe.
        model: the base model.
        tokenizer: its tokenizer.
        rows: dataset of `input_ids` and `labels`.
        dtype: number type of the products.
        folder: where transformers may write.
        callbacks: called by transformers' rules.
        hooks: whom the trainer asks and tells; None for nobody.
        initial_adapter: weights of the adapter to continue from; None for a new one.
        process_group: the other processes of this training; None for one that trains alone.
        sharded_weights: how the model's weights are sharded over them; None where each has all.

    Raises:
        TrainerError: lora.targetModules name what is not in this model, rows of a pack would see each other, or the
            initial adapter does not fit.
    """
    if not torch.cuda.is_available():
        keep_freed_memory()
    arrangement = arrangement_of_rows(recipe, model)
    if recipe.method is Method.DPO and arrangement is Arrangement.ALONE:
        raise TrainerError(
            FailureReason.NOT_SUPPORTED,
            "spec.method: dpo: this model's result for a row depends on its neighbours, and the answers of a pair are "
            "neighbours; use method: sft, or another model",
        )
    free_bytes = free_device_bytes(
        recipe.model.device_map, processes=process_group.world.local_size if process_group else 1
    )
    plan = plan_step_on_device(
        recipe, model, dtype, arrangement=arrangement, longest=longest_row(rows), free_bytes=free_bytes
    )
    settings = training_arguments(recipe.training, dtype, folder, gradient_checkpointing=plan.gradient_checkpointing)
    require_targets(model, recipe.lora)
    require_saveable(model, recipe.lora)
    ratio = recipe.training.lora_plus_ratio
    sequences = sequences_per_row(rows)
    return _trainer_class(process_group, sharded_weights)(
        model=model,
        args=settings,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=lora_config(recipe.lora, model),
        data_collator=collate_rows,
        plan=plan,
        micro_batches=micro_batches_of(
            plan, model, tokenizer, packed=arrangement is Arrangement.PACKED, sequences_per_row=sequences
        ),
        objective=objective_of(recipe),
        hooks=hooks or TrainerHooks(),
        callbacks=callbacks,
        noise=Neftune.of(recipe.training),
        lora_plus_ratio=float(ratio) if ratio is not None else None,
        initial_adapter=initial_adapter,
    )


def _trainer_class(
    process_group: "ProcessGroup | None", sharded_weights: "ShardedWeights | None"
) -> Callable[..., StepTrainer]:
    if process_group is None:
        return StepTrainer
    from finetune_trainer.train.data_parallel import DataParallelTrainer
    from finetune_trainer.train.sharded_parallel import ShardedTrainer

    return (
        partial(DataParallelTrainer, process_group)
        if sharded_weights is None
        else partial(ShardedTrainer, sharded_weights, process_group)
    )


def arrangement_of_rows(recipe: Recipe, model: Any) -> Arrangement:
    """How rows share a micro-batch: packed where the model keeps them apart and the recipe allows it.

    Otherwise they are padded. Each is alone if a row's neighbours change its result even then, as experts with a
    limited capacity do. So the loss never depends on how a step is divided.

    Raises:
        TrainerError: dataset.packing is enabled, or varlen attention asked for, and the model does not keep rows apart.
    """
    packing, vocabulary = recipe.dataset.packing, model.config.get_text_config().vocab_size
    packed = packing is not Switch.DISABLED and _keeps_rows_apart(model, vocabulary, recipe.model.attention)
    if packing is Switch.ENABLED and not packed:
        raise TrainerError(
            FailureReason.NOT_SUPPORTED,
            "spec.dataset.packing: enabled: with this model, quantisation and attention, packed rows would see each "
            "other; use auto or disabled",
        )
    if recipe.model.attention is Attention.VARLEN and not packed:
        raise TrainerError(
            FailureReason.NOT_SUPPORTED,
            "spec.model.attention: varlen: with this model and quantisation, packed rows would see each other, and "
            "varlen is for packed rows; use auto",
        )
    if packed:
        return Arrangement.PACKED
    if rows_are_isolated(model, vocabulary, Arrangement.PADDED):
        return Arrangement.PADDED
    return Arrangement.ALONE


def micro_batches_of(
    plan: StepPlan, model: Any, tokenizer: Any, *, packed: bool, sequences_per_row: int = 1
) -> MicroBatches:
    """The plan with what the tensors need besides."""
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    # A padding token may have been added without an embedding. Any id does, because padding is masked.
    if pad is not None and pad >= model.get_input_embeddings().num_embeddings:
        pad = 0
    return MicroBatches(
        packed=packed,
        varlen=packed and is_varlen(model),
        max_tokens=plan.micro_batch_tokens,
        max_rows=plan.max_rows,
        pad_id=pad if pad is not None else 0,
        sequences_per_row=sequences_per_row,
        never_mixed_above=longest_row_of_short_kind(model.config.get_text_config().to_dict()),
    )


def _keeps_rows_apart(model: Any, vocabulary: int, requested: Attention) -> bool:
    """Whether packs are right; where auto's first choice fails, SDPA, which has a mask, gets a chance."""
    if rows_are_isolated(model, vocabulary):
        return True
    if requested is Attention.AUTO and is_varlen(model):
        model.set_attn_implementation("sdpa")
        return rows_are_isolated(model, vocabulary)
    return False
