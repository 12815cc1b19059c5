"""The memory estimate against real allocations, and the division that follows from it in a run."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from finetune_trainer.memory.process import memory_limit_bytes
from finetune_trainer.model.load import load_base
from finetune_trainer.train.isolation import Arrangement
from finetune_trainer.train.step_planning import plan_step_on_device
from trainer.allocations import Case, measure
from trainer.running import LocalRun, manifest_of

pytestmark = pytest.mark.trainer


@pytest.mark.parametrize(
    "case",
    [
        Case(shape="small", tokens=512),
        Case(shape="small", tokens=1024, gradient_checkpointing=True, packed=False, quantization="none"),
        Case(shape="small", tokens=1024, dtype="bfloat16", attention="varlen"),
    ],
    ids=["packed", "padded-checkpointing", "bfloat16-varlen"],
)
def test_the_estimate_is_what_is_allocated(case: Case, tmp_path: Path) -> None:
    said, counted = measure(case, tmp_path)

    assert said.model == pytest.approx(counted.model, rel=0.001)
    assert said.adapter + said.gradients + said.optimizer == pytest.approx(counted.trained, rel=0.001)
    assert said.activations + said.workspace == pytest.approx(counted.step, rel=0.12)


ROW = {"text": "The quick brown fox jumps over the lazy dog. " * 4}


def test_a_run_says_what_it_took_beside_the_estimate(local_run: Callable[..., LocalRun]) -> None:
    run = local_run([ROW] * 4, training={"batchSize": 4, "maxSteps": 2})
    result = run()

    progress, memory = run.seen[-1], manifest_of(result).memory
    assert memory is not None
    assert memory.estimate_bytes == progress.memory_estimate_bytes
    assert progress.memory_estimate_bytes is not None
    assert progress.peak_memory_bytes is not None
    limit = memory_limit_bytes()
    assert limit is not None
    assert 0 < progress.peak_memory_bytes <= (memory.peak_memory_bytes or 0) < limit
    assert memory.peak_gpu_memory_bytes is None


@pytest.mark.parametrize(
    ("free_bytes", "expected"),
    [(1 << 34, (512, False)), (None, (512, False)), (1, (128, True))],
)
def test_memory_decides_on_a_cpu_only_when_it_is_short(
    local_run: Callable[..., LocalRun],
    tiny_model: Path,
    free_bytes: int | None,
    expected: tuple[int, bool],
) -> None:
    recipe = local_run([]).recipe
    model = load_base(tiny_model, recipe.model, torch.float32)

    found = plan_step_on_device(
        recipe, model, torch.float32, arrangement=Arrangement.PACKED, longest=64, free_bytes=free_bytes
    )

    assert (found.micro_batch_tokens, found.gradient_checkpointing) == expected
    assert found.memory is not None
