"""Whether a training can fit the GPU that the job asks for."""

from typing import Any

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.memory.estimate import GIB, MemoryEstimate
from finetune_trainer.memory.gpu_memory import minimum_memory, require_gpu_memory
from unit.memory.published import LLAMA_3_8B, LLAMA_3_8B_BYTES
from unit.trainer_train.recipes import recipe


def least(asked: Recipe) -> MemoryEstimate:
    found = minimum_memory(asked, LLAMA_3_8B, None, LLAMA_3_8B_BYTES)
    assert found is not None
    return found


def on(gib: int, **sections: Any) -> Recipe:
    return recipe(machine={"gpus": 1, "gpuMemoryBytes": gib * GIB}, **sections)


def test_8b_fits_a_consumer_gpu_in_4_bit_only() -> None:
    fits = on(12)
    assert "of the GPU's 12.0 GiB at least (model 5." in require_gpu_memory(fits, least(fits))
    plain = on(12, model={"quantization": {"type": "none"}}, lora={"rank": 64})
    with pytest.raises(TrainerError) as error:
        require_gpu_memory(plain, least(plain))
    assert error.value.reason is FailureReason.GPU_TOO_SMALL
    for word in ("model 14.96", "the job asks for 12.0 GiB", "set model.quantization.type to nf4", "lora.rank (64)"):
        assert word in error.value.message


def test_what_does_not_fit_one_gpu_fits_each_of_several() -> None:
    plain = {"quantization": {"type": "none"}}
    alone = on(12, model=plain)
    with pytest.raises(TrainerError, match=r"model\.sharding: full with resources\.gpus"):
        require_gpu_memory(alone, least(alone))
    eight = recipe(machine={"gpus": 4, "nodes": 2, "gpuMemoryBytes": 12 * GIB}, model={**plain, "sharding": "full"})
    assert "of the GPU's 12.0 GiB" in require_gpu_memory(eight, least(eight))
    two = recipe(machine={"gpus": 2, "gpuMemoryBytes": 9 * GIB}, model={**plain, "sharding": "full"})
    with pytest.raises(TrainerError, match="over more GPUs than 2"):
        require_gpu_memory(two, least(two))


def test_a_pair_takes_what_two_rows_take() -> None:
    """Both answers go through the model together; an adapter is one adapter still."""
    rows, pairs = least(on(80, training={"microBatchSize": 2})), least(on(80, method="dpo"))

    assert pairs.parts() == rows.parts()
    assert pairs.total > least(on(80)).total


def test_a_smaller_gpu_is_refused() -> None:
    asked = on(6)
    with pytest.raises(TrainerError, match=r"lower dataset\.maxLength \(2048\)"):
        require_gpu_memory(asked, least(asked))


def test_what_the_recipe_fixes_counts() -> None:
    base = least(on(24)).total
    assert least(on(24, training={"gradientCheckpointing": "disabled"})).total > base
    assert least(on(24, training={"microBatchSize": 4})).total > base
    assert least(on(24, dataset={"maxLength": 8192})).total > base


def test_unknown_memory_is_only_reported() -> None:
    asked = recipe()
    assert require_gpu_memory(asked, least(asked)).startswith("about ")
    cpu = recipe(machine={"gpus": 0})
    assert "of the process's memory at least" in require_gpu_memory(cpu, least(cpu))


def test_a_model_of_unknown_sizes_gives_no_estimate() -> None:
    assert minimum_memory(recipe(), {"model_type": "mamba"}, None, 100) is None
    assert minimum_memory(recipe(), LLAMA_3_8B, None, 100) is None
