"""The frozen weights of one module in one flat buffer, of which each process keeps a shard.

The buffer has bytes of any type: packed 4-bit weights, their scales, unquantised numbers. All tensors of the module
become views of the buffer's storage. The storage is freed after use and filled again before the next use. Views that
autograd has saved share the storage, so the results do not change.
"""

from collections.abc import Callable, Iterator, Sequence

import torch

_ALIGNED = 256
"""Alignment of tensors in the buffer, in bytes. CUDA's allocator has the same one, and kernels may rely on it."""


class FlatParameters:
    """The tensors of one module in a flat buffer.

    The buffer's memory exists from `allocate` to `release`. After `allocate` its content is undefined, until the caller
    has gathered the shards into `unsharded`. After the constructor it is released.

    Args:
        name: name of the module, for messages.
        tensors: the tensors. They become views of the buffer and keep their values.
        rank: rank of this process.
        ranks: number of processes.

    Attributes:
        name: name of the module.
        size_bytes: bytes of all tensors, without padding.
        local_shard: the shard of this process: bytes, uint8.
        unsharded: the whole buffer, uint8: the shards of all processes, by rank.
    """

    def __init__(self, name: str, tensors: Sequence[torch.Tensor], rank: int, ranks: int) -> None:
        self.name = name
        self.size_bytes = sum(tensor.nbytes for tensor in tensors)
        places, end = [], 0
        for tensor in tensors:
            places.append(end)
            end += _aligned(tensor.nbytes)
        part = _aligned(-(-end // ranks))
        self.unsharded = torch.empty(ranks * part, dtype=torch.uint8, device=tensors[0].device)
        for tensor, place in zip(tensors, places, strict=True):
            view = self.unsharded[place : place + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            view.copy_(tensor.detach())
            tensor.data = view
        self.local_shard = self.unsharded[rank * part : (rank + 1) * part].clone()
        self.release()

    def allocate(self) -> None:
        """Allocates the memory of `unsharded`."""
        self.unsharded.untyped_storage().resize_(self.unsharded.numel())

    def release(self) -> None:
        """Frees the memory of `unsharded`."""
        self.unsharded.untyped_storage().resize_(0)

    @property
    def held_bytes(self) -> int:
        """Bytes that are allocated in this process now, including padding."""
        return self.local_shard.nbytes + self.unsharded.untyped_storage().nbytes()


def frozen_tensors(
    module: torch.nn.Module, prefix: str = "", is_ignored: Callable[[str], bool] = lambda _: False
) -> list[torch.Tensor]:
    """The tensors of a module that can be sharded: its weights and their quantisation scales.

    Biases are not sharded: they are small, and a recipe may train them in place.

    Args:
        module: the module, before it has an adapter.
        prefix: name of the module, with a trailing dot.
        is_ignored: whether the weight of a name is left out, because it is trained.
    """
    weights = module.named_parameters()
    kept = [weight for name, weight in weights if not name.endswith("bias") and not is_ignored(f"{prefix}{name}")]
    return [tensor for weight in kept for tensor in _with_scales(weight)]


def _with_scales(weight: torch.Tensor) -> Iterator[torch.Tensor]:
    yield weight
    state = getattr(weight, "quant_state", None)
    if state is not None:
        yield state.absmax
        if state.nested:
            yield state.state2.absmax


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // _ALIGNED) * _ALIGNED
