"""The recipe's training section as TRL's SFTConfig, which is transformers' TrainingArguments."""

from pathlib import Path
from typing import Any

import torch
from trl import SFTConfig

from finetune_trainer.contract.recipe import TrainingSpec
from finetune_trainer.contract.recipe.training import DEFAULT_EPOCHS, DEFAULT_RESTARTS, Scheduler


def training_arguments(
    spec: TrainingSpec, dtype: torch.dtype, folder: Path, *, gradient_checkpointing: bool
) -> SFTConfig:
    """SFTConfig for a run; one batch is one optimizer step, which train/build_trainer.py splits.

    Args:
        spec: the training section.
        dtype: number type of the products.
        folder: where transformers may write.
        gradient_checkpointing: whether activations are computed again in the backward pass.
    """
    cuda = torch.cuda.is_available()
    length: dict[str, Any] = (
        {"max_steps": spec.max_steps}
        if spec.max_steps is not None
        else {"num_train_epochs": spec.epochs or DEFAULT_EPOCHS}
    )
    arguments = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=spec.batch_size,
        gradient_accumulation_steps=1,
        **length,
        learning_rate=float(spec.learning_rate),
        lr_scheduler_type=_schedule(spec),
        lr_scheduler_kwargs=_schedule_options(spec),
        warmup_steps=float(spec.warmup),
        optim=str(spec.optimizer),
        weight_decay=float(spec.weight_decay),
        max_grad_norm=float(spec.max_grad_norm),
        activation_checkpointing=gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        bf16=dtype is torch.bfloat16,
        fp16=dtype is torch.float16,
        use_cpu=not cuda,
        seed=spec.seed,
        data_seed=spec.seed,
        logging_steps=spec.logging_steps,
        # A NaN must be seen, not replaced by the mean of the losses before it.
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
        save_strategy="no",
        eval_strategy="no",
        # Rows come tokenised, masked and cut.
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        max_length=None,
        packing=False,
        dataloader_pin_memory=cuda,
    )
    # A process trains on one GPU however many it sees, and what spreads a model is its device map. With more here,
    # transformers would wrap the model in DataParallel, which TRL refuses (trl:trainer/sft_trainer.py, n_gpu).
    arguments._n_gpu = min(1, arguments.n_gpu)  # noqa: SLF001 (transformers sets the same for its own model parallelism)
    return arguments


def _schedule(spec: TrainingSpec) -> str:
    """The schedule's name in transformers, where two of them have another for what is a setting here."""
    if spec.scheduler is Scheduler.CONSTANT and float(spec.warmup) > 0:
        return Scheduler.CONSTANT_WITH_WARMUP  # plain `constant` passes over the warm-up
    return "cosine_with_min_lr" if spec.min_learning_rate is not None else spec.scheduler


def _schedule_options(spec: TrainingSpec) -> dict[str, Any]:
    """What the schedule is told besides; transformers' one cycle of `cosine_with_restarts` would never restart."""
    if spec.scheduler is Scheduler.COSINE_WITH_RESTARTS:
        return {"num_cycles": (spec.restarts or DEFAULT_RESTARTS) + 1}
    if spec.min_learning_rate is not None:
        return {"min_lr_rate": float(spec.min_learning_rate) / float(spec.learning_rate)}
    return {}
