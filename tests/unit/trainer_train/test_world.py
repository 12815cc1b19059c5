"""How many processes there are, and what the launcher tells each."""

import pytest

from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.distributed.world import Pod, World
from unit.trainer_train.recipes import recipe


@pytest.mark.parametrize(("gpus", "processes"), [(None, 1), (0, 1), (1, 1), (4, 4)])
def test_one_process_a_gpu(gpus: int | None, processes: int) -> None:
    assert Pod.of(recipe(machine={"gpus": gpus}), {}) == Pod(processes=processes, gpus=gpus)


def test_a_model_that_is_spread_has_one_process() -> None:
    asked = recipe(model={"uri": "s3://models/base", "deviceMap": "balanced"}, machine={"gpus": 4})
    assert Pod.of(asked, {}).size == 1


def test_pods_know_their_place() -> None:
    variables = {"FINETUNE_NODES": "3", "JOB_COMPLETION_INDEX": "2", "FINETUNE_MASTER": "a-0.a:29500"}
    pod = Pod.of(recipe(machine={"gpus": 2}), variables)
    assert (pod.size, pod.node, pod.host, pod.port) == (6, 2, "a-0.a", 29500)


def test_a_pod_without_a_place_says_which_variables_are_missing() -> None:
    with pytest.raises(TrainerError, match="JOB_COMPLETION_INDEX or FINETUNE_MASTER is not set"):
        Pod.of(recipe(), {"FINETUNE_NODES": "2"})


def test_a_process_reads_what_the_launcher_has_said() -> None:
    world = World(rank=5, size=6, local_rank=1, local_size=2, host="a", port=1, listener=None, progress=7)
    assert World.from_environment(world.variables()) == world
    assert world.node == 2
    assert World.from_environment({}) is None
