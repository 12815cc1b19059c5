"""The trainer: trains from a checkpoint or from the start, evaluates on the way, and writes checkpoints."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl
from transformers.trainer import TRAINER_STATE_NAME, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from finetune_trainer.train.best_adapter import BestAdapter
from finetune_trainer.train.early_stopping import EVAL_LOSS
from finetune_trainer.train.evaluation import EarlyStoppedError, Evaluation, OverdueEvaluation
from finetune_trainer.train.hooks import TrainerHooks
from finetune_trainer.train.lora_plus import scale_lora_b_lr
from finetune_trainer.train.micro_batch_trainer import MicroBatchTrainer, StopRequested
from finetune_trainer.train.neftune import Neftune
from finetune_trainer.train.reference import LogProbs, write_reference
from finetune_trainer.train.step_record import StepRecord


class StepTrainer(MicroBatchTrainer):
    """MicroBatchTrainer with evaluation, checkpoints and LoRA+.

    Args:
        *arguments: MicroBatchTrainer's.
        hooks: whom the trainer asks and tells.
        callbacks: called by transformers' rules.
        noise: noise on the embeddings; None for none.
        lora_plus_ratio: learning rate of the B matrices over that of the others; None where all have one rate.
        **named: MicroBatchTrainer's.

    Attributes:
        saved_step: step of the newest checkpoint, 0 when there is none.
        reference: log-probabilities of the pairs under the reference model, by the name of the rows; None for none.
        ended: whether the training has come to its end, and was not asked to stop before.
    """

    saved_step: int = 0
    reference: Mapping[str, LogProbs] | None = None
    ended: bool = False
    control: TrainerControl

    def __init__(
        self,
        *arguments: Any,
        hooks: TrainerHooks,
        callbacks: Sequence[TrainerCallback] = (),
        noise: Neftune | None = None,
        lora_plus_ratio: float | None = None,
        **named: Any,
    ) -> None:
        self._lora_plus_ratio = lora_plus_ratio
        evaluation = hooks.evaluation
        own = [] if evaluation is None else [evaluation, OverdueEvaluation(evaluation, self.evaluate)]
        # Noise comes last: what is overdue is evaluated before it hooks into the model.
        every = [*callbacks, *own, *([noise] if noise else [])]
        super().__init__(*arguments, hooks=hooks, callbacks=every, **named)

    @property
    def evaluation(self) -> Evaluation | None:
        """Evaluates the adapter; None when there are no rows to evaluate with."""
        return self.hooks.evaluation

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The recipe's optimizer, with the rates of LoRA+ where it asks for them."""
        fresh = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if fresh and self._lora_plus_ratio is not None:
            scale_lora_b_lr(optimizer, self.model, self._lora_plus_ratio)
        return optimizer

    def train_from(self, checkpoint: Path | None) -> None:
        """Trains to the last step, or until a stop is requested: then a checkpoint of the last whole step is written.

        At the end the model has the adapter that is kept.

        Args:
            checkpoint: a checkpoint's folder, of the last step perhaps; None starts at the beginning.

        Raises:
            TrainerError: the loss is no number any more, or the training destroys the model.
        """
        try:
            self._train(checkpoint)
            self.ended = self._is_at_its_end(self.state)
            if self.ended and self.evaluation is not None:
                self.evaluation.finish(self)
        except StopRequested:
            self.ended = False
            if self.state.global_step > self.saved_step:
                self._save_checkpoint(self.model, None)
                self.callback_handler.on_save(self.args, self.state, self.control)

    def evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:  # noqa: ARG002 (transformers' signature)
        """Evaluates the adapter with `evaluation`; transformers calls it when a callback has asked for it.

        Raises:
            StopRequested: before a micro-batch.
            TrainerError: the validation loss is no number.
        """
        assert self.evaluation is not None, "only it asks"
        metrics = {EVAL_LOSS: self.evaluation.evaluate(self)}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def load_finished(self, checkpoint: Path) -> None:
        """Loads adapter and record of a training whose last step is done.

        transformers would train on: its loop begins an epoch before it looks whether a step is left.
        """
        self._restore_record(checkpoint)
        self._load_from_checkpoint(str(checkpoint))
        self.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))

    def _train(self, checkpoint: Path | None) -> None:
        if checkpoint is not None:
            if self._is_at_its_end(TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))):
                self.load_finished(checkpoint)
                return
            self._restore_record(checkpoint)
        with suppress(EarlyStoppedError):
            self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    def _is_at_its_end(self, state: TrainerState) -> bool:
        """Whether no step is left, be it that the validation loss no longer improves."""
        return state.global_step >= state.max_steps or (
            self.evaluation is not None and self.evaluation.ended_early(state)
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:  # noqa: ARG002 (transformers' signature)
        """Writes what a resumed training needs, and no more: transformers' own adds a pickle and an empty model card.

        Files and names are transformers' and PEFT's, so that other tools read them, and nothing that is read back can
        run code: the adapter is safetensors, the rest is loaded with `weights_only`.
        """
        folder = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        folder.mkdir(parents=True)
        self.model.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        self._save_rng_state(str(folder))
        self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
        StepRecord(
            step=self.state.global_step,
            micro_batches=self.micro_batches,
            last_loss=self.last_loss,
            divergence=self.hooks.divergence,
        ).write(folder)
        if self.evaluation is not None and self.evaluation.best is not None:
            self.evaluation.best.write(folder)
        if self.reference is not None:
            write_reference(folder, self.reference)
        self.saved_step = self.state.global_step

    def _restore_record(self, checkpoint: Path) -> None:
        """Restores what transformers does not."""
        record = StepRecord.read(checkpoint)
        self.micro_batches, self.last_loss, self.saved_step = record.micro_batches, record.last_loss, record.step
        self.hooks.divergence.restore(record.divergence)
        if self.evaluation is not None:
            self.evaluation.best = BestAdapter.read(checkpoint)
