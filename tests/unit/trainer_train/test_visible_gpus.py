"""Which GPUs a process sees: its own, whatever the machine has."""

import pytest

from finetune_trainer.distributed.visible_gpus import visible_gpus
from finetune_trainer.distributed.world import Pod

FOUR = Pod(processes=4, gpus=4)
ALONE = Pod(processes=1, gpus=1)
SPREAD = Pod(processes=1, gpus=4)
SLICES = "MIG-3b4d,MIG-77aa"


@pytest.mark.parametrize(
    ("pod", "rank", "environment", "seen"),
    [
        (FOUR, 2, {}, "2"),
        (ALONE, 0, {}, "0"),
        (SPREAD, 0, {}, "0,1,2,3"),
        (Pod(processes=1, gpus=0), 0, {}, ""),
        (Pod(processes=1, gpus=0, nodes=2), 0, {"CUDA_VISIBLE_DEVICES": "3"}, ""),
        # What hides GPUs already still does.
        (FOUR, 1, {"CUDA_VISIBLE_DEVICES": "4, 5,6,7"}, "5"),
        (ALONE, 0, {"CUDA_VISIBLE_DEVICES": "4,5"}, "4"),
        (SPREAD, 0, {"CUDA_VISIBLE_DEVICES": "4,5"}, "4,5"),
        (ALONE, 0, {"CUDA_VISIBLE_DEVICES": ""}, ""),
        (ALONE, 0, {"CUDA_VISIBLE_DEVICES": "-1"}, ""),
        (Pod(processes=2, gpus=2), 1, {"CUDA_VISIBLE_DEVICES": "0,-1,1"}, ""),
        # Two slices of one GPU have one number, and a runtime without isolation shows all GPUs of the node.
        (Pod(processes=2, gpus=2), 1, {"NVIDIA_VISIBLE_DEVICES": SLICES}, "MIG-77aa"),
        (ALONE, 0, {"NVIDIA_VISIBLE_DEVICES": "GPU-5f2c"}, "GPU-5f2c"),
        (FOUR, 3, {"NVIDIA_VISIBLE_DEVICES": SLICES}, ""),
        # Numbers and words of the container runtime mean nothing in the container.
        (ALONE, 0, {"NVIDIA_VISIBLE_DEVICES": "3"}, "0"),
        (ALONE, 0, {"NVIDIA_VISIBLE_DEVICES": "all"}, "0"),
        (ALONE, 0, {"NVIDIA_VISIBLE_DEVICES": "void"}, "0"),
    ],
)
def test_a_process_sees_its_own_gpus(pod: Pod, rank: int, environment: dict[str, str], seen: str) -> None:
    assert visible_gpus(pod, rank, environment) == {"CUDA_VISIBLE_DEVICES": seen}


def test_nothing_is_hidden_where_the_recipe_does_not_say_how_many_there_are() -> None:
    assert visible_gpus(Pod(processes=1), 0, {}) == {}
