"""What the trainer computes on a GPU, beside the same in float32."""

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch

LENGTHS = [1, 700, 37, 512]


def _relative(found: Any, expected: Any) -> float:
    """Length of the difference over the length of what is expected."""
    return float((found.detach().float() - expected.detach().float()).norm() / expected.detach().float().norm())


@pytest.mark.parametrize(
    ("size", "heads", "keys", "window"),
    [(64, 9, 3, None), (128, 32, 8, None), (128, 32, 8, 256), (96, 32, 32, None), (256, 8, 4, None)],
)
def test_varlen_attention(size: int, heads: int, keys: int, window: int | None, device: "torch.device") -> None:
    import torch

    from finetune_trainer.model import attention

    torch.manual_seed(1)
    attention.avoid_cudnn_attention()

    def made(count: int) -> torch.Tensor:
        part = torch.randn(1, sum(LENGTHS), count, size, device=device, dtype=torch.bfloat16)
        return part.transpose(1, 2).requires_grad_()

    borders = attention.cu_seq_lens_arguments(LENGTHS, device)

    def attended(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        layer = torch.nn.Identity()
        output, _ = attention.varlen_attention(layer, query, key, value, None, sliding_window=window, **borders)
        return output

    inputs = (made(heads), made(keys), made(keys))
    found = attended(*inputs)
    query, key, value = (part.detach().float().requires_grad_() for part in inputs)
    exact = (query, key, value)
    expected = attended(*exact)

    outer = torch.randn_like(found)
    gradients = torch.autograd.grad(found, inputs, outer), torch.autograd.grad(expected, exact, outer.float())
    assert _relative(found, expected) < 0.01
    assert max(_relative(*pair) for pair in zip(*gradients, strict=True)) < 0.02


def test_without_the_kernel_attention_takes_no_memory_that_is_quadratic(gpu: "torch.device") -> None:
    """In float32, with grouped heads, as on a T4. The scores of one row would be 32 GiB."""
    import torch

    from finetune_trainer.model import attention

    tokens = 16384
    query, key, value = (torch.randn(1, heads, tokens, 64, device=gpu, requires_grad=True) for heads in (32, 8, 8))
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    found, _ = attention.varlen_attention(
        torch.nn.Identity(), query, key, value, None, **attention.cu_seq_lens_arguments([tokens], gpu)
    )
    torch.autograd.backward(found.sum())

    assert torch.cuda.max_memory_allocated() - before < 40 * query.numel()


@pytest.mark.parametrize(("width", "vocabulary"), [(4096, 128_256), (896, 151_936), (64, 1000)])
def test_log_probabilities(width: int, vocabulary: int, device: "torch.device") -> None:
    import torch

    from finetune_trainer.memory.head_tile import HeadTile
    from finetune_trainer.train.lm_head import FrozenHeadLogProbs

    if device.type == "cpu" and vocabulary > 1000:
        pytest.skip("too large for a CPU")
    torch.manual_seed(1)
    tile = HeadTile.of(vocabulary, cuda=device.type == "cuda")
    tokens = min(2 * tile.tokens + 5, 1100)
    weight = torch.randn(vocabulary, width, device=device, dtype=torch.bfloat16) / width**0.5
    hidden = torch.randn(tokens, width, device=device, dtype=torch.bfloat16, requires_grad=True)
    ids = torch.randint(vocabulary, (tokens,), device=device)

    found = FrozenHeadLogProbs.apply(hidden, weight, None, ids, tile)
    exact = hidden.detach().float().requires_grad_()
    expected = torch.log_softmax(exact @ weight.float().t(), -1).gather(1, ids[:, None])[:, 0]

    assert _relative(found, expected) < 0.005
    gradients = (torch.autograd.grad(o.sum(), i)[0] for o, i in ((found, hidden), (expected, exact)))
    assert _relative(*gradients) < 0.01


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("quantization", ["nf4", "int8", "none"])
def test_fused_lora(quantization: str, dtype: str, tiny_model: Any, device: "torch.device") -> None:
    import torch
    from peft import get_peft_model

    from finetune_trainer.contract.recipe import ModelSpec
    from finetune_trainer.model.adapter import keep_in_float32, lora_config
    from finetune_trainer.model.fused_lora import fuse_lora
    from finetune_trainer.model.load import load_base
    from trainer.running import recipe_of

    if device.type == "cpu" and (quantization, dtype) == ("int8", "float16"):
        pytest.skip("on a CPU bitsandbytes changes its float16 input in place, which autograd refuses")
    kind = getattr(torch, dtype)
    spec = ModelSpec.model_validate({"uri": f"file://{tiny_model}", "quantization": {"type": quantization}})
    base = load_base(tiny_model, spec, kind)
    model = get_peft_model(base, lora_config(recipe_of(tiny_model, tiny_model, tiny_model).lora, base))
    keep_in_float32(model)
    model.enable_input_require_grads()
    torch.manual_seed(1)
    for name, part in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(part, std=0.1)
    ids = torch.arange(3, 43, device=device).reshape(2, 20)

    def loss_and_gradients() -> tuple[Any, dict[str, Any]]:
        model.zero_grad()
        with torch.autocast(device.type, kind, enabled=kind is not torch.float32):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        return loss, {name: part.grad.clone() for name, part in model.named_parameters() if part.grad is not None}

    expected, gradients = loss_and_gradients()
    fuse_lora(model)
    found, fused = loss_and_gradients()

    coarse = dtype != "float32" or quantization == "int8"
    assert _relative(found, expected) < (5e-3 if coarse else 1e-4)
    assert max(_relative(fused[name], gradient) for name, gradient in gradients.items()) < (0.1 if coarse else 1e-3)
