"""The frozen weights of one module, divided over processes: each keeps a part of their bytes, and has all for moments.

What is divided are bytes, whatever they mean: packed 4-bit weights, their scales, plain numbers. All tensors of the
module become views of one storage, which is emptied between two uses and filled again. Views that autograd has kept of
them are filled with it, so nothing of the arithmetic knows.
"""

from collections.abc import Callable, Iterator, Sequence

import torch

_ALIGNED = 256
"""Bytes that a tensor's place is a multiple of: what CUDA's allocator gives, and kernels may rely on."""


class Shard:
    """The tensors of one module; they are whole between `allocate`, which leaves their values open, and `release`.

    Args:
        name: the module's, for messages.
        tensors: whose values are taken; from now on they are views of the one storage.
        rank: this process's number.
        ranks: how many processes there are.

    Attributes:
        name: the module's.
        size: bytes of the tensors.
        own: this process's part of the bytes.
        whole: all bytes: the parts one after the other, by rank.
    """

    def __init__(self, name: str, tensors: Sequence[torch.Tensor], rank: int, ranks: int) -> None:
        self.name = name
        self.size = sum(tensor.nbytes for tensor in tensors)
        places, end = [], 0
        for tensor in tensors:
            places.append(end)
            end += _aligned(tensor.nbytes)
        part = _aligned(-(-end // ranks))
        self.whole = torch.empty(ranks * part, dtype=torch.uint8, device=tensors[0].device)
        for tensor, place in zip(tensors, places, strict=True):
            view = self.whole[place : place + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            view.copy_(tensor.detach())
            tensor.data = view
        self.own = self.whole[rank * part : (rank + 1) * part].clone()
        self.release()

    def allocate(self) -> None:
        """Takes the memory for the whole."""
        self.whole.untyped_storage().resize_(self.whole.numel())

    def release(self) -> None:
        """Gives it back."""
        self.whole.untyped_storage().resize_(0)

    @property
    def held(self) -> int:
        """Bytes that this process has of it now, those that fill up included."""
        return self.own.nbytes + self.whole.untyped_storage().nbytes()


def frozen_tensors(
    module: torch.nn.Module, prefix: str = "", spared: Callable[[str], bool] = lambda _: False
) -> list[torch.Tensor]:
    """What of a module can be divided: its weights and their scales.

    Not its biases, which a recipe may train in place and which are small.

    Args:
        module: the module, before it has an adapter.
        prefix: the module's name, with a dot.
        spared: whether the weight of that name must stay whole.
    """
    weights = module.named_parameters()
    kept = [weight for name, weight in weights if not name.endswith("bias") and not spared(f"{prefix}{name}")]
    return [tensor for weight in kept for tensor in _with_scales(weight)]


def _with_scales(weight: torch.Tensor) -> Iterator[torch.Tensor]:
    yield weight
    state = getattr(weight, "quant_state", None)
    if state is not None:
        yield state.absmax
        if state.nested:
            yield state.state2.absmax


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
