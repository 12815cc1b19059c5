"""How a step is divided, by the memory at hand."""

from typing import Any

import pytest

from finetune_trainer.memory.estimate import GIB, TrainingSetup, estimate
from finetune_trainer.memory.step_plan import StepPlan, largest_micro_batch, plan_step
from unit.memory.test_estimate import llama_3_8b
from unit.trainer_train.recipes import recipe


def chosen(
    gib: float | None, *, cuda: bool = True, longest: int = 2048, packed: bool = True, **sections: Any
) -> StepPlan:
    asked = recipe(**sections)
    free_bytes = None if gib is None else int(gib * GIB)
    setup = TrainingSetup.of(asked, cuda=cuda)
    plan = plan_step(asked, llama_3_8b(), setup, packed=packed, longest=longest, free_bytes=free_bytes)
    if plan.fits:
        assert free_bytes is not None
        assert plan.memory is not None
        assert plan.memory.total < free_bytes
        micro_batch = largest_micro_batch(plan, packed=packed, longest=longest)
        assert plan.memory == estimate(llama_3_8b(), setup, micro_batch)
    return plan


@pytest.mark.parametrize(
    ("gib", "tokens", "again"),
    [(140, 16384, False), (79, 8192, False), (23.5, 16384, True), (12, 8192, True), (9, 2048, True)],
)
def test_an_8b_model_on_gpus_of_all_sizes(gib: float, tokens: int, again: bool) -> None:
    plan = chosen(gib)
    assert (plan.micro_batch_tokens, plan.gradient_checkpointing, plan.fits) == (tokens, again, True)


def test_more_memory_never_makes_a_pass_smaller() -> None:
    speeds = [chosen(gib) for gib in range(8, 160, 4)]
    order = [(not item.gradient_checkpointing, item.micro_batch_tokens) for item in speeds]
    assert order == sorted(order)


def test_what_the_recipe_sets_is_taken() -> None:
    both = chosen(140, training={"gradientCheckpointing": "enabled", "microBatchSize": 4, "batchSize": 16})
    assert (both.micro_batch_tokens, both.max_rows, both.gradient_checkpointing) == (8192, 4, True)
    never = chosen(24, training={"gradientCheckpointing": "disabled"})
    assert not never.gradient_checkpointing
    assert never.micro_batch_tokens < 4096


def test_a_long_row_goes_alone_and_is_counted_whole() -> None:
    plan = chosen(24, longest=30_000)
    micro_batch = largest_micro_batch(plan, packed=True, longest=30_000)
    assert plan.gradient_checkpointing
    assert micro_batch.tokens >= 30_000


def test_a_short_step_needs_no_room_for_more() -> None:
    plan = chosen(24, longest=100, training={"batchSize": 4})
    assert not plan.gradient_checkpointing


def test_what_does_not_fit_is_tried_in_the_smallest_way() -> None:
    plan = chosen(6)
    assert (plan.fits, plan.micro_batch_tokens, plan.gradient_checkpointing) == (False, 512, True)


def test_nothing_known_of_the_memory() -> None:
    plan = chosen(None)
    assert (plan.fits, plan.micro_batch_tokens, plan.gradient_checkpointing) == (None, 8192, True)
    assert chosen(None, cuda=False).micro_batch_tokens == 512


def test_a_model_of_unknown_sizes() -> None:
    asked = recipe()
    plan = plan_step(asked, None, TrainingSetup.of(asked, cuda=True), packed=True, longest=10, free_bytes=GIB)
    assert (plan.memory, plan.fits, plan.gradient_checkpointing) == (None, None, True)


@pytest.mark.parametrize(
    ("gib", "tokens", "again"), [(400, 512, False), (17, 512, False), (13, 512, True), (10.3, 128, True)]
)
def test_a_cpu_keeps_its_passes_unless_memory_forces_less(gib: float, tokens: int, again: bool) -> None:
    plan = chosen(gib, cuda=False, longest=100)
    assert (plan.micro_batch_tokens, plan.gradient_checkpointing) == (tokens, again)


@pytest.mark.parametrize(
    ("gib", "sections", "keep_dequantized"),
    [
        (60, {}, True),
        (17, {}, False),
        (60, {"lora": {"dropout": "0.1"}}, False),
        (60, {"lora": {"variant": "dora"}}, False),
        (60, {"model": {"quantization": {"type": "int8"}}}, False),
        (60, {"model": {"quantization": {"computeDtype": "bfloat16"}}}, False),
        (None, {}, False),
    ],
)
def test_a_cpu_keeps_unpacked_weights_where_there_is_room(
    gib: float | None, sections: dict[str, Any], keep_dequantized: bool
) -> None:
    assert chosen(gib, cuda=False, longest=100, **sections).keep_dequantized == keep_dequantized
    assert not chosen(400, **sections).keep_dequantized, "a GPU never does"
