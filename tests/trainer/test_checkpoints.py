"""Exact resume: a run that was ended anywhere and taken up again makes the bytes of one that was not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.progress import Progress, Stage
from finetune_trainer.contract.termination import Outcome
from trainer.running import QUESTIONS, LocalRun, folder_of

pytestmark = pytest.mark.trainer
Runs = Callable[..., LocalRun]
STEPS = 8
TRAINING = {"maxSteps": STEPS, "batchSize": 8, "learningRate": "1e-2"}
"""24 rows: a pass over the data ends after steps 3 and 6."""


def _weights(run: LocalRun) -> bytes:
    return (folder_of(run()) / "adapter_model.safetensors").read_bytes()


def _checkpoints(run: LocalRun) -> list[Path]:
    return sorted(path.parent for path in (run.folder / "out").rglob("checkpoint.json"))


def _stopped_at(run: LocalRun, step: int) -> str:
    """Runs until the step is done, then tells it to stop; the message of its end."""

    def tell(progress: Progress) -> None:
        if progress.stage is Stage.TRAINING and progress.step == step:
            run.stop.set()

    run.on_progress = tell
    with pytest.raises(TrainerError) as caught:
        run()
    assert caught.value.reason is FailureReason.PREEMPTED
    run.stop.clear()
    run.on_progress = lambda _: None
    return caught.value.message


@pytest.fixture
def whole(local_run: Runs, tmp_path: Path) -> Callable[..., bytes]:
    """The adapter's bytes of the same run without an interruption, in a place of its own."""

    def make(run: LocalRun) -> bytes:
        return _weights(run.changed(output={"uri": f"file://{tmp_path}/whole"}))

    return make


@pytest.mark.parametrize("step", [1, 3, 7])
@pytest.mark.parametrize("packing", ["enabled", "disabled"])
def test_told_to_stop_it_goes_on_from_that_step_to_the_same_bytes(
    local_run: Runs, whole: Callable[..., bytes], step: int, packing: str
) -> None:
    """Dropout and the shuffle draw random numbers; step 3 is the end of a pass over the data."""
    run = local_run(QUESTIONS, training=TRAINING, lora={"dropout": "0.1"}, dataset={"packing": packing})

    message = _stopped_at(run, step)
    resumed = run.changed()
    weights = _weights(resumed)

    assert message == f"told to stop; stopped after step {step} of {STEPS}; the newest checkpoint is of step {step}"
    assert weights == whole(run)
    trained = [progress for progress in resumed.seen if progress.stage is Stage.TRAINING]
    assert trained[0].step == step
    assert trained[0].percent == 100 * step // STEPS
    assert all(progress.resumed_from_step == step for progress in trained)


def test_checkpoints_come_every_so_many_steps_and_only_the_newest_stay_until_the_adapter_is_there(
    local_run: Runs,
) -> None:
    run = local_run(QUESTIONS, training=TRAINING, checkpoint={"everySteps": 2, "keep": 2})
    _stopped_at(run, 7)

    assert [path.name for path in _checkpoints(run)] == ["00000006-writer-o", "00000007-writer-o"]
    assert [progress.checkpoint_step for progress in run.seen][-1] == 7
    uploaded = {progress.checkpoint_time for progress in run.seen if progress.checkpoint_step == 7}
    assert len(uploaded) == 1, "the time is that of the upload, not of the record"
    assert None not in uploaded

    result = run()

    assert result.outcome is Outcome.SUCCEEDED
    assert _checkpoints(run) == []
    assert not list((run.folder / "out").rglob("checkpoints"))


def test_checkpoints_of_a_run_whose_adapter_is_there_go_too(local_run: Runs) -> None:
    """The pod may have gone between the two."""
    run = local_run(QUESTIONS, training=TRAINING, checkpoint={"uri": "file:///unset"})
    run = run.changed(checkpoint={"uri": f"file://{run.folder}/scratch"})
    run()
    left = next((run.folder / "out").rglob("manifest.json")).parent.name
    folder = run.folder / "scratch" / "tiny" / left / "checkpoints" / "00000003-gone"
    folder.mkdir(parents=True)
    (folder / "checkpoint.json").write_text("{}")

    assert run().outcome is Outcome.REUSED

    assert not folder.exists()


def _damage_a_file(checkpoint: Path) -> None:
    file = checkpoint / "optimizer.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _remove_a_file(checkpoint: Path) -> None:
    (checkpoint / "adapter_model.safetensors").unlink()


def _cut_the_manifest(checkpoint: Path) -> None:
    manifest = checkpoint / "checkpoint.json"
    manifest.write_bytes(manifest.read_bytes()[:-20])


def _of_another_run(checkpoint: Path) -> None:
    manifest = checkpoint / "checkpoint.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"fingerprint": "0" * 64}))


def _leads_out(checkpoint: Path) -> None:
    manifest = json.loads((checkpoint / "checkpoint.json").read_text())
    manifest["files"][0]["path"] = "../../../escaped"
    (checkpoint / "checkpoint.json").write_text(json.dumps(manifest))


def _never_committed(checkpoint: Path) -> None:
    (checkpoint / "checkpoint.json").unlink()


@pytest.mark.parametrize(
    "damage",
    [_damage_a_file, _remove_a_file, _cut_the_manifest, _of_another_run, _leads_out, _never_committed],
)
def test_damaged_checkpoint_is_passed_over_for_the_one_before(
    local_run: Runs, whole: Callable[..., bytes], damage: Callable[[Path], None]
) -> None:
    run = local_run(QUESTIONS, training=TRAINING, lora={"dropout": "0.1"}, checkpoint={"everySteps": 2})
    _stopped_at(run, 5)
    damage(_checkpoints(run)[-1])

    resumed = run.changed()
    weights = _weights(resumed)

    assert {progress.resumed_from_step for progress in resumed.seen} - {None} == {4}
    assert weights == whole(run)


def test_without_a_whole_checkpoint_it_starts_at_the_beginning(local_run: Runs, whole: Callable[..., bytes]) -> None:
    run = local_run(QUESTIONS, training=TRAINING)
    _stopped_at(run, 2)
    for checkpoint in _checkpoints(run):
        _damage_a_file(checkpoint)

    resumed = run.changed()

    assert _weights(resumed) == whole(run)
    assert {progress.resumed_from_step for progress in resumed.seen} == {None}


def test_checkpoint_that_cannot_be_put_does_not_end_the_training(local_run: Runs) -> None:
    run = local_run(QUESTIONS, training=TRAINING)
    blocked = run.folder / "blocked"
    blocked.write_text("a file where a folder should be")
    run = run.changed(checkpoint={"everySteps": 2, "uri": f"file://{blocked}/under-a-file"})

    assert run().outcome is Outcome.SUCCEEDED


def test_checkpoints_hold_no_pickled_objects_and_the_trainer_reads_them_as_data(local_run: Runs) -> None:
    run = local_run(QUESTIONS, training=TRAINING)
    _stopped_at(run, 2)
    (checkpoint,) = _checkpoints(run)

    assert sorted(path.name for path in checkpoint.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "checkpoint.json",
        "optimizer.pt",
        "rng_state.pth",
        "scheduler.pt",
        "steps.json",
        "trainer_state.json",
    ]
