"""A pod that asks for GPUs and finds none ends at once, with the node's name and what the driver must be."""

import warnings
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.layout import ALLOW_CPU_ENV, NODE_NAME_ENV
from finetune_trainer.contract.progress import Stage
from finetune_trainer.runtime import log
from finetune_trainer.train.context import Context
from finetune_trainer.train.own_gpus import require_own_gpus
from trainer.pods import end_of, start_pod
from trainer.running import QUESTIONS, LocalRun

pytestmark = [
    pytest.mark.trainer,
    pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU"),
]
Runs = Callable[..., LocalRun]


@pytest.mark.parametrize("gpus", [1, 2])
def test_the_pod_ends_before_it_fetches_anything(local_run: Runs, gpus: int) -> None:
    run = local_run(QUESTIONS, machine={"gpus": gpus})
    process = start_pod(run, **{ALLOW_CPU_ENV: "", NODE_NAME_ENV: "gpu-node-3"})

    code, log_text, message = end_of(process, run)

    assert (code, message.reason) == (28, FailureReason.GPU_UNAVAILABLE), log_text
    beginning = f"spec.resources.gpus: {gpus}, but no GPU can be used on node gpu-node-3: "
    assert message.message.startswith(beginning)
    assert "CUDA 13.2 needs 580 or later" in message.message
    assert log_text.count(" failed reason=GpuUnavailable ") == gpus
    assert "Traceback" not in log_text
    assert message.progress is None or message.progress.stage == Stage.STARTING


def test_a_job_that_asks_for_none_needs_none(local_run: Runs) -> None:
    run = local_run(QUESTIONS, machine={"gpus": 0})
    code, log_text, _ = end_of(start_pod(run, **{ALLOW_CPU_ENV: ""}), run)
    assert code == 0, log_text


def test_only_the_developers_setting_lets_it_train_on_the_cpu(local_run: Runs) -> None:
    run = local_run(QUESTIONS, machine={"gpus": 2}, model={"deviceMap": "balanced"})
    context = Context(work=run.folder, open_store=lambda _: None, writer="one", pvc_root=run.folder)  # type: ignore[arg-type,return-value]
    with pytest.raises(TrainerError, match="no GPU can be used on this machine"):
        require_own_gpus(run.recipe, context)
    require_own_gpus(run.recipe, replace(context, allow_cpu=True))


def test_torchs_word_about_the_driver_reaches_the_log() -> None:
    with warnings.catch_warnings(record=True) as seen, log.libraries_quiet():
        for text in ("CUDA initialization: The NVIDIA driver on your system is too old", "anything else"):
            warnings.warn_explicit(text, UserWarning, "torch/cuda/__init__.py", 1, module="torch.cuda")
    assert [str(warning.message) for warning in seen] == [
        "CUDA initialization: The NVIDIA driver on your system is too old"
    ]
