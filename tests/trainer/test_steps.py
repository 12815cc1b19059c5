"""What happens inside of one optimizer step: memory that runs out, a pod that is told to go."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe import ModelSpec
from finetune_trainer.data.tokenization.tokens import TokenRow
from finetune_trainer.model.load import load_base
from finetune_trainer.train.build_trainer import build_trainer
from finetune_trainer.train.divergence import PATIENCE, Divergence
from finetune_trainer.train.hooks import TrainerHooks
from finetune_trainer.train.micro_batches import MicroBatches
from finetune_trainer.train.token_dataset import write_rows
from finetune_trainer.train.trainer import StepTrainer
from trainer.running import recipe_of

pytestmark = pytest.mark.trainer
ROWS, LENGTH = 16, 12


@pytest.fixture
def make(tiny_model: Path, tokenizer: Any, tmp_path: Path) -> Callable[..., StepTrainer]:
    """A trainer of four steps of 8 equally long rows, with dropout, in passes of 4 rows."""
    made = 0

    def trainer(rows_a_pass: int = 4, **hooks: Any) -> StepTrainer:
        nonlocal made
        made += 1
        folder = tmp_path / str(made)
        folder.mkdir()
        recipe = recipe_of(
            tiny_model, tmp_path, tmp_path, training={"maxSteps": 4, "batchSize": 8}, lora={"dropout": "0.1"}
        )
        rows = write_rows(
            (TokenRow(ids=tuple(range(5 + n, 5 + n + LENGTH)), trained=(True,) * LENGTH) for n in range(ROWS)),
            folder / "rows.arrow",
        )
        base = load_base(tiny_model, ModelSpec(uri=f"file://{tiny_model}"), torch.float32)
        found = build_trainer(recipe, base, tokenizer, rows, torch.float32, folder, [], TrainerHooks(**hooks))
        found.micro_batches = MicroBatches(packed=True, max_tokens=rows_a_pass * LENGTH, max_rows=8, pad_id=0)
        return found

    return trainer


def _weights(trainer: StepTrainer) -> dict[str, torch.Tensor]:
    return {name: part.detach().clone() for name, part in trainer.model.named_parameters() if part.requires_grad}


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class _SmallGpu:
    """Refuses passes of more tokens than fit, as a GPU's allocator does, from a pass of the training on."""

    def __init__(self, trainer: StepTrainer, tokens: int, after: int = 0) -> None:
        self.seen: list[int] = []
        trainer.model.register_forward_pre_hook(self._look, with_kwargs=True)
        self._tokens, self._after = tokens, after

    def _look(self, _: Any, __: Any, named: dict[str, Any]) -> None:
        self.seen.append(named["input_ids"].numel())
        if len(self.seen) > self._after and self.seen[-1] > self._tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_step_that_does_not_fit_is_done_again_in_smaller_passes(make: Callable[..., StepTrainer]) -> None:
    """Same rows, same random numbers: the end is that of a training in the smaller passes from the start."""
    told = list[MicroBatches]()
    trainer = make(on_smaller_micro_batches=told.append)
    gpu = _SmallGpu(trainer, tokens=2 * LENGTH)

    trainer.train_from(None)

    expected = make(rows_a_pass=2)
    expected.train_from(None)
    assert _equal(_weights(trainer), _weights(expected))
    assert [micro_batches.max_tokens for micro_batches in told] == [2 * LENGTH]
    assert gpu.seen == [4 * LENGTH] * 2 + [2 * LENGTH] * 16


def test_memory_that_runs_out_in_the_middle_of_a_step_loses_nothing_of_it(make: Callable[..., StepTrainer]) -> None:
    """The first pass of step 2 has added its gradients when the second one fails."""
    trainer = make()
    gpu = _SmallGpu(trainer, tokens=2 * LENGTH, after=3)

    trainer.train_from(None)

    assert gpu.seen == [4 * LENGTH] * 5 + [2 * LENGTH] * 12
    assert trainer.state.global_step == 4
    first_step: StepTrainer = make(stop_requested=lambda: first_step.state.global_step == 1)
    rest = make()
    first_step.train_from(None)
    checkpoint = Path(first_step.args.output_dir) / "checkpoint-1"
    smaller = (checkpoint / "steps.json").read_text().replace(str(4 * LENGTH), str(2 * LENGTH))
    (checkpoint / "steps.json").write_text(smaller)
    rest.train_from(checkpoint)
    assert _equal(_weights(trainer), _weights(rest))


def test_one_row_that_does_not_fit_ends_the_training(make: Callable[..., StepTrainer]) -> None:
    trainer = make()
    gpu = _SmallGpu(trainer, tokens=LENGTH - 1)

    with pytest.raises(torch.OutOfMemoryError):
        trainer.train_from(None)

    assert gpu.seen == [4 * LENGTH, 4 * LENGTH, 2 * LENGTH, LENGTH]


def test_memory_that_runs_out_once_leaves_the_passes_as_large_as_they_were(make: Callable[..., StepTrainer]) -> None:
    """Fragments of freed memory were in the way: once the allocator has given them back, the step fits."""
    told = list[MicroBatches]()
    trainer = make(on_smaller_micro_batches=told.append)
    failed = list[bool]()

    def fail_once(*_: Any) -> None:
        if not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    trainer.model.register_forward_pre_hook(fail_once)
    trainer.train_from(None)

    whole = make()
    whole.train_from(None)
    assert failed
    assert told == []
    assert trainer.micro_batches == whole.micro_batches
    assert _equal(_weights(trainer), _weights(whole))


@pytest.mark.parametrize("told_at", [1, 2, 3])
def test_told_to_stop_within_a_step_the_checkpoint_is_of_the_step_before(
    make: Callable[..., StepTrainer], told_at: int
) -> None:
    """Two passes a step; the random numbers of the step that is lost are drawn again. Step 2 ends an epoch."""
    asked = 0

    def told() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2 * told_at + 1  # after the first pass of the step that follows

    trainer = make(stop_requested=told)
    trainer.train_from(None)
    resumed, whole = make(), make()
    whole.train_from(None)
    assert trainer.state.global_step == told_at
    resumed.train_from(Path(trainer.args.output_dir) / f"checkpoint-{told_at}")
    assert _equal(_weights(resumed), _weights(whole))


def test_told_to_stop_within_the_first_step_there_is_no_checkpoint(make: Callable[..., StepTrainer]) -> None:
    trainer = make(stop_requested=lambda: True)

    trainer.train_from(None)

    assert trainer.state.global_step == 0
    assert not list(Path(trainer.args.output_dir).glob("checkpoint-*"))


def test_training_that_has_ended_is_loaded_and_not_trained_on(make: Callable[..., StepTrainer]) -> None:
    trainer = make()
    trainer.train_from(None)
    trainer._save_checkpoint(trainer.model, None)

    loaded = make()
    loaded.load_finished(Path(trainer.args.output_dir) / "checkpoint-4")

    assert _equal(_weights(loaded), _weights(trainer))
    assert loaded.state.global_step == loaded.state.max_steps == 4
    assert loaded.last_loss == trainer.last_loss
    assert loaded.state.num_input_tokens_seen == trainer.state.num_input_tokens_seen


def test_model_that_has_forgotten_its_language_ends_the_training(make: Callable[..., StepTrainer]) -> None:
    """The random model's loss is above that of a guess: as if a training had made a good one so."""
    lost = Divergence(has_read=True, steps=PATIENCE - 3)
    trainer: StepTrainer = make(divergence=lost, stop_requested=lambda: trainer.state.global_step == 1)

    trainer.train_from(None)
    resumed = make()
    with pytest.raises(TrainerError) as caught:
        resumed.train_from(Path(trainer.args.output_dir) / "checkpoint-1")

    assert caught.value.reason is FailureReason.LOSS_DIVERGED
    said = r"the loss is [67]\.\d+ at step 3 \(learning .* so high for 10 steps: .* all 352 tokens has 5\.864\)$"
    assert re.match(said, str(caught.value))
    assert resumed.state.global_step == 2


def test_gradient_that_is_no_number_ends_the_training_before_it_reaches_the_adapter(
    make: Callable[..., StepTrainer],
) -> None:
    """The step before is whole: its checkpoint, where there is one, is good."""
    trainer, backward_passes = make(rows_a_pass=8), 0
    (adapter, *_) = (part for part in trainer.model.parameters() if part.requires_grad)

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        nonlocal backward_passes
        backward_passes += 1
        return torch.full_like(gradient, torch.inf) if backward_passes == 3 else gradient

    adapter.register_hook(spoil)

    with pytest.raises(TrainerError) as caught:
        trainer.train_from(None)

    assert caught.value.reason is FailureReason.LOSS_DIVERGED
    assert caught.value.message.startswith("the gradient norm is inf at step 3 (learning rate ")
    assert trainer.state.global_step == 2
    assert all(weight.isfinite().all() for weight in _weights(trainer).values())
