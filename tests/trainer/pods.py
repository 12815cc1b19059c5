"""Runs the trainer as a pod does: in a new process, which starts one process per GPU."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from finetune_trainer.contract.layout import ALLOW_CPU_ENV, NODE_ENV, POD_UID_ENV, RECIPE_ENV, TERMINATION_ENV, WORK_ENV
from finetune_trainer.contract.termination import Termination
from trainer.running import LocalRun

_INHERITED = ("PATH", "HOME", "LANG", "PYTHONPATH")


def pod_environment(recipe: Path, work: Path, message: Path, **more: str) -> dict[str, str]:
    """Returns the environment of a pod, without the test's own settings of the libraries.

    Args:
        recipe: the mounted recipe.
        work: the folder in which the trainer may write.
        message: the termination message's file.
        **more: further variables.
    """
    return {
        **{name: os.environ[name] for name in _INHERITED if name in os.environ},
        "OMP_NUM_THREADS": "1",
        ALLOW_CPU_ENV: "1",
        RECIPE_ENV: str(recipe),
        WORK_ENV: str(work),
        TERMINATION_ENV: str(message),
        **more,
    }


def environment_of(run: LocalRun, **more: str) -> dict[str, str]:
    """Writes a run's recipe. Returns the environment of its pod. `more` are further variables."""
    recipe, work = run.folder / "recipe.json", run.folder / "work"
    recipe.write_text(run.recipe.to_json())
    work.mkdir(exist_ok=True)
    message = run.folder / f"termination{more.get(NODE_ENV, '')}"
    return pod_environment(recipe, work, message, **{POD_UID_ENV: "0a1b2c3d-0000-4000-8000-000000000000"} | more)


def start_pod(run: LocalRun, **more: str) -> subprocess.Popen[str]:
    """Starts the trainer's process as a pod would. `more` are further variables."""
    return subprocess.Popen(
        [sys.executable, "-m", "finetune_trainer"],
        env=environment_of(run, **more),
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    """Returns a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def end_of(process: subprocess.Popen[str], run: LocalRun, pod: str = "") -> tuple[int, str, Termination]:
    """Waits for the end of a pod. Returns its exit code, log and termination message."""
    assert process.stderr is not None
    log = process.stderr.read()
    process.stderr.close()
    code = process.wait()
    message = Termination.read((run.folder / f"termination{pod}").read_text())
    assert message is not None, log
    return code, log, message


def adapter_of(message: Termination) -> dict[str, torch.Tensor]:
    """Returns the weights that a pod has committed."""
    assert message.output is not None
    return load_file(Path(message.output.uri.removeprefix("file://")) / "adapter_model.safetensors")


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Returns the largest absolute difference of two sets of weights."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def workers_of(pod: int) -> list[int]:
    """Returns the process ids of a pod's workers, ordered by rank."""
    children = Path(f"/proc/{pod}/task/{pod}/children").read_text().split()
    return [int(child) for child in children]


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    """Reads the log up to the first line that contains the text. Returns this line."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if text in line:
            return line
    raise AssertionError("".join(seen))
