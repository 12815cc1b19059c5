"""RMS norms by torch's own function give what the architectures' own give, and only plain ones are replaced."""

from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM

from finetune_trainer.model import fused_norms
from finetune_trainer.model.fused_norms import fuse_norms

pytestmark = pytest.mark.trainer
IDS = torch.tensor([[3, 9, 4, 7, 11, 2, 30], [5, 6, 7, 8, 9, 10, 11]])
SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
NORMS = {"llama": 5, "mistral": 5, "qwen2": 5, "qwen3": 9, "gemma2": 0, "gpt_neox": 0}
"""Number of plain RMS norms in a model of two layers. Gemma's add one to the weight, GPT-NeoX has another norm."""


def _model(kind: str) -> Any:
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL))
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(weight)
    return model


def _logits_and_gradients(model: Any) -> list[torch.Tensor]:
    model.zero_grad()
    logits = model(input_ids=IDS, use_cache=False).logits
    logits.square().mean().backward()
    return [logits.detach(), *(part.grad.clone() for part in model.parameters())]


@pytest.mark.parametrize("kind", NORMS)
def test_numbers_are_the_architectures_own(kind: str) -> None:
    model = _model(kind)
    expected = _logits_and_gradients(model)

    assert fuse_norms(model) == NORMS[kind]

    for one, other in zip(_logits_and_gradients(model), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_norm_that_needs_a_gate_is_left_alone() -> None:
    """Lara's fails without one."""
    config = AutoConfig.for_model(
        "lara_mini", **SMALL, linear_num_value_heads=4, linear_num_key_heads=2, linear_key_head_dim=16,
        linear_value_head_dim=16, layer_types=["linear_attention", "full_attention"],
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)

    fuse_norms(model)

    gated = model.get_submodule("model.layers.0.linear_attn.norm")
    hidden, gate = torch.randn(2, 16), torch.randn(2, 16)
    assert not torch.equal(gated(hidden, gate), gated(hidden, -gate))


@pytest.mark.parametrize(("x", "weight"), [(torch.bfloat16, torch.bfloat16), (torch.float32, torch.bfloat16)], ids=str)
def test_other_numbers_are_left_to_transformers(x: torch.dtype, weight: torch.dtype) -> None:
    """Half precision on a CPU, and types that differ, which torch's kernel does not take."""
    norm = _model("llama").model.norm.to(weight)
    hidden = torch.randn(2, 3, 32, dtype=x)
    expected = norm(hidden)

    assert fuse_norms(norm) == 1

    assert torch.equal(norm(hidden), expected)


def test_a_hook_that_moves_the_input_stays_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """accelerate has put it there when layers are spread over GPUs."""
    norm = _model("llama").model.norm
    dispatch_model(norm, {"": "cpu"}, main_device="cpu", force_hooks=True)
    hooked, hidden = norm.forward, torch.randn(2, 3, 32)
    expected: torch.Tensor = norm(hidden)

    assert fuse_norms(norm) == 1

    seen: list[torch.Size] = []

    def noting(x: torch.Tensor, *_: Any) -> torch.Tensor:
        seen.append(x.shape)
        return expected

    monkeypatch.setattr(fused_norms, "rms_norm", noting)
    assert torch.equal(norm(hidden), expected)
    assert norm.forward is hooked
    assert seen == [hidden.shape]


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operations that compute."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not str(func).startswith(("prim.", "aten.detach")):
            self.names.append(str(func))
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_on_a_gpu_it_is_one_kernel(dtype: torch.dtype) -> None:
    """On tensors that hold no numbers, torch chooses the operations as on a GPU."""
    norm = _model("llama").model.norm.to(dtype)
    fuse_norms(norm)

    with FakeTensorMode():
        norm.weight = torch.nn.Parameter(torch.empty(32, dtype=dtype, device="cuda"), requires_grad=False)
        hidden = torch.empty(2, 3, 32, dtype=dtype, device="cuda", requires_grad=True)
        with _Operations() as operations:
            found = norm(hidden)

    assert found.dtype == dtype
    assert operations.names == ["aten._fused_rms_norm.default"]


def test_a_norm_under_autocast_answers_in_half_precision_on_a_gpu() -> None:
    """Autocast for CUDA computes torch's function in float32, and all layers after it would get float32."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    before = torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        with FakeTensorMode():
            norm = LlamaRMSNorm(8)
            norm.weight = torch.nn.Parameter(torch.empty(8, device="cuda", dtype=torch.bfloat16), requires_grad=False)
            hidden = torch.empty(2, 8, device="cuda", dtype=torch.bfloat16)
            fused_norms._fuse(norm, norm.variance_epsilon)
            assert norm(hidden).dtype is torch.bfloat16
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_dtype("cuda", before)
