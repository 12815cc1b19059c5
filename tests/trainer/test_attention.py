"""Varlen attention computes what SDPA computes with a block mask, and only where it can."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe import ModelSpec
from finetune_trainer.model import attention
from finetune_trainer.model.attention import (
    NAME,
    cu_seq_lens_arguments,
    is_varlen,
    register_varlen,
    repeat_heads,
    varlen_attention,
    varlen_kernel,
)
from finetune_trainer.model.load import load_base
from finetune_trainer.train.build_trainer import arrangement_of_rows
from finetune_trainer.train.isolation import Arrangement, rows_are_isolated
from finetune_trainer.train.micro_batches import packed_micro_batch
from trainer.running import LocalRun

pytestmark = pytest.mark.trainer
SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
WINDOW = 4
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": WINDOW},
    "qwen3": {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1, "head_dim": 8},
}
"""Model types: grouped query attention, a sliding window everywhere, one on every second layer."""


def _model(kind: str, **settings: Any) -> PreTrainedModel:
    register_varlen()
    torch.manual_seed(3)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SMALL, **settings}))
    return model


def _pack(lengths: list[int], *, varlen: bool) -> dict[str, Any]:
    ids = torch.split(torch.randint(1, 96, (sum(lengths),), generator=torch.Generator().manual_seed(5)), lengths)
    return packed_micro_batch(ids, ids, varlen=varlen)


def _logits_and_gradients(model: PreTrainedModel, inputs: dict[str, Any]) -> list[torch.Tensor]:
    model.zero_grad()
    logits = model(**{**inputs, "labels": None}, use_cache=False).logits
    (logits.float() ** 2).mean().backward()
    return [logits.detach(), *(part.grad.clone() for part in model.parameters() if part.grad is not None)]


@pytest.mark.parametrize("lengths", [[5, 1, 9, 3], [12], [2, 2], [1]], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_pack_is_computed_as_with_a_block_mask(kind: str, lengths: list[int]) -> None:
    model = _model(kind, **KINDS[kind])

    model.set_attn_implementation("sdpa")
    expected = _logits_and_gradients(model, _pack(lengths, varlen=False))
    model.set_attn_implementation(NAME)
    found = _logits_and_gradients(model, _pack(lengths, varlen=True))

    assert len(found) > len(SMALL)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_padded_rows_and_generation_are_sdpas(kind: str) -> None:
    model = _model(kind, **KINDS[kind]).eval()
    padded = {
        "input_ids": torch.tensor([[0, 0, 0, 7, 8, 9], [4, 5, 6, 7, 8, 9]]),
        "attention_mask": torch.tensor([[0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]]),
    }
    results = []
    for name in ("sdpa", NAME):
        model.set_attn_implementation(name)
        with torch.no_grad():
            written = model.generate(**padded, max_new_tokens=6, do_sample=False)
            results.append((model(**padded).logits[padded["attention_mask"] == 1], written))

    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_no_mask_is_made_for_a_pack() -> None:
    """The mask of a pack has tokens x tokens elements; the attention must get none."""
    model = _model("llama")
    masks: list[Any] = []
    layer = model.get_submodule("model.layers.0.self_attn")
    layer.register_forward_pre_hook(lambda _, __, named: masks.append(named["attention_mask"]), with_kwargs=True)

    for name in ("sdpa", NAME):
        model.set_attn_implementation(name)
        model(**_pack([5, 4], varlen=name == NAME), use_cache=False)

    assert masks[0].shape == (1, 1, 9, 9)
    assert masks[1] is None


def test_rows_are_isolated_only_with_their_borders(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model("llama")
    model.set_attn_implementation(NAME)
    assert rows_are_isolated(model, vocabulary=96)

    # A pack whose borders get lost on the way has neither borders nor a mask.
    monkeypatch.setattr("finetune_trainer.train.isolation.is_varlen", lambda _: False)
    assert not rows_are_isolated(model, vocabulary=96)


def test_auto_takes_sdpa_where_the_borders_get_lost(local_run: Callable[..., LocalRun], tiny_model: Path) -> None:
    recipe = local_run([]).recipe
    model = load_base(tiny_model, recipe.model, torch.float32)
    forward = model.forward

    def without_borders(*args: Any, cu_seq_lens_q: Any = None, **kwargs: Any) -> Any:
        del cu_seq_lens_q
        return forward(*args, **kwargs)

    assert arrangement_of_rows(recipe, model) is Arrangement.PACKED
    assert is_varlen(model)
    model.forward = without_borders

    assert arrangement_of_rows(recipe, model) is Arrangement.PACKED
    assert not is_varlen(model)
    assert model.config._attn_implementation == "sdpa"


CHOSEN = {
    "llama": NAME,
    "mistral": NAME,
    "gemma2": "eager",
    "gpt_oss": "eager",
    "bloom": "eager",
    "llama4_text": "sdpa",
}
"""What auto takes: soft-capped scores, sinks and ALiBi are eager's, layers that attend in chunks SDPA's."""


@pytest.mark.parametrize("kind", CHOSEN)
def test_architecture_decides(kind: str, tmp_path: Path) -> None:
    # float32 and no experts to speak of: what is looked at is the attention.
    small = {"num_local_experts": 2, "num_experts_per_tok": 1, "intermediate_size_mlp": 64, "head_dim": 8}
    size = {"hidden_size": 32} if kind == "bloom" else small
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SMALL, **size}))
    model.save_pretrained(tmp_path)

    def load(attention: str) -> Any:
        spec = {"uri": f"file://{tmp_path}", "attention": attention, "quantization": {"type": "none"}}
        return load_base(tmp_path, ModelSpec.model_validate(spec), torch.float32)

    assert load("auto").config._attn_implementation == CHOSEN[kind]
    if CHOSEN[kind] == NAME:
        assert load("varlen").config._attn_implementation == NAME
        return
    with pytest.raises(TrainerError, match=r"spec\.model\.attention: varlen: .*use auto") as caught:
        load("varlen")
    assert caught.value.reason is FailureReason.NOT_SUPPORTED


def test_dropout_is_not_forgotten() -> None:
    query = torch.randn(1, 4, 9, 8)
    rows = cu_seq_lens_arguments([5, 4], query.device)

    kept, _ = varlen_attention(torch.nn.Identity(), query, query, query, None, **rows)
    dropped, _ = varlen_attention(torch.nn.Identity(), query, query, query, None, dropout=0.5, **rows)

    assert not torch.allclose(kept, dropped)


@pytest.mark.parametrize("window", [None, WINDOW])
def test_the_gpus_kernel_is_called_as_torch_wants_it(window: int | None) -> None:
    """Without a GPU: torch checks names and shapes of the call on tensors that hold no numbers."""
    with FakeTensorMode():
        query, key = torch.empty(1, 4, 9, 64, dtype=torch.bfloat16), torch.empty(1, 2, 9, 64, dtype=torch.bfloat16)
        ends = torch.empty(3, dtype=torch.int32)
        found = varlen_kernel(query, key, key, ends, 5, None, window)

    assert found.shape == (1, 9, 4, 64)


def test_without_the_kernel_a_gpu_gets_no_grouped_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's memory-efficient kernel takes none: with them its quadratic one would run."""
    seen: list[tuple[int, int, bool]] = []

    def noting(q: torch.Tensor, k: torch.Tensor, *_: Any, enable_gqa: bool, **__: Any) -> torch.Tensor:
        seen.append((q.shape[1], k.shape[1], enable_gqa))
        return torch.empty_like(q)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", noting)
    with FakeTensorMode():
        query, key = (torch.empty(1, heads, 9, 64, dtype=torch.float16, device="cuda") for heads in (4, 2))
        found = attention._row_by_row(query, key, key, [0, 5, 9], 0.0, None, None)

    assert found.shape == (1, 9, 4, 64)
    assert seen == [(4, 4, False)] * 2


def test_repeated_heads_are_grouped_ones() -> None:
    torch.manual_seed(7)
    query, key, value = (torch.randn(1, heads, 6, 8, requires_grad=True) for heads in (6, 2, 2))
    weights = (key, value)
    attend = torch.nn.functional.scaled_dot_product_attention

    expected = attend(query, key, value, is_causal=True, enable_gqa=True)
    found = attend(query, repeat_heads(key, 6), repeat_heads(value, 6), is_causal=True)

    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found.square().sum(), weights), torch.autograd.grad(expected.square().sum(), weights)
    )


def test_cudnn_builds_no_graph_for_every_micro_batch(tiny_model: Path) -> None:
    backends: Any = torch.backends.cuda
    before = backends.cudnn_sdp_enabled()
    backends.enable_cudnn_sdp(enabled=True)
    try:
        load_base(tiny_model, ModelSpec(uri=f"file://{tiny_model}"), torch.float32)
        assert not backends.cudnn_sdp_enabled()
        assert backends.flash_sdp_enabled()
    finally:
        backends.enable_cudnn_sdp(before)
