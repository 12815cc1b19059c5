"""A training that is killed at random instants, process by process, makes the bytes of one that was left alone.

benchmarks/resume.py does the same with as many kills as one likes.
"""

import signal
from collections.abc import Callable

import pytest

from trainer.kills import Kill, random_kills, train_through
from trainer.running import PAIRS, QUESTIONS, LocalRun, folder_of

pytestmark = pytest.mark.trainer


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_killed_again_and_again_it_makes_the_same_bytes(method: str, local_run: Callable[..., LocalRun]) -> None:
    run = local_run(
        PAIRS if method == "dpo" else QUESTIONS,
        method=method,
        training={"maxSteps": 150, "batchSize": 8, "learningRate": "1e-2"},
        lora={"dropout": "0.1"},
        checkpoint={"everySteps": 3},
    )
    # On a slow machine all of them may come before the first checkpoint. SIGTERM saves one.
    kills = [*random_kills(seed=7, count=3, seconds=1.5), Kill(number=signal.SIGTERM)]
    lives = train_through(run.recipe, run.folder, kills)

    whole = run.changed(output={"uri": f"file://{run.folder}/whole"})()
    message = lives[-1].message
    assert message is not None
    assert message.output is not None
    made = run.folder / "out" / message.output.uri.split("/out/")[1]
    assert (made / "adapter_model.safetensors").read_bytes() == (
        folder_of(whole) / "adapter_model.safetensors"
    ).read_bytes()
    assert any(life.resumed_from for life in lives)
    assert not list((run.folder / "out").rglob("checkpoint.json"))
