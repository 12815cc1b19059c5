"""NEFTune's noise: its size by each row's own length, the same however a step is divided, none where none belongs."""

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from finetune_trainer.model.load import load_base
from finetune_trainer.train.micro_batches import MicroBatches, collate_rows
from finetune_trainer.train.neftune import Neftune
from trainer.running import recipe_of

pytestmark = pytest.mark.trainer

LENGTHS = [40, 5, 18, 9]
ALPHA = 5.0
HIDDEN = 64


def _step() -> dict[str, torch.Tensor]:
    rows = [[(7 * row + 3 * place) % 300 for place in range(length)] for row, length in enumerate(LENGTHS)]
    return collate_rows([{"input_ids": ids, "labels": ids} for ids in rows])


class Noisy:
    """The tiny model with the noise hooked in; what its embeddings add is measured."""

    def __init__(self, base: Path, *, seed: int = 1) -> None:
        recipe = recipe_of(base, Path("/data"), Path("/output"))
        self.model = load_base(base, recipe.model, torch.float32).train()
        self.noise = Neftune(ALPHA, seed)
        self.noise.on_train_begin(None, None, None, model=self.model)

    def at(self, step: int, micro_batches: MicroBatches) -> list[torch.Tensor]:
        """The noise of every row, of shape (tokens, hidden), in the order of the rows' lengths."""
        self.noise.on_step_begin(None, SimpleNamespace(global_step=step), None)
        found: list[torch.Tensor] = []
        embeddings = self.model.get_input_embeddings()

        def measure(_: Any, arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            added = output - torch.nn.functional.embedding(arguments[0], embeddings.weight)
            found.extend(self._rows(added, inputs))

        handle = embeddings.register_forward_hook(measure)
        for part in micro_batches.split(_step()):
            inputs = {key: value for key, value in part.items() if key != "labels"}
            with torch.no_grad():
                self.model(**inputs, use_cache=False)
        handle.remove()
        return sorted(found, key=len)

    @staticmethod
    def _rows(added: torch.Tensor, inputs: dict[str, torch.Tensor]) -> Sequence[torch.Tensor]:
        if "attention_mask" in inputs:
            mask = inputs["attention_mask"].bool()
            assert not added[~mask].any(), "padding is left alone"
            return [row[kept] for row, kept in zip(added, mask, strict=True)]
        begins = (inputs["position_ids"][0] == 0).nonzero().flatten().tolist()
        return [added[0, a:b] for a, b in zip(begins, [*begins[1:], added.size(1)], strict=True)]


PACKED = MicroBatches(packed=True, max_tokens=1000, max_rows=8, pad_id=0)
IN_TWO = MicroBatches(packed=True, max_tokens=48, max_rows=8, pad_id=0)
PADDED = MicroBatches(packed=False, max_tokens=1000, max_rows=2, pad_id=0)


@pytest.mark.parametrize("micro_batches", [PACKED, PADDED], ids=["packed", "padded"])
def test_size_goes_by_the_rows_own_length(micro_batches: MicroBatches, tiny_model: Path) -> None:
    for row in Noisy(tiny_model).at(0, micro_batches):
        bound = ALPHA / math.sqrt(len(row) * HIDDEN)
        assert row.abs().max() <= bound * 1.001
        assert row.abs().max() > bound * 0.95
        assert float(row.std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_noise_is_the_same_however_the_step_is_divided(tiny_model: Path) -> None:
    noisy = Noisy(tiny_model)
    whole = noisy.at(3, PACKED)

    for micro_batches in (IN_TWO, PADDED):
        for one, other in zip(whole, noisy.at(3, micro_batches), strict=True):
            torch.testing.assert_close(one, other)


def test_noise_is_another_for_each_step_seed_and_row(tiny_model: Path) -> None:
    noisy = Noisy(tiny_model)
    drawn = [noisy.at(0, PACKED), noisy.at(1, PACKED), Noisy(tiny_model, seed=2).at(0, PACKED)]

    shortest = min(LENGTHS)
    beginnings = [row[:shortest] * math.sqrt(len(row)) for rows in drawn for row in rows]
    for index, one in enumerate(beginnings):
        assert not any(torch.allclose(one, other, atol=1e-2) for other in beginnings[index + 1 :])


def test_no_noise_in_evaluation_or_after_the_training_and_dropouts_numbers_are_left_alone(tiny_model: Path) -> None:
    noisy = Noisy(tiny_model)
    state = torch.get_rng_state()
    assert all(row.any() for row in noisy.at(0, PACKED))
    assert torch.equal(torch.get_rng_state(), state)

    noisy.model.eval()
    assert not any(row.any() for row in noisy.at(0, PACKED))
    noisy.model.train()
    noisy.noise.on_train_end(None, None, None)
    assert not any(row.any() for row in noisy.at(0, PACKED))
