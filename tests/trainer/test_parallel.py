"""Several processes train one adapter: what one process makes, and ends that are those of the process that failed."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from finetune_trainer.contract.failure import ExitCode, FailureReason
from finetune_trainer.contract.layout import (
    MASTER_ENV,
    NODE_ENV,
    NODES_ENV,
)
from finetune_trainer.contract.termination import Outcome
from finetune_trainer.distributed.process_group import nccl_settings
from trainer.pods import adapter_of, difference, end_of, free_port, start_pod, wait_for, workers_of
from trainer.running import QUESTIONS, LocalRun, folder_of

pytestmark = pytest.mark.trainer
Runs = Callable[..., LocalRun]


def test_two_processes_make_what_one_makes(local_run: Runs) -> None:
    """Loss and weights agree to the rounding of sums; a step of one row gives one process no work."""
    training = {"maxSteps": 8, "batchSize": 5, "learningRate": "5e-3", "neftuneAlpha": "5"}
    validation_losses = {"dataset": {"validation": {"fraction": "0.25"}}, "evaluation": {"everySteps": 3}}
    run = local_run(QUESTIONS[:9], training=training, machine={"gpus": 2}, **validation_losses)
    process = start_pod(run)

    code, log, message = end_of(process, run)

    assert code == 0, log
    assert " processes=2" in log
    assert message.outcome is Outcome.SUCCEEDED
    assert message.progress is not None
    assert message.progress.step == 8
    alone = run.changed(output={"uri": f"file://{run.folder}/alone"}, machine={"gpus": 1})()
    assert message.output is not None
    assert message.output.metrics["loss"] == pytest.approx(alone.output.metrics["loss"], abs=1e-5)
    assert message.output.metrics["tokens"] == alone.output.metrics["tokens"]
    for number in ("eval_loss", "base_eval_loss"):
        assert message.output.metrics[number] == pytest.approx(alone.output.metrics[number], abs=1e-5)
    assert difference(adapter_of(message), load_file(folder_of(alone) / "adapter_model.safetensors")) < 1e-5
    assert list((run.folder / "work").iterdir()) == []


_LAST_LINES = {
    FailureReason.PEER_FAILED: (
        "what():  [Rank 1] Process group watchdog thread terminated with exception: NCCL error: remote process exited",
        "os.abort()",
        "process 1 was ended by SIGABRT: ",
    ),
    FailureReason.GPU_OUT_OF_MEMORY: (
        "Error out of memory at line 90 in file /src/csrc/ops.cu",
        "os._exit(1)",
        "process 1 ended with exit code 1: ",
    ),
}


@pytest.mark.parametrize("reason", _LAST_LINES)
def test_process_that_a_library_ends_says_why_in_its_last_line(local_run: Runs, reason: FailureReason) -> None:
    """NCCL's watchdog aborts a process that has lost another one, and bitsandbytes calls exit: no GPU is needed."""
    line, end, beginning = _LAST_LINES[reason]
    run = local_run(QUESTIONS, machine={"gpus": 2})
    started = 'import os, sys\nif \'"rank": 1\' in os.environ.get("FINETUNE_WORKER", ""):\n'
    (run.folder / "sitecustomize.py").write_text(
        f"{started}    print({line!r}, file=sys.stderr, flush=True)\n    {end}\n"
    )
    process = start_pod(run, PYTHONPATH=f"{run.folder}:{os.environ.get('PYTHONPATH', '')}")

    _, log, message = end_of(process, run)

    assert (message.reason, message.message) == (reason, f"{beginning}{line}"), log
    assert f"{line}\n" in log, "the pod's log has it too"


def test_a_lost_process_is_noticed_where_the_collective_waits() -> None:
    assert nccl_settings(overlapping=False) == {"TORCH_NCCL_BLOCKING_WAIT": "1"}
    assert nccl_settings(overlapping=True) == {}


def test_process_that_is_killed_is_the_reason_and_takes_the_others_along(local_run: Runs) -> None:
    run = local_run(QUESTIONS, training={"maxSteps": 5000}, machine={"gpus": 2})
    process = start_pod(run)
    wait_for(process, " step step=2/")
    workers = workers_of(process.pid)
    os.kill(workers[1], signal.SIGKILL)

    code, log, message = end_of(process, run)

    assert len(workers) == 2
    assert (code, message.reason) == (ExitCode.INTERNAL, FailureReason.KILLED)
    assert message.message == "process 1 was ended by SIGKILL"
    assert message.progress is not None
    assert message.progress.step is not None
    assert "Traceback" not in log
    for worker in workers:
        assert not Path(f"/proc/{worker}").exists()


def test_told_to_go_they_end_at_one_step_and_another_number_of_processes_goes_on(local_run: Runs) -> None:
    run = local_run(QUESTIONS, training={"maxSteps": 150, "batchSize": 8, "learningRate": "1e-3"}, machine={"gpus": 2})
    process = start_pod(run)
    wait_for(process, " step step=5/")
    process.send_signal(signal.SIGTERM)
    code, log, message = end_of(process, run)

    assert (code, message.reason) == (ExitCode.PREEMPTED, FailureReason.PREEMPTED), log
    stopped = re.search(r"stopped after step (\d+) of 150; the newest checkpoint is of step (\d+)", message.message)
    assert stopped is not None, message.message
    assert stopped[1] == stopped[2]

    on_one = run.changed(machine={"gpus": 1})
    resumed = on_one()
    assert [seen.resumed_from_step for seen in on_one.seen][-1] == int(stopped[1])
    whole = run.changed(output={"uri": f"file://{run.folder}/whole"}, machine={"gpus": 1})()
    parts = (load_file(folder_of(result) / "adapter_model.safetensors") for result in (resumed, whole))
    assert difference(*parts) < 1e-5


def test_as_many_processes_go_on_exactly_with_dropout(local_run: Runs) -> None:
    """A checkpoint of two processes, taken up by two: the bytes of a training that was left alone."""
    sections = {"lora": {"dropout": "0.2"}, "machine": {"gpus": 2}}
    run = local_run(QUESTIONS, training={"maxSteps": 150, "batchSize": 7}, **sections)
    process = start_pod(run)
    wait_for(process, " step step=5/")
    process.send_signal(signal.SIGTERM)
    assert end_of(process, run)[0] == ExitCode.PREEMPTED

    _, log, message = end_of(start_pod(run), run)
    assert " resuming step=" in log
    whole = run.changed(output={"uri": f"file://{run.folder}/whole"})
    _, _, undisturbed = end_of(start_pod(whole), whole)
    assert difference(adapter_of(message), adapter_of(undisturbed)) == 0.0


def test_what_one_process_finds_wrong_is_the_reason(local_run: Runs) -> None:
    """The second process only hears that the first is gone."""
    run = local_run([{"prompt": "a", "completion": "b"}, {"prompt": "a"}], machine={"gpus": 2})

    code, log, message = end_of(start_pod(run), run)

    assert (code, message.reason) == (ExitCode.DATASET_INVALID, FailureReason.DATASET_INVALID), log
    assert "train.jsonl:2" in message.message


def test_adapter_that_is_there_is_taken_by_all(local_run: Runs) -> None:
    run = local_run(QUESTIONS)
    result = run()
    again = run.changed(machine={"gpus": 2})

    code, log, message = end_of(start_pod(again), again)

    assert code == 0, log
    assert (message.outcome, message.output) == (Outcome.REUSED, result.output)


def test_two_pods_share_one_training_and_one_that_is_killed_ends_both(local_run: Runs) -> None:
    """Each with its own disk, as on two nodes; the second tells of the first's end as a consequence."""
    run = local_run(QUESTIONS, training={"maxSteps": 5000}, machine={"gpus": 0})
    both = {NODES_ENV: "2", MASTER_ENV: f"127.0.0.1:{free_port()}"}
    # The second one comes first, and waits.
    second, first = (start_pod(run, **both, **{NODE_ENV: index}) for index in ("1", "0"))
    wait_for(first, " step step=2/")
    first.kill()
    first.wait()
    assert first.stderr is not None
    first.stderr.close()

    code, log, message = end_of(second, run, "1")

    assert (code, message.reason) == (ExitCode.PEER_FAILED, FailureReason.PEER_FAILED), log
    assert "Traceback" not in log
    assert " step " not in log
