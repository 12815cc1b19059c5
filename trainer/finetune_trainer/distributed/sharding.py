"""The base model's weights divided over the processes: each holds its part, and one layer at a time is put together.

The base is frozen, so nothing but bytes travels: before a layer runs, forward or backward, every process gets all of
its bytes (an all-gather, begun while the layer before still computes), and gives them back when the next one runs. The
adapter stays whole everywhere, and its gradients are added up as without sharding (distributed/gradients.py). The
numbers are the same to the bit.

Why not torch's `fully_shard`, which does the same and gives the same numbers with bitsandbytes' weights (torch 2.15,
bitsandbytes 0.50, NF4 as uint8): it gathers from inside a forward and backward pass only, so a process that has no pass
left in this step, or whose memory ran out in the middle of one, could not give its parts to the others; it needs a
whole layer's parameters under its own classes before transformers has done loading; it works in torch's default group
(see distributed/process_group.py); and it leaves the scales whole, an eighth of the weights without double
quantisation.

All processes must gather the same modules in the same order. What a pass gathers is known before it begins, so a
process without a pass of its own `serve`s one, and one that had to leave a pass `finish`es it. When only process 0 goes
on, it `lead`s: it says what it is about to gather, and the others `follow`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.model.flat_parameters import Shard, frozen_tensors
from finetune_trainer.runtime.log import event

_END, _PASS, _ONE = range(3)
"""What process 0 says to those who follow: no more; a forward pass; one module, whose number comes with it."""


class Sharding:
    """The divided weights of one model, for one of the processes.

    Args:
        process_group: the others.
        spared: whether the weight of that name must stay whole, since it will be trained.
    """

    def __init__(self, process_group: ProcessGroup, spared: Callable[[str], bool]) -> None:
        self._process_group = process_group
        self._spared = spared
        self._layers: list[Shard] = []
        self._embeddings: Shard | None = None
        self._head: Shard | None = None
        self._opening: torch.nn.Module | None = None
        self._of: dict[torch.nn.Module, Shard] = {}
        self._modules: dict[Shard, torch.nn.Module] = {}
        # The running pass: what it gathers, how much of that is done, what is whole, and what is on its way.
        self._order: list[Shard] = []
        self._at = 0
        self._here: Shard | None = None
        self._coming: tuple[Shard, Callable[[], None]] | None = None
        self._leading = False

    # What is divided

    def take_layer(self, name: str, layer: torch.nn.Module) -> None:
        """Divides a decoder layer; the caller no longer has it as a whole."""
        shard = self._divide(name, layer)
        self._layers.append(shard)
        layer.register_forward_pre_hook(partial(self._before_layer, shard), with_kwargs=True)
        layer.register_forward_hook(partial(self._after_layer, shard))

    def settle(self, model: Any) -> None:
        """Checks, once the model is loaded, that all its layers have been taken.

        Raises:
            TrainerError: NOT_SUPPORTED.
        """
        expected, taken = model.config.get_text_config().num_hidden_layers, len(self._layers)
        if taken != expected:
            raise _not_supported(f"its decoder layers are not known ({taken} found, config.json says {expected})")
        place = {module: index for index, module in enumerate(model.modules())}
        self._layers.sort(key=lambda shard: place[self._modules[shard]])
        self._opening = self._modules[self._layers[0]]
        self._tell_sizes()

    def take_ends(self, model: Any, *, plain_head: bool) -> None:
        """Divides the embeddings and the head too, where they are plain layers that are not trained.

        Args:
            model: the causal language model below the adapter.
            plain_head: whether the head's weight is used in forward passes only, and after `need_head` was called.
        """
        embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
        tied = head is not None and head.weight is embeddings.weight
        if type(embeddings) is torch.nn.Embedding and _is_frozen(embeddings) and (plain_head or not tied):
            self._embeddings = self._divide("the embeddings", embeddings)
            self._opening = embeddings
            embeddings.register_forward_pre_hook(self._before_embeddings)
        if type(head) is torch.nn.Linear and _is_frozen(head) and plain_head and (not tied or self._embeddings):
            self._head = self._embeddings if tied else self._divide("the head", head)
            assert self._head is not None
            self._of[head] = self._head
            head.register_forward_pre_hook(self.need_head)
        self.end()
        self._tell_sizes()

    @property
    def held(self) -> int:
        """Bytes that this process has of the divided weights now."""
        return sum(shard.held for shard in self._shards)

    # Passes

    def begin(self, *, training: bool) -> None:
        """Begins a pass.

        A forward pass that nobody has begun begins by itself, but it cannot be finished when it fails before that.
        """
        if self._leading:
            self.finish()
            self._say(_PASS)
        self.end()
        self._order = [*self._forward, *(reversed(self._layers) if training else ())]

    def require_complete(self) -> None:
        """Checks that a pass is through.

        Raises:
            TrainerError: NOT_SUPPORTED; the others wait for what has not been gathered.
        """
        if self._at < len(self._order):
            raise _not_supported(f"its pass leaves out {self._order[self._at].name}")

    def serve(self, *, training: bool) -> None:
        """Takes part in a pass of the others; this process has none."""
        self.begin(training=training)
        self.finish()

    def finish(self) -> None:
        """Takes part in the rest of a pass that this process has left, and ends it."""
        while self._at < len(self._order):
            self._gather(self._order[self._at])
        self.end()

    def end(self) -> None:
        """Gives back what is still whole."""
        if self._coming is not None:
            shard, wait = self._coming
            self._coming = None
            wait()
            shard.release()
        if self._here is not None:
            self._here.release()
            self._here = None
        self._order, self._at = [], 0

    def need_head(self, *_: object) -> None:
        """Makes the head whole, which is the last of a forward pass."""
        if self._head is not None and self._head is not self._here:
            self._gather(self._head)

    # Process 0 alone

    def lead(self) -> None:
        """From now on this process runs passes, and the others follow."""
        self._leading = True

    def follow(self) -> None:
        """Gives this process's parts to process 0 for as long as it needs them.

        Raises:
            TrainerError: PEER_FAILED.
        """
        while True:
            said = torch.zeros(2, dtype=torch.int64)
            self._process_group.broadcast(said)
            what, which = said.tolist()
            if what == _END:
                return
            if what == _PASS:
                self.serve(training=False)
            else:
                self._order, self._at = [self._shards[which]], 0
                self.finish()

    def dismiss(self) -> None:
        """Lets those who follow go."""
        if self._leading:
            self.finish()
            self._say(_END)
            self._leading = False

    def whole(self, module: torch.nn.Module) -> None:
        """Makes a module's weights whole until the next module's are asked for; for process 0, when it leads."""
        shard = self._of.get(module)
        if shard is None or shard is self._here:
            return
        self.finish()
        self._say(_ONE, self._shards.index(shard))
        self._order = [shard]
        self._gather(shard)

    # How it is done

    @property
    def _shards(self) -> list[Shard]:
        return list(self._modules)

    @property
    def _forward(self) -> list[Shard]:
        start = [self._embeddings] if self._embeddings else []
        return [*start, *self._layers, *([self._head] if self._head else [])]

    def _divide(self, name: str, module: torch.nn.Module) -> Shard:
        world = self._process_group.world
        shard = Shard(name, frozen_tensors(module, f"{name}.", self._spared), world.rank, world.size)
        self._modules[shard] = module
        self._of.update(dict.fromkeys(module.modules(), shard))
        return shard

    def _open(self) -> None:
        """A forward pass runs into the first module."""
        if not self._order or self._at > 0:
            self.begin(training=torch.is_grad_enabled())

    def _gather(self, shard: Shard) -> None:
        """Makes the next module of the pass whole, gives the last one back, and lets the one after it come."""
        if self._at >= len(self._order) or self._order[self._at] is not shard:
            raise _not_supported(f"it does not run {shard.name} in its turn")
        if self._here is not shard:
            if self._here is not None:
                self._here.release()
                self._here = None
            if self._coming is None:
                self._start(shard)
            assert self._coming is not None
            _, wait = self._coming
            wait()
            self._coming, self._here = None, shard
        self._at += 1
        if self._at < len(self._order) and self._order[self._at] is not shard:
            self._start(self._order[self._at])

    def _start(self, shard: Shard) -> None:
        shard.allocate()
        self._coming = shard, self._process_group.all_gather_into_tensor(shard.whole, shard.own)

    def _before_embeddings(self, module: torch.nn.Module, _: object) -> None:
        del module
        assert self._embeddings is not None
        self._open()
        self._gather(self._embeddings)

    def _before_layer(self, shard: Shard, layer: torch.nn.Module, args: Any, kwargs: Any) -> None:
        if self._is_repeated(shard):
            return
        if layer is self._opening:
            self._open()
        self._gather(shard)
        if torch.is_grad_enabled() and shard is self._layers[0]:
            # Else a first layer without an adapter would have no backward pass, and the others wait for its gathering.
            hidden = args[0] if args else kwargs["hidden_states"]
            if not hidden.requires_grad:
                hidden.requires_grad_()

    def _after_layer(self, shard: Shard, layer: torch.nn.Module, args: Any, output: Any) -> None:
        del layer, args
        hidden = output[0] if isinstance(output, tuple) else output
        if hidden.requires_grad and not self._is_repeated(shard):
            hidden.register_hook(partial(self._backward, shard))

    def _backward(self, shard: Shard, gradient: torch.Tensor) -> None:
        """Torch's hook: the gradient of the layer's output is there, so its backward pass is next."""
        del gradient
        self._gather(shard)

    def _is_repeated(self, shard: Shard) -> bool:
        """Whether the layer runs forward in its backward pass, to compute its activations again."""
        return self._at > len(self._forward) and self._here is shard

    def _say(self, what: int, which: int = 0) -> None:
        self._process_group.broadcast(torch.tensor([what, which]))

    def _tell_sizes(self) -> None:
        event("sharded", modules=len(self._shards), bytes=sum(shard.size for shard in self._shards), here=self.held)


def _is_frozen(module: torch.nn.Module) -> bool:
    return not any(weight.requires_grad for weight in module.parameters())


def _not_supported(why: str) -> TrainerError:
    message = f"spec.model.sharding: full: this model's architecture cannot be sharded: {why}; use deviceMap instead"
    return TrainerError(FailureReason.NOT_SUPPORTED, message)
