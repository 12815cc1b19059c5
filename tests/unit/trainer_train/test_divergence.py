"""When a training counts as lost."""

import math

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.train.divergence import PATIENCE, Divergence, with_advice

VOCABULARY = 49_152
GUESS = math.log(VOCABULARY)


@pytest.mark.parametrize(
    ("losses", "certain"),
    [
        pytest.param([2.5] * 3 + [7.3] * PATIENCE, True, id="it knows only how often words are used"),
        pytest.param([2.5] + [GUESS] * PATIENCE, True, id="it guesses"),
        pytest.param([2.5] + [7.3] * (PATIENCE - 1), False, id="not yet"),
        pytest.param([2.5] + [7.3] * (PATIENCE - 1) + [3.0] + [7.3] * (PATIENCE - 1), False, id="it came back"),
        pytest.param([2.5] + [6.0] * 100, False, id="hard rows"),
        pytest.param([GUESS] * 100, False, id="random weights that learn nothing"),
        pytest.param([2 * GUESS] * 100, False, id="badly scaled random weights"),
    ],
)
def test_model_that_was_good_and_is_lost(losses: list[float], certain: bool) -> None:
    divergence = Divergence()
    for loss in losses[:-1]:
        divergence.take(loss, VOCABULARY, lambda: "at step 1")

    if certain:
        with pytest.raises(TrainerError, match=r"at step 12, and has been so high for 10 steps") as caught:
            divergence.take(losses[-1], VOCABULARY, lambda: "at step 12")
        assert caught.value.reason is FailureReason.LOSS_DIVERGED
    else:
        divergence.take(losses[-1], VOCABULARY, lambda: "at step 12")


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_loss_that_is_no_number(loss: float) -> None:
    with pytest.raises(TrainerError, match=rf"^the loss is {loss} at step 3$") as caught:
        Divergence().take(loss, VOCABULARY, lambda: "at step 3")
    assert caught.value.reason is FailureReason.LOSS_DIVERGED


def test_checkpoint_is_not_worth_it_from_the_first_bad_step_on() -> None:
    divergence = Divergence()
    suspected = []
    for loss in (2.5, 8.0, 2.6):
        divergence.take(loss, VOCABULARY, lambda: "at step 1")
        suspected.append(divergence.suspected)

    assert suspected == [False, True, False]


def test_a_training_that_is_lost_in_float16_says_that_the_range_may_be_the_cause() -> None:
    lost = TrainerError(FailureReason.LOSS_DIVERGED, "the loss is nan after step 3")
    advised = with_advice(lost, "float16")
    assert advised.reason is FailureReason.LOSS_DIVERGED
    assert advised.message.startswith("the loss is nan after step 3; the products are in float16")
    assert "compute capability 8.0" in advised.message
    assert with_advice(lost, "bfloat16") is lost
    other = TrainerError(FailureReason.GPU_OUT_OF_MEMORY, "x")
    assert with_advice(other, "float16") is other
