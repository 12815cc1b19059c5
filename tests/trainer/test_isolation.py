"""The probe tells rows that influence each other from rows that are rounded differently; steps are divided by it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_trainer.contract.recipe import ModelSpec
from finetune_trainer.model.load import load_base
from finetune_trainer.model.position_scaling import longest_row_of_short_kind
from finetune_trainer.train.build_trainer import arrangement_of_rows
from finetune_trainer.train.isolation import Arrangement, rows_are_isolated
from finetune_trainer.train.micro_batches import MicroBatches, collate_rows
from trainer.running import LocalRun
from trainer.tiny_model import VOCABULARY

pytestmark = pytest.mark.trainer
BOTH = [Arrangement.PACKED, Arrangement.PADDED]


def _base(folder: Path) -> Any:
    spec = ModelSpec.model_validate({"uri": f"file://{folder}", "quantization": {"type": "none"}})
    return load_base(folder, spec, torch.float32)


def _with_mlp(folder: Path, change: Callable[[Any, torch.Tensor], torch.Tensor]) -> Any:
    """The tiny model, whose first feed-forward layer is changed."""
    model = _base(folder)
    mlp = model.model.layers[0].mlp
    inner = mlp.forward
    mlp.forward = lambda states: change(inner, states)
    return model


def rounded_by_size(inner: Any, states: torch.Tensor) -> torch.Tensor:
    """Adds in another order when there are more tokens, as kernels for products do."""
    if states.shape[1] <= 8:
        return inner(states)  # type: ignore[no-any-return]
    one_ulp = 1 + torch.finfo(torch.float32).eps * (torch.arange(states.shape[-1]) % 3 - 1)
    return inner(states * one_ulp)  # type: ignore[no-any-return]


def with_capacity(inner: Any, states: torch.Tensor) -> torch.Tensor:
    """Two experts by the first feature's sign. Each takes 60 % of the tokens, the first ones; others pass it by."""
    flat = states.flatten(0, 1)
    chosen = (flat[:, 0] > 0).long()
    place = torch.nn.functional.one_hot(chosen, 2).cumsum(0).gather(1, chosen[:, None])[:, 0]
    taken = place <= max(6, int(0.6 * len(flat)))
    return (inner(flat) * taken[:, None]).view_as(states)  # type: ignore[no-any-return]


def with_batch_statistics(inner: Any, states: torch.Tensor) -> torch.Tensor:
    """Balances by the mean over all tokens, a little."""
    return inner(states - 0.01 * states.mean(dim=(0, 1)))  # type: ignore[no-any-return]


def with_convolution(inner: Any, states: torch.Tensor) -> torch.Tensor:
    """Sees the token before, whatever row it is in."""
    return inner(states + 0.3 * states.roll(1, dims=1) * (torch.arange(states.shape[1]) > 0)[:, None])  # type: ignore[no-any-return]


@pytest.mark.parametrize("arrangement", BOTH)
def test_rounding_is_no_influence(arrangement: Arrangement, tiny_model: Path) -> None:
    model = _with_mlp(tiny_model, rounded_by_size)
    ids = torch.arange(3, 15)[None]

    assert not torch.equal(model(ids).logits[:, :6], model(ids[:, :6]).logits)
    assert rows_are_isolated(model, VOCABULARY, arrangement)


@pytest.mark.parametrize("arrangement", BOTH)
def test_rounding_to_half_precision_is_no_influence(arrangement: Arrangement, tiny_model: Path) -> None:
    model = _with_mlp(tiny_model, with_convolution).to(torch.bfloat16)

    assert rows_are_isolated(_base(tiny_model).to(torch.bfloat16), VOCABULARY, arrangement)
    assert rows_are_isolated(model, VOCABULARY, arrangement) is (arrangement is Arrangement.PADDED)


@pytest.mark.parametrize("arrangement", BOTH)
@pytest.mark.parametrize("change", [with_capacity, with_batch_statistics])
def test_neighbours_that_compete_for_experts_are_seen(
    change: Callable[[Any, torch.Tensor], torch.Tensor], arrangement: Arrangement, tiny_model: Path
) -> None:
    assert not rows_are_isolated(_with_mlp(tiny_model, change), VOCABULARY, arrangement)


def test_state_that_crosses_a_border_is_seen_and_padding_helps(tiny_model: Path) -> None:
    model = _with_mlp(tiny_model, with_convolution)

    assert not rows_are_isolated(model, VOCABULARY, Arrangement.PACKED)
    assert rows_are_isolated(model, VOCABULARY, Arrangement.PADDED)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (rounded_by_size, Arrangement.PACKED),
        (with_convolution, Arrangement.PADDED),
        (with_capacity, Arrangement.ALONE),
    ],
)
def test_rows_share_what_leaves_them_alone(
    change: Callable[[Any, torch.Tensor], torch.Tensor],
    expected: Arrangement,
    local_run: Callable[..., LocalRun],
    tiny_model: Path,
) -> None:
    assert arrangement_of_rows(local_run([]).recipe, _with_mlp(tiny_model, change)) is expected


@pytest.mark.parametrize("packed", [True, False])
def test_rows_of_another_position_scaling_stay_apart(packed: bool) -> None:
    rows = [{"input_ids": [1] * length, "labels": [1] * length} for length in (3, 9, 4, 8, 2)]
    split = MicroBatches(packed=packed, max_tokens=64, max_rows=8, pad_id=0, never_mixed_above=4)

    lengths = [
        (part["position_ids"] == 0).sum().item() if packed else len(part["input_ids"])
        for part in split.split(collate_rows(rows))
    ]
    widths = [part["input_ids"].shape[1] for part in split.split(collate_rows(rows))]

    assert lengths == [3, 2]
    assert widths == ([9, 17] if packed else [4, 9])


def test_longrope_has_two_kinds_of_rows() -> None:
    from transformers import LlamaConfig, Phi3Config

    factors = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    rope: dict[str, Any] = {"rope_type": "longrope", "rope_theta": 1e4, **factors}
    sizes: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 4, "pad_token_id": 0}
    config = Phi3Config(**sizes, original_max_position_embeddings=16, rope_parameters=rope)

    assert longest_row_of_short_kind(config.to_dict()) == 16
    assert longest_row_of_short_kind(LlamaConfig().to_dict()) is None
