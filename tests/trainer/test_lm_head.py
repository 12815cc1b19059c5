"""The loss head: TRL's and torch's numbers, trained tokens only, and never the logits of a whole pass."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from finetune_trainer.memory import head_tile
from finetune_trainer.memory.head_tile import HeadTile
from finetune_trainer.model.load import load_base
from finetune_trainer.train.build_trainer import build_trainer
from finetune_trainer.train.lm_head import (
    FrozenHeadLogProbs,
    is_plain_lm_head,
    trained_token_positions,
    use_frozen_lm_head,
)
from finetune_trainer.train.micro_batches import IGNORED, collate_rows
from finetune_trainer.train.trainer import StepTrainer
from trainer.running import LocalRun

pytestmark = pytest.mark.trainer
IDS = torch.tensor([[3, 9, 4, 7, 11, 2, 30], [5, 6, 7, 8, 9, 10, 11]])
LABELS = torch.tensor([[IGNORED, IGNORED, 4, 7, 11, 2, 30], [IGNORED] * 6 + [11]])
SMALL: dict[str, Any] = {
    "vocab_size": 4096,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}


def _model(kind: str = "llama", **settings: Any) -> Any:
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL, **settings))
    model.get_output_embeddings().requires_grad_(False)
    return model


def _loss_and_gradient(model: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    out = model(input_ids=IDS, labels=LABELS, use_cache=False, fused_lm_head=True)
    # Not every token weighs the same, so that each one's own gradient is seen.
    loss = -(out.log_probs * torch.arange(1, 13).view(2, 6)).sum()
    (gradient,) = torch.autograd.grad(loss, model.get_submodule("model.layers.0.mlp.up_proj").weight)
    return out.log_probs.detach(), out.label_mask, gradient


def test_numbers_are_trls() -> None:
    model = _model()
    add_fused_lm_head(model)
    expected = _loss_and_gradient(model)
    use_frozen_lm_head(model)
    found = _loss_and_gradient(model)

    assert torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[2], expected[2])


@pytest.mark.parametrize("tile", [HeadTile(1, 1), HeadTile(2, 7), HeadTile(3, 40), HeadTile(10, 10**6)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_numbers_are_those_of_whole_logits(bias: bool, tile: HeadTile) -> None:
    torch.manual_seed(2)
    lm_head, ids = torch.nn.Linear(8, 40, bias=bias, dtype=torch.float64), torch.tensor([0, 39, 7, 7, 1])
    lm_head = lm_head.to(torch.float32).requires_grad_(False)
    hidden = torch.randn(5, 8, requires_grad=True)

    with torch.no_grad():
        # Higher and higher, lower and lower, and far apart: the sums of the words so far fade, or what follows does.
        lm_head.weight *= torch.linspace(-30, 30, 40)[:, None]

    found = FrozenHeadLogProbs.apply(hidden, lm_head.weight, lm_head.bias, ids, tile)
    expected = torch.log_softmax(lm_head(hidden), -1).gather(1, ids[:, None])[:, 0]
    torch.testing.assert_close(found, expected)
    weights = torch.tensor([1.0, -2.0, 3.0, 0.0, 5.0])
    torch.testing.assert_close(
        torch.autograd.grad((found * weights).sum(), hidden), torch.autograd.grad((expected * weights).sum(), hidden)
    )


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts products of matrices."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
        return func(*args, **kwargs or {})


def test_without_a_backward_pass_a_tile_takes_one_product() -> None:
    """What measures a model needs no gradient; the numbers are the same."""
    hidden, weight, ids, tile = torch.randn(7, 8), torch.randn(11, 8), torch.arange(7), HeadTile(4, 6)

    with _Products() as validation_losses:  # type: ignore[no-untyped-call]
        found = FrozenHeadLogProbs.apply(hidden, weight, None, ids, tile)
    with _Products() as trained:  # type: ignore[no-untyped-call]
        expected = FrozenHeadLogProbs.apply(hidden.clone().requires_grad_(), weight, None, ids, tile)

    assert torch.equal(found, expected)
    assert (validation_losses.count, trained.count) == (4, 8)


def test_a_pass_without_a_trained_token_has_no_gradient_and_no_error() -> None:
    model = _model()
    add_fused_lm_head(model)
    use_frozen_lm_head(model)

    out = model(input_ids=IDS, labels=torch.full_like(IDS, IGNORED), use_cache=False, fused_lm_head=True)
    out.log_probs.sum().backward()

    assert out.log_probs.sum() == 0
    assert not model.get_submodule("model.layers.0.mlp.up_proj").weight.grad.any()


PLAIN: dict[str, tuple[dict[str, Any], bool]] = {
    "llama": ({}, True),
    "gemma2": ({"final_logit_softcapping": 30.0, "head_dim": 8}, False),
    "granite": ({"logits_scaling": 8.0}, False),
    "cohere": ({"logit_scale": 0.0625}, False),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_models_that_change_their_logits_keep_trls_head(kind: str) -> None:
    settings, plain = PLAIN[kind]
    model = _model(kind, **settings)
    add_fused_lm_head(model)
    before = model.forward

    use_frozen_lm_head(model)

    assert is_plain_lm_head(model) is plain
    assert (model.forward is before) is not plain


def test_a_trained_head_is_trls() -> None:
    model = _model()
    model.get_output_embeddings().requires_grad_(True)

    assert not is_plain_lm_head(model)


def test_nothing_waits_for_the_number_of_trained_tokens() -> None:
    """On tensors without numbers, whatever a GPU would have to be waited for is an error."""
    model = _model()
    add_fused_lm_head(model)
    use_frozen_lm_head(model)
    positions = trained_token_positions(LABELS)
    assert positions.tolist() == [1, 2, 3, 4, 5, 12]

    with FakeTensorMode(allow_non_fake_inputs=True) as without_numbers:
        ids, labels, known = map(without_numbers.from_tensor, (IDS, LABELS, positions))
        inputs = {"input_ids": ids, "labels": labels, "use_cache": False, "fused_lm_head": True}
        out = model(**inputs, trained_positions=known)
        out.log_probs.sum().backward()
        with pytest.raises(DynamicOutputShapeException):
            model(**inputs)

    assert out.log_probs.shape == (2, 6)


def test_a_step_is_divided_on_the_host(local_run: Callable[..., LocalRun], tiny_model: Any, tokenizer: Any,
                                       tmp_path: Any) -> None:  # fmt: skip
    """The loader moves nothing; the micro-batch that is moved has the places of its trained tokens."""
    run = local_run([])
    model = load_base(tiny_model, run.recipe.model, torch.float32)
    rows = [{"input_ids": list(range(9)), "labels": [IGNORED] * 4 + list(range(4, 9))}] * 8
    trainer = build_trainer(run.recipe, model, tokenizer, Dataset.from_list(rows), torch.float32, tmp_path, [])

    loader = trainer.get_train_dataloader()
    (micro_batch,) = trainer.local_micro_batches(next(iter(loader)))

    assert loader.device is None
    expected = [9 * row + place for row in range(8) for place in range(3, 8)]
    assert trainer._prepare_inputs(micro_batch)["trained_positions"].tolist() == expected


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for part in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(part, torch.Tensor):
                self.elements = max(self.elements, part.numel())
        return made


@pytest.mark.parametrize("packing", ["enabled", "disabled"])
def test_logits_are_never_whole(packing: str, local_run: Callable[..., LocalRun], tiny_model: Any, tokenizer: Any,
                                tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """In a step of the trainer, packed or padded, no tensor comes near tokens x vocabulary."""
    run = local_run([], dataset={"packing": packing}, model={"quantization": {"type": "none"}})
    model = load_base(tiny_model, run.recipe.model, torch.float32)
    rows = [{"input_ids": list(range(300)), "labels": list(range(300))}] * 2
    data = Dataset.from_list(rows)
    trainer = build_trainer(run.recipe, model, tokenizer, data, torch.float32, tmp_path, [])
    assert isinstance(trainer, StepTrainer)
    monkeypatch.setattr(head_tile, "_CPU_LOGITS", 2**14)

    with Largest() as seen:  # type: ignore[no-untyped-call]
        trainer.training_step(trainer.model, collate_rows(rows))

    # Passes of one row; the widest of what else there is are the network's inner layers, 128 wide.
    assert 300 * 128 <= seen.elements < 299 * 352 // 2
