"""The sizes of a model from its config.json and the names of its tensors."""

from math import prod

import pytest

from finetune_trainer.memory.shape import model_shape, tensors_of_llama
from unit.memory.published import LLAMA_3_2_1B, LLAMA_3_2_1B_BYTES, LLAMA_3_8B, LLAMA_3_8B_BYTES


def test_the_tensors_of_a_published_model_by_config_and_size() -> None:
    tensors = tensors_of_llama(LLAMA_3_8B, LLAMA_3_8B_BYTES)
    assert tensors is not None
    assert sum(map(prod, tensors.values())) == 8_030_261_248
    shape = model_shape(LLAMA_3_8B, tensors)
    assert shape is not None
    assert (shape.layers, shape.hidden, shape.attention, shape.keys) == (32, 4096, 4096, 1024)
    assert sum(weight.size for weight in shape.linears) == 6_979_321_856
    assert shape.largest_linear == 4096 * 14336


def test_a_tied_head_is_found_by_the_size() -> None:
    tensors = tensors_of_llama(LLAMA_3_2_1B, LLAMA_3_2_1B_BYTES)
    assert tensors is not None
    assert "lm_head.weight" not in tensors
    assert sum(map(prod, tensors.values())) == 1_235_814_400


def test_a_head_that_is_stored_though_it_is_tied_counts_once() -> None:
    tensors = {"model.embed_tokens.weight": (128256, 2048), "lm_head.weight": (128256, 2048)}
    shape = model_shape(LLAMA_3_2_1B, tensors)
    assert shape is not None
    assert [weight.module for weight in shape.others] == ["model.embed_tokens"]


@pytest.mark.parametrize("size", [LLAMA_3_8B_BYTES // 2, LLAMA_3_8B_BYTES * 2])
def test_another_size_is_another_model(size: int) -> None:
    assert tensors_of_llama(LLAMA_3_8B, size) is None


def test_experts_and_routers_are_never_quantised() -> None:
    config = {**LLAMA_3_8B, "num_local_experts": 8, "num_experts_per_tok": 2}
    tensors = {
        "model.layers.0.self_attn.q_proj.weight": (4096, 4096),
        "model.layers.0.self_attn.q_proj.bias": (4096,),
        "model.layers.0.block_sparse_moe.gate.weight": (8, 4096),
        "model.layers.0.block_sparse_moe.experts.0.w1.weight": (14336, 4096),
    }
    shape = model_shape(config, tensors)
    assert shape is not None
    assert [weight.module for weight in shape.linears] == ["model.layers.0.self_attn.q_proj"]
    assert shape.intermediate == 2 * 14336


def test_gpt2_names_its_sizes_otherwise() -> None:
    config = {"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257, "n_positions": 1024}
    shape = model_shape(config, {"h.0.attn.c_attn.weight": (768, 2304), "wte.weight": (50257, 768)})
    assert shape is not None
    assert (shape.intermediate, shape.positions, len(shape.linears)) == (3072, 1024, 1)


def test_a_config_without_sizes_gives_none() -> None:
    assert model_shape({"model_type": "llama"}, {}) is None
    assert tensors_of_llama({"model_type": "llama"}, 100) is None
