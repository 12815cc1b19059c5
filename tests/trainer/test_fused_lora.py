"""An adapter that is added within its second product gives what PEFT gives, for every kind of frozen layer."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from peft.tuners.lora.layer import LoraLayer
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, LlamaConfig

from finetune_trainer.contract.recipe import ModelSpec
from finetune_trainer.model import fused_lora
from finetune_trainer.model.adapter import keep_in_float32, lora_config
from finetune_trainer.model.fused_lora import AddLora, fuse_lora
from finetune_trainer.model.load import load_base
from trainer.running import recipe_of

pytestmark = pytest.mark.trainer
IDS = torch.arange(3, 43).reshape(2, 20)
BFLOAT16 = torch.bfloat16


@pytest.fixture(scope="session")
def biased_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with biases in its attention, whose plain linear layers return views."""
    folder = tmp_path_factory.mktemp("biased")
    config = LlamaConfig.from_pretrained(tiny_model)
    config.attention_bias = True
    torch.manual_seed(2)
    model = AutoModelForCausalLM.from_config(config)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight)
    model.save_pretrained(folder)
    return folder


def _model(folder: Path, quantization: str, dtype: torch.dtype, **lora: Any) -> Any:
    spec = ModelSpec.model_validate({"uri": f"file://{folder}", "quantization": {"type": quantization}})
    base = load_base(folder, spec, dtype)
    torch.manual_seed(0)
    model = get_peft_model(base, lora_config(recipe_of(folder, folder, folder, lora=lora).lora, base))
    keep_in_float32(model)
    # As the trainer does, so that the first layer's input has a gradient too.
    model.enable_input_require_grads()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model


def _loss_and_gradients(model: Any, dtype: torch.dtype) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    model.zero_grad()
    with torch.autocast("cpu", dtype) if dtype is not torch.float32 else nullcontext():
        loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
    loss.backward()
    return loss.detach(), {
        name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None
    }


@contextmanager
def _counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.dtype]]:
    """Grows by the number type of every sum that is fused."""
    seen, real = list[torch.dtype](), AddLora.apply

    def noting(y: torch.Tensor, *rest: Any) -> Any:
        seen.append(y.dtype)
        return real(y, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(fused_lora.AddLora, "apply", noting)
        yield seen


CASES: tuple[tuple[str, torch.dtype, dict[str, Any]], ...] = (
    ("nf4", torch.float32, {}),
    ("nf4", BFLOAT16, {}),
    ("nf4", BFLOAT16, {"dropout": "0.3"}),
    ("fp4", BFLOAT16, {"bias": "all"}),
    ("int8", torch.float32, {"variant": "rslora", "alpha": 3}),
    ("none", torch.float32, {"dropout": "0.3", "bias": "all"}),
    ("none", BFLOAT16, {}),
)


@pytest.mark.parametrize(("quantization", "dtype", "lora"), CASES, ids=str)
def test_loss_and_gradients_are_pefts(
    quantization: str, dtype: torch.dtype, lora: dict[str, Any], biased_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _model(biased_model, quantization, dtype, **lora)
    model.train()
    expected, gradients = _loss_and_gradients(model, dtype)

    fuse_lora(model)
    with _counted(monkeypatch) as sums:
        found, fused_gradients = _loss_and_gradients(model, dtype)

    assert sums == [dtype] * sum(isinstance(part, LoraLayer) for part in model.modules())
    exact = dtype is torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-5 if exact else 5e-3, atol=0)
    assert fused_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        difference = (fused_gradients[name] - gradient).float().norm() / gradient.float().norm()
        # Rounding to eight bits, of every number or of int8's activations, lets some numbers differ in the last bit.
        assert difference < (1e-5 if exact and quantization != "int8" else 0.1), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, BFLOAT16, torch.float64], ids=str)
@pytest.mark.parametrize("view", [False, True], ids=["own memory", "view"])
def test_the_sum_and_its_gradients_are_those_of_separate_products(dtype: torch.dtype, view: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    x, a, b = (
        torch.randn(*size, generator=generator, dtype=torch.float64).to(kind).requires_grad_()
        for size, kind in (((2, 5, 12), dtype), ((3, 12), torch.float32), ((7, 3), torch.float32))
    )
    weight = torch.randn(7, 12, generator=generator, dtype=torch.float64).to(dtype)
    outer = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64).to(dtype)

    def layer() -> torch.Tensor:
        product = x @ weight.t()
        return product.view(10, 7).view(2, 5, 7) if view else product

    expected = layer().double() + 1.5 * (x.double() @ a.double().t() @ b.double().t())
    found = AddLora.apply(layer(), x, a, b, 1.5)

    coarse = {torch.float32: 1e-5, torch.float16: 1e-2, BFLOAT16: 6e-2, torch.float64: 1e-5}[dtype]
    torch.testing.assert_close(found.double(), expected, rtol=coarse, atol=coarse)
    wanted = torch.autograd.grad(expected, (x, a, b), outer.double())
    for one, other in zip(torch.autograd.grad(found, (x, a, b), outer), wanted, strict=True):
        assert one.dtype == other.dtype
        assert (one - other).double().norm() < coarse * other.double().norm()


class _Passes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations that copy, scale or add a layer's whole output."""

    def __init__(self, width: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count, self._width = 0, width

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **kwargs or {})
        passes = ("aten.clone", "aten.mul", "aten.add.", "aten._to_copy")
        if str(func).startswith(passes) and made.shape[-1] == self._width:
            self.count += 1
        return made


def test_no_pass_over_the_output_is_left(tiny_model: Path) -> None:
    model = _model(tiny_model, "nf4", torch.float32)
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    x = torch.randn(2, 9, layer.in_features)

    counts = []
    for fused in (False, True):
        if fused:
            fuse_lora(model)
        with _Passes(layer.out_features) as passes:
            layer(x).sum().backward()
        counts.append(passes.count)

    assert counts == [4, 0]


def test_activation_checkpointing_changes_no_bit(tiny_model: Path) -> None:
    model = _model(tiny_model, "nf4", torch.float32)
    model.train()
    fuse_lora(model)
    loss, gradients = _loss_and_gradients(model, torch.float32)

    model.gradient_checkpointing_enable({"use_reentrant": False})
    same_loss, same = _loss_and_gradients(model, torch.float32)

    assert torch.equal(loss, same_loss)
    assert all(torch.equal(same[name], gradient) for name, gradient in gradients.items())


@pytest.mark.parametrize("kind", ["dora", "disabled", "another type"])
def test_what_is_not_plain_lora_is_left_to_peft(kind: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dtype = BFLOAT16 if kind == "another type" else torch.float32
    model = _model(tiny_model, "nf4", dtype, **({"variant": "dora"} if kind == "dora" else {}))

    def logits() -> torch.Tensor:
        # Without autocast, as when text is generated: PEFT computes the term of a bfloat16 model in float32.
        with torch.no_grad(), model.disable_adapter() if kind == "disabled" else nullcontext():
            found: torch.Tensor = model(input_ids=IDS).logits
            return found

    expected = logits()
    fuse_lora(model)
    with _counted(monkeypatch) as sums:
        found = logits()

    assert sums == []
    assert torch.equal(found, expected)
