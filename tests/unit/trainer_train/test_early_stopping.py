"""When the validation loss no longer improves."""

import pytest

from finetune_trainer.contract.recipe.training import EarlyStopping
from finetune_trainer.train.early_stopping import has_stopped_improving, validation_losses


@pytest.mark.parametrize(
    ("losses", "patience", "least", "ends"),
    [
        ([], 1, "0", False),
        ([3.0], 1, "0", False),
        ([3.0, 3.0], 1, "0", True),
        ([3.0, 3.1, 2.9], 2, "0", False),
        ([3.0, 3.1, 3.2], 2, "0", True),
        ([3.0, 3.1, 2.9, 3.0], 2, "0", False),
        ([3.0, 2.95, 2.9], 2, "0.2", True),
        # Many small falls are one large one, measured from the last improvement.
        ([3.0, 2.95, 2.75], 2, "0.2", False),
        ([3.0, 2.75], 1, "0.25", True),
    ],
)
def test_the_last_losses_all_failed_to_improve(losses: list[float], patience: int, least: str, ends: bool) -> None:
    assert has_stopped_improving(losses, EarlyStopping(patience=patience, min_improvement=least)) is ends


def test_losses_come_from_the_log() -> None:
    log = [
        {"step": 1, "loss": 4.0},
        {"step": 2, "eval_loss": 3.5},
        {"step": 2, "loss": 3.9},
        {"step": 4, "eval_loss": 3.0},
    ]

    assert validation_losses(log) == {2: 3.5, 4: 3.0}
