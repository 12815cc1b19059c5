"""Runs a function in two processes that share a sharded base model."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.distributed.world import World
from finetune_trainer.model.sharded_weights import ShardedWeights
from trainer.pods import free_port

Look = Callable[[ProcessGroup, Path], Any]
LOOPBACK = "127.0.0.1"


def in_two_processes(look: Look, folder: Path) -> list[Any]:
    """Runs `look`, a function of a module, in two connected processes. Returns both results."""
    port = free_port()
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_run, args=(look, folder, rank, port)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    return [torch.load(folder / f"seen-{rank}.pt") for rank in range(2)]


def alone() -> ProcessGroup:
    """Returns a world with this process only."""
    return ProcessGroup.join(
        World(rank=0, size=1, local_rank=0, local_size=1, host=LOOPBACK, port=free_port(), progress=-1), lambda: None
    )


def _run(look: Look, folder: Path, rank: int, port: int) -> None:
    world = World(rank=rank, size=2, local_rank=rank, local_size=2, host=LOOPBACK, port=port, progress=-1)
    process_group = ProcessGroup.join(world, lambda: None)
    torch.save(look(process_group, folder), folder / f"seen-{rank}.pt")
    process_group.barrier()


def base_bytes(model: Any, sharded_weights: ShardedWeights | None = None) -> int:
    """Returns the bytes of memory of the base model's weights and scales and of this process's shards of them.

    Memory that several tensors share counts once.
    """
    base = [weight for name, weight in model.named_parameters() if "lora_" not in name]
    states = [weight.quant_state for weight in base if hasattr(weight, "quant_state")]
    scales = [state.absmax for state in states] + [state.state2.absmax for state in states if state.nested]
    parts = [flat.local_shard for flat in sharded_weights._flat_parameters] if sharded_weights else []
    storages = {part.untyped_storage()._cdata: part.untyped_storage().nbytes() for part in (*base, *scales, *parts)}
    return sum(storages.values())
