"""The estimate against published measurements, and against arithmetic."""

from typing import Any

import pytest

from finetune_trainer.contract.recipe.training import Optimizer
from finetune_trainer.memory.activations import Masking, MicroBatchShape
from finetune_trainer.memory.estimate import GIB, MemoryEstimate, TrainingSetup, estimate
from finetune_trainer.memory.shape import ModelShape, model_shape, tensors_of_llama
from finetune_trainer.memory.trainable import optimizer_bytes, trained_bytes, trained_tensors
from unit.memory.published import LLAMA_3_8B, LLAMA_3_8B_BYTES
from unit.trainer_train.recipes import recipe


def llama_3_8b() -> ModelShape:
    tensors = tensors_of_llama(LLAMA_3_8B, LLAMA_3_8B_BYTES)
    assert tensors is not None
    shape = model_shape(LLAMA_3_8B, tensors)
    assert shape is not None
    return shape


def estimated(tokens: int, *, again: bool = True, masking: Masking | None = None, **sections: Any) -> MemoryEstimate:
    micro_batch = MicroBatchShape(tokens=tokens, span=tokens, gradient_checkpointing=again)
    return estimate(llama_3_8b(), TrainingSetup.of(recipe(**sections), cuda=True, masking=masking), micro_batch)


def test_torchtunes_8b_qlora() -> None:
    # torchtune's README: Llama 3.1 8B, QLoRA, batch 2 x 2048 packed, activation checkpointing: 7.4 GiB (allocator).
    found = estimated(4096, lora={"rank": 8})
    assert 6.7 < (found.total - found.reserve) / GIB < 8.1


def test_torchtunes_8b_lora() -> None:
    # The same README: LoRA in bfloat16 takes 16.2 GiB with activation checkpointing and offloading on a 4090; without
    # offloading the base model alone is 15 GiB.
    found = estimated(4096, lora={"rank": 8}, model={"quantization": {"type": "none"}})
    assert found.model == LLAMA_3_8B_BYTES
    assert 16.2 < (found.total - found.reserve) / GIB < 19


@pytest.mark.parametrize(
    ("quantization", "bits"),
    [
        ({"type": "nf4"}, 4.127),
        ({"type": "nf4", "doubleQuant": False}, 4.5),
        ({"type": "fp4"}, 4.127),
        ({"type": "int8"}, 8.0),
        ({"type": "none"}, 16.0),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_bits_a_weight(quantization: dict[str, Any], bits: float) -> None:
    linears = 6_979_321_856
    plain = 2 * (8_030_261_248 - linears)
    found = estimated(1, model={"quantization": quantization}).model
    assert 8 * (found - plain) / linears == pytest.approx(bits, rel=0.002)


def test_what_is_trained() -> None:
    shape = llama_3_8b()
    all_linear = trained_tensors(shape, recipe(lora={"rank": 16}).lora)
    assert trained_bytes(all_linear) == 4 * 41_943_040
    two = trained_tensors(shape, recipe(lora={"rank": 16, "targetModules": ["q_proj", "v_proj"]}).lora)
    assert trained_bytes(two) == 4 * 6_815_744
    whole = trained_tensors(shape, recipe(lora={"rank": 16, "modulesToSave": ["lm_head"]}).lora)
    assert trained_bytes(whole) == 4 * (41_943_040 + 128256 * 4096)
    dora = trained_tensors(shape, recipe(lora={"rank": 16, "variant": "dora"}).lora)
    assert trained_bytes(dora) == 4 * (41_943_040 + 32 * (2 * 4096 + 2 * 1024 + 2 * 14336 + 4096))
    assert optimizer_bytes(all_linear, Optimizer.ADAMW_TORCH_FUSED) == 8 * 41_943_040
    assert optimizer_bytes(all_linear, Optimizer.SGD) == 0
    assert optimizer_bytes(all_linear, Optimizer.ADAMW_8BIT) == 2 * 41_943_040 * 260 // 256
    assert optimizer_bytes([(16, 4096)], Optimizer.ADAFACTOR) == 4 * (16 + 4096)


def test_without_a_varlen_kernel_every_query_head_has_keys_of_its_own() -> None:
    """Llama 3 8B has 32 heads of 128, and 8 of keys and of values. In float32 no GPU has a varlen kernel."""

    def activations(masking: Masking | None) -> int:
        float32 = {"quantization": {"computeDtype": "float32"}}
        return estimated(4096, again=False, masking=masking, model=float32).activations

    assert activations(Masking.ROWS) - activations(Masking.VARLEN) == 32 * 4096 * 4 * 2 * (4096 - 1024)
    assert activations(None) == activations(Masking.ROWS)
    assert estimated(4096).activations == estimated(4096, masking=Masking.VARLEN).activations


def test_fused_norms_keep_their_inputs_in_half_precision() -> None:
    micro_batch = MicroBatchShape(tokens=4096, span=4096, gradient_checkpointing=False)
    apart, fused = (
        estimate(llama_3_8b(), TrainingSetup.of(recipe(), cuda=True, fused_norms=kind), micro_batch).activations
        for kind in (False, True)
    )
    assert apart - fused == 32 * 4096 * 2 * 4096 * 2


def test_a_mask_is_quadratic_and_borders_are_not() -> None:
    def activations(tokens: int, masking: Masking) -> int:
        return estimated(tokens, again=False, masking=masking).activations

    assert activations(8192, Masking.VARLEN) == 2 * activations(4096, Masking.VARLEN)
    # A copy of the mask in bfloat16 for each of the 32 layers: 4 GiB of 8,192 tokens.
    extra = activations(8192, Masking.DENSE) - activations(8192, Masking.VARLEN)
    assert extra > 32 * 2 * 8192**2
    assert activations(8192, Masking.EAGER) > activations(8192, Masking.DENSE) + 32 * 32 * 2 * 8192**2


def test_what_takes_more() -> None:
    plain = estimated(8192, again=False)
    assert estimated(8192, again=True).total < plain.total
    assert estimated(8192, again=False, lora={"dropout": "0.1"}).activations > plain.activations
    assert estimated(8192, again=False, lora={"variant": "dora"}).activations > plain.activations
    assert estimated(8192, again=False, lora={"rank": 64}).optimizer == 4 * plain.optimizer
    assert sum(plain.parts().values()) == plain.total


def test_a_divided_model_is_a_share_and_two_modules_for_a_moment() -> None:
    """Llama 3 8B in bfloat16: 416 MiB a layer; embeddings and head, 1002 MiB each, are the largest modules."""

    def model(processes: int, **sections: Any) -> float:
        machine = {"gpus": processes}
        sharded = {"quantization": {"type": "none"}, "sharding": "full"}
        return estimated(2048, machine=machine, model=sharded, **sections).model / 2**20

    whole = estimated(2048, model={"quantization": {"type": "none"}}).model / 2**20
    assert model(2) == pytest.approx(whole / 2 + 416 + 1002, rel=0.001)
    assert model(8) == pytest.approx(whole / 8 + 416 + 1002, rel=0.001)
    # A head that is trained stays whole.
    assert model(8, lora={"modulesToSave": ["lm_head"]}) == pytest.approx(model(8) + 1002 * 7 / 8, rel=0.001)
