"""The frozen weights of one module as one flat buffer, of which each process keeps a shard.

The buffer is bytes, whatever they mean: packed 4-bit weights, their scales, plain numbers. All tensors of the
module become views of one storage, which is freed between two uses and filled again. Views that autograd has saved are
filled with it, so the arithmetic does not change.
"""

from collections.abc import Callable, Iterator, Sequence

import torch

_ALIGNED = 256
"""Bytes that a tensor's place is a multiple of: what CUDA's allocator gives, and kernels may rely on."""


class FlatParameters:
    """The tensors of one module; all bytes are there between `allocate`, which leaves them undefined, and `release`.

    Args:
        name: the module's, for messages.
        tensors: become views of the one storage, with their values.
        rank: this process's number.
        ranks: how many processes there are.

    Attributes:
        name: the module's.
        size_bytes: bytes of the tensors.
        local_shard: this process's bytes.
        unsharded: all bytes: the shards one after the other, by rank.
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
        """Bytes that this process has of it now, padding included."""
        return self.local_shard.nbytes + self.unsharded.untyped_storage().nbytes()


def frozen_tensors(
    module: torch.nn.Module, prefix: str = "", is_ignored: Callable[[str], bool] = lambda _: False
) -> list[torch.Tensor]:
    """The tensors of a module that can be sharded: its weights and their scales.

    Not its biases, which a recipe may train in place and which are small.

    Args:
        module: the module, before it has an adapter.
        prefix: the module's name, with a dot.
        is_ignored: whether the weight of that name is not sharded.
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
