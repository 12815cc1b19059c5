"""TRL's SFTTrainer, where a batch is one optimizer step that is split into micro-batches.

transformers accumulates gradients over a fixed number of rows. Rows differ in length, so micro-batches would differ in
work and memory. Here a micro-batch is filled by tokens (data/packing.py), and every token of the step has the same
weight in the loss however the step is split.
"""

import math
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback
from trl import SFTTrainer

from finetune_trainer.memory.step_plan import StepPlan
from finetune_trainer.model.prepared_adapter import prepare_adapter
from finetune_trainer.runtime.machine_errors import out_of_memory_reason
from finetune_trainer.train.divergence import require_finite
from finetune_trainer.train.hooks import TrainerHooks
from finetune_trainer.train.lm_head import trained_token_positions, use_frozen_lm_head
from finetune_trainer.train.micro_batches import MicroBatches, ModelInputs, PairRows
from finetune_trainer.train.objective import Objective, StepMeasures, StepTotals, SupervisedObjective
from finetune_trainer.train.rng import RngState
from finetune_trainer.train.router_loss import RouterLoss


class StopRequested(Exception):  # noqa: N818 (no error: the run goes on in the next pod)
    """A stop was requested in the middle of a step, whose work is lost; the trainer is as after the step before."""


class MicroBatchTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer whose batch is a whole optimizer step.

    Args:
        *arguments: SFTTrainer's.
        plan: how steps are run in the memory at hand.
        micro_batches: how a step is split; smaller ones replace it when memory runs out.
        hooks: whom the trainer asks and tells.
        objective: what a step minimises.
        initial_adapter: weights of the adapter to continue from; None for a new one.
        **named: SFTTrainer's.

    Attributes:
        last_loss: loss of the last step: nats per trained token, or of a pair.
        base_weights: the base model's own weights that are trained in place, as they were.
        head_is_frozen: whether the frozen LM head of `train.lm_head` is in use.

    Raises:
        TrainerError: the initial adapter does not fit.
    """

    last_loss: float = math.nan

    def __init__(
        self,
        *arguments: Any,
        plan: StepPlan,
        micro_batches: MicroBatches,
        hooks: TrainerHooks,
        objective: Objective | None = None,
        initial_adapter: Path | None = None,
        **named: Any,
    ) -> None:
        self.plan, self.micro_batches, self.hooks = plan, micro_batches, hooks
        self.objective: Objective = objective or SupervisedObjective()
        self._measures = StepMeasures(self.objective.measures)
        self._router_loss = RouterLoss.of(named["model"])
        if self._router_loss is not None:
            # TRL's own depends on the division into micro-batches, and knows the names of some configurations only.
            named["args"].router_aux_loss_coef = 0.0
        super().__init__(*arguments, **named)
        # It prints every log entry to standard output.
        self.remove_callback(PrinterCallback)
        prepared = prepare_adapter(self.model, plan, initial_adapter)
        self.base_weights, self._cached_lora_weights = prepared.base_weights, prepared.cached_weights
        base = self.model.get_base_model()
        self.head_is_frozen = use_frozen_lm_head(base, self.before_lm_head)
        self._after_step = RngState.capture()
        self._repeated = False

    def stop_requested(self) -> bool:
        """Whether this process was asked to stop."""
        return self.hooks.stop_requested()

    def heartbeat(self) -> object:
        """Says that an evaluation goes on."""
        return self.hooks.heartbeat()

    def raise_if_stopping(self) -> None:
        """Raises StopRequested when a stop was requested."""
        if self.stop_requested():
            raise StopRequested

    def cached_lora_weights(self) -> AbstractContextManager[None]:
        """A context within which the adapter does not change from micro-batch to micro-batch."""
        return self._cached_lora_weights()

    def before_lm_head(self) -> None:
        """Called before the head's weight is read."""

    def local_micro_batches(self, step: ModelInputs) -> Iterator[ModelInputs]:
        """The micro-batches that this process runs: alone, all of them."""
        return self.micro_batches.split(step)

    def sum_over_processes(self, compute: Callable[[], torch.Tensor], shape: tuple[int, ...]) -> torch.Tensor:  # noqa: ARG002
        """The sum of what all processes compute; alone, what this one does.

        Args:
            compute: gives this process's part, in float64.
            shape: of the part.

        Raises:
            StopRequested: one of them was asked to stop before it had computed its part.
        """
        return compute()

    def continue_on_main_process(self) -> None:
        """From now on process 0 goes on without the others, which have ended with the training."""

    def unshard(self, module: torch.nn.Module) -> None:
        """Makes a module's weights readable, until the next module's are asked for, where they are sharded."""

    def release_other_processes(self) -> None:
        """Tells the others that process 0 needs nothing more of them."""

    def training_step(self, model: Any, inputs: ModelInputs, num_items_in_batch: Any = None) -> torch.Tensor:  # noqa: ARG002
        """Runs forward and backward of every micro-batch; returns the step's loss, nats per trained token.

        When memory runs out, the step is repeated from the same random numbers: once as it was, because fragments of
        freed memory may have been all that was missing, then with micro-batches half as large. Rows and weights stay,
        so it is the same step.

        Raises:
            StopRequested: before a micro-batch.
            TrainerError: the loss is no number any more, or the training destroys the model.
        """
        before = RngState.capture()
        self._repeated = False
        try:
            total = self._run_step(model, inputs)
            while total is None:
                before.restore()
                total = self._run_step(model, inputs)
        except StopRequested:
            model.zero_grad()
            self._after_step.restore()
            raise
        loss, *measures = total.tolist()
        self.last_loss = loss
        self._measures.add(measures, len(inputs["lengths"]) // self.micro_batches.sequences_per_row)
        if self.objective.is_language_loss:
            vocabulary = self.model.config.get_text_config().vocab_size
            self.hooks.divergence.take(self.last_loss, vocabulary, self._where)
        else:
            require_finite("the loss", self.last_loss, self._where)
        # Kept in the trainer's state, which a checkpoint holds; transformers' own count knows only rectangular batches.
        self.state.num_input_tokens_seen += inputs["input_ids"].numel()
        self._after_step = RngState.capture()
        # Of a model that is spread over GPUs the head may be on another than the first, where transformers sums.
        return total[0].to(self.args.device)

    def log(self, logs: dict[str, float], *arguments: Any, **named: Any) -> None:
        """Logs what transformers logs, and the objective's measures since the last loss was logged."""
        if "loss" in logs:
            logs = {**logs, **self._measures.take()}
        super().log(logs, *arguments, **named)

    def run_model(self, micro_batch: ModelInputs) -> tuple[Any, torch.Tensor, PairRows | None]:
        """The fused LM head's output for a micro-batch of a measurement, its labels, and its pairs."""
        inputs = self._prepare_inputs(micro_batch)
        pairs = inputs.pop("pairs", None)
        return self.model(**inputs, use_cache=False, fused_lm_head=True), inputs["labels"], pairs

    def _run_step(self, model: Any, step: ModelInputs) -> torch.Tensor | None:
        """The step's loss and measures; None when memory ran out and the step is to be repeated."""
        totals = self.objective.totals(step)
        parts = []
        try:
            with self.cached_lora_weights():
                for micro_batch in self.local_micro_batches(step):
                    self.raise_if_stopping()
                    parts.append(self._run_micro_batch(model, micro_batch, totals))
        except (RuntimeError, MemoryError) as error:
            if out_of_memory_reason(error) is None or not self._prepare_repetition(model, step):
                raise
            # The traceback holds the tensors of the micro-batch that did not fit.
            traceback.clear_frames(error.__traceback__)
        else:
            return torch.stack(parts).sum(dim=0)
        parts.clear()
        torch.cuda.empty_cache()
        return None

    def _run_micro_batch(self, model: Any, micro_batch: ModelInputs, totals: StepTotals) -> torch.Tensor:
        """Forward and backward of one micro-batch; its part of the step's loss, and the sums of the measures."""
        loss: torch.Tensor = super().training_step(model, micro_batch, totals)
        return torch.cat([loss[None], self._measured.to(loss)])

    def get_train_dataloader(self) -> Any:
        """The steps, which stay on the host: micro-batches are made there, and moved one by one.

        What depends on lengths and labels is then computed without waiting for the GPU.
        """
        loader = super().get_train_dataloader()
        loader.device = None
        return loader

    def _prepare_inputs(self, inputs: ModelInputs) -> ModelInputs:
        """A micro-batch on the device, with the places of its trained tokens."""
        if self.head_is_frozen:
            inputs = {**inputs, "trained_positions": trained_token_positions(inputs["labels"])}
        prepared: ModelInputs = super()._prepare_inputs(inputs)
        return prepared

    def _prepare_input(self, data: Any) -> Any:
        """A tensor on the device. Memory that is pinned is copied without waiting for the GPU."""
        if isinstance(data, torch.Tensor) and not data.is_cuda and self.args.device.type == "cuda":
            return data.pin_memory().to(self.args.device, non_blocking=True)
        return super()._prepare_input(data)

    def _prepare_repetition(self, model: Any, step: ModelInputs, *, ranks: int = 1) -> bool:
        """Drops the step's gradients. The first repetition of a step keeps its micro-batches, the others halve them.

        Returns:
            Whether the step can be repeated: not if every row is alone in its micro-batch already.
        """
        smaller = self.micro_batches.halved(step, ranks=ranks) if self._repeated else self.micro_batches
        if smaller is None:
            return False
        model.zero_grad()
        if self._repeated:
            self.micro_batches = smaller
            self.hooks.on_smaller_micro_batches(smaller)
        self._repeated = True
        return True

    def compute_loss(
        self,
        model: Any,
        inputs: ModelInputs,
        return_outputs: bool = False,  # noqa: FBT001, FBT002, upstream's signature
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss of a micro-batch of the step whose totals are `num_items_in_batch`.

        As TRL's, but without its entropy and accuracy, which nobody reads: they cost a third of the head's time, and
        three waits for the GPU a micro-batch. Mixtures of experts have a loss of their own besides (`router_loss`).
        """
        router_loss, totals, pairs = self._router_loss, num_items_in_batch, inputs.get("pairs")
        assert isinstance(totals, StepTotals), "only micro-batches of a step have a loss"
        inputs = {name: value for name, value in inputs.items() if name != "pairs"}
        with nullcontext() if router_loss is None else router_loss.recorded() as router_logits:
            outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        loss, self._measured = self.objective.loss(outputs, inputs["labels"], pairs, totals)
        if router_loss is not None:
            routed = router_loss.sum_over_trained_tokens(router_logits or [], inputs)
            loss = loss + routed / max(totals.trained_tokens, 1.0)
        return (loss, outputs) if return_outputs else loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The gradient's length, which transformers asks for before it takes the step.

        Raises:
            TrainerError: it is no number: the step would destroy the adapter. float16 is left alone, whose loss scale
                is too large now and then; such a step is passed over.
        """
        norm = super()._get_grad_norm(model, grad_norm)
        if self.accelerator.scaler is None:
            require_finite("the gradient norm", float(norm), self._where)
        return norm

    def _where(self) -> str:
        """The running step, for messages."""
        return f"at step {self.state.global_step + 1} (learning rate {self._get_learning_rate():.3g})"
