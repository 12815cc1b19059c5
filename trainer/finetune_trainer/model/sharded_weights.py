"""Shards the base model's weights over the processes, as FSDP does. One layer at a time is unsharded.

The base model is frozen, so only bytes are sent and no gradients. Before a layer runs, forward or backward, an
all-gather copies all of its bytes to every process. It starts while the previous layer computes. The bytes are freed
when the next layer runs. The adapter is replicated, and its gradients are all-reduced as without sharding
(distributed/gradients.py). The results are the same to the bit.

torch's `fully_shard` does the same, and gives the same results with bitsandbytes' weights (torch 2.15, bitsandbytes
0.50, NF4 as uint8). It is not used for four reasons:

- It gathers only inside a forward and backward pass. A process without a micro-batch in this step, or one that ran out
  of memory in a micro-batch, could not give its shards to the others.
- It needs a whole layer's parameters under its own classes before transformers has loaded the model.
- It uses torch's default process group (see distributed/process_group.py).
- It does not shard the scales, which are an eighth of the weights without double quantisation.

All processes must unshard the same modules in the same order. The order is known before a pass begins. So a process
without a micro-batch calls `join_pass`, and a process that had to leave a pass calls `finish_pass`. For passes of
process 0 alone, process 0 calls `start_leading` and broadcasts which module it unshards next, and the others call
`follow_main_process`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.model.flat_parameters import FlatParameters, frozen_tensors
from finetune_trainer.runtime.log import event

_COMMAND_END, _COMMAND_PASS, _COMMAND_UNSHARD = range(3)
"""The commands that process 0 broadcasts: the end; a forward pass; one module, with its index."""


class ShardedWeights:
    """The sharded weights of one model in one process.

    Args:
        process_group: the processes over which weights are sharded.
        is_ignored: whether the weight of a name is not sharded, because it is trained.
    """

    def __init__(self, process_group: ProcessGroup, is_ignored: Callable[[str], bool]) -> None:
        self._process_group = process_group
        self._is_ignored = is_ignored
        self._layers: list[FlatParameters] = []
        self._embeddings: FlatParameters | None = None
        self._head: FlatParameters | None = None
        self._first_module: torch.nn.Module | None = None
        self._flat_of: dict[torch.nn.Module, FlatParameters] = {}
        self._modules: dict[FlatParameters, torch.nn.Module] = {}
        # The current pass: its modules in order, the next module's index, the unsharded module, and the module that is
        # being gathered.
        self._pass_order: list[FlatParameters] = []
        self._position = 0
        self._unsharded: FlatParameters | None = None
        self._prefetched: tuple[FlatParameters, Callable[[], None]] | None = None
        self._leading = False

    # Sharding

    def shard_layer(self, name: str, layer: torch.nn.Module) -> None:
        """Shards a decoder layer and adds hooks that unshard it.

        Args:
            name: name of the layer.
            layer: the layer, with all of its weights loaded.
        """
        flat = self._shard(name, layer)
        self._layers.append(flat)
        layer.register_forward_pre_hook(partial(self._before_layer, flat), with_kwargs=True)
        layer.register_forward_hook(partial(self._after_layer, flat))

    def require_all_layers(self, model: Any) -> None:
        """Requires that all layers are sharded. Call it after the model is loaded.

        Raises:
            TrainerError: NOT_SUPPORTED, the number of sharded layers is not that of config.json.
        """
        expected, sharded = model.config.get_text_config().num_hidden_layers, len(self._layers)
        if sharded != expected:
            raise _not_supported(f"its decoder layers are not known ({sharded} found, config.json says {expected})")
        place = {module: index for index, module in enumerate(model.modules())}
        self._layers.sort(key=lambda flat: place[self._modules[flat]])
        self._first_module = self._modules[self._layers[0]]
        self._log_sizes()

    def shard_embeddings_and_head(self, model: Any, *, plain_head: bool) -> None:
        """Shards the embeddings and the head, if they are plain frozen layers.

        Args:
            model: the causal language model inside the PEFT model.
            plain_head: whether the head's weight is used only in forward passes and only after a call of
                `unshard_head`.
        """
        embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
        tied = head is not None and head.weight is embeddings.weight
        if type(embeddings) is torch.nn.Embedding and _is_frozen(embeddings) and (plain_head or not tied):
            self._embeddings = self._shard("the embeddings", embeddings)
            self._first_module = embeddings
            embeddings.register_forward_pre_hook(self._before_embeddings)
        if type(head) is torch.nn.Linear and _is_frozen(head) and plain_head and (not tied or self._embeddings):
            self._head = self._embeddings if tied else self._shard("the head", head)
            assert self._head is not None
            self._flat_of[head] = self._head
            head.register_forward_pre_hook(self.unshard_head)
        self.end_pass()
        self._log_sizes()

    @property
    def held_bytes(self) -> int:
        """Bytes of sharded weights that are allocated in this process now."""
        return sum(flat.held_bytes for flat in self._flat_parameters)

    # Passes

    def begin_pass(self, *, training: bool) -> None:
        """Begins a pass.

        Without this call a pass begins when its first module runs. If such a pass fails earlier, `finish_pass` cannot
        finish it.

        Args:
            training: whether the pass has a backward pass.
        """
        if self._leading:
            self.finish_pass()
            self._broadcast_command(_COMMAND_PASS)
        self.end_pass()
        self._pass_order = [*self._forward, *(reversed(self._layers) if training else ())]

    def require_pass_complete(self) -> None:
        """Requires that the pass has run all its modules. Otherwise the other processes wait for an all-gather.

        Raises:
            TrainerError: NOT_SUPPORTED, a module has not run.
        """
        if self._position < len(self._pass_order):
            raise _not_supported(f"its pass leaves out {self._pass_order[self._position].name}")

    def join_pass(self, *, training: bool) -> None:
        """Gathers all modules of a pass of the other processes, in which this process has no micro-batch.

        Args:
            training: whether the pass has a backward pass.
        """
        self.begin_pass(training=training)
        self.finish_pass()

    def finish_pass(self) -> None:
        """Gathers the remaining modules of a pass that this process had to leave, and ends the pass."""
        while self._position < len(self._pass_order):
            self._unshard_next(self._pass_order[self._position])
        self.end_pass()

    def end_pass(self) -> None:
        """Ends the pass and frees the unsharded weights."""
        if self._prefetched is not None:
            flat, wait = self._prefetched
            self._prefetched = None
            wait()
            flat.release()
        if self._unsharded is not None:
            self._unsharded.release()
            self._unsharded = None
        self._pass_order, self._position = [], 0

    def unshard_head(self, *_: object) -> None:
        """Unshards the head, which is the last module of a forward pass."""
        if self._head is not None and self._head is not self._unsharded:
            self._unshard_next(self._head)

    # Process 0 alone

    def start_leading(self) -> None:
        """Makes this process lead: it runs passes alone, and the others must be in `follow_main_process`."""
        self._leading = True

    def follow_main_process(self) -> None:
        """Executes the commands of process 0, so that it gets this process's shards, until it ends leading.

        Raises:
            TrainerError: PEER_FAILED, another process has ended.
        """
        while True:
            message = torch.zeros(2, dtype=torch.int64)
            self._process_group.broadcast(message)
            command, index = message.tolist()
            if command == _COMMAND_END:
                return
            if command == _COMMAND_PASS:
                self.join_pass(training=False)
            else:
                self._pass_order, self._position = [self._flat_parameters[index]], 0
                self.finish_pass()

    def release_followers(self) -> None:
        """Ends `follow_main_process` in the other processes. Without a call of `start_leading` it does nothing."""
        if self._leading:
            self.finish_pass()
            self._broadcast_command(_COMMAND_END)
            self._leading = False

    def unshard(self, module: torch.nn.Module) -> None:
        """Unshards a module's weights until the next module is unsharded. Only for process 0 while it leads.

        Args:
            module: a module of the model. If its weights are not sharded, nothing happens.
        """
        flat = self._flat_of.get(module)
        if flat is None or flat is self._unsharded:
            return
        self.finish_pass()
        self._broadcast_command(_COMMAND_UNSHARD, self._flat_parameters.index(flat))
        self._pass_order = [flat]
        self._unshard_next(flat)

    # Internals

    @property
    def _flat_parameters(self) -> list[FlatParameters]:
        return list(self._modules)

    @property
    def _forward(self) -> list[FlatParameters]:
        start = [self._embeddings] if self._embeddings else []
        return [*start, *self._layers, *([self._head] if self._head else [])]

    def _shard(self, name: str, module: torch.nn.Module) -> FlatParameters:
        world = self._process_group.world
        flat = FlatParameters(name, frozen_tensors(module, f"{name}.", self._is_ignored), world.rank, world.size)
        self._modules[flat] = module
        self._flat_of.update(dict.fromkeys(module.modules(), flat))
        return flat

    def _begin_forward_pass(self) -> None:
        """Begins a pass when a forward pass reaches the first module, unless the caller has begun it."""
        if not self._pass_order or self._position > 0:
            self.begin_pass(training=torch.is_grad_enabled())

    def _unshard_next(self, flat: FlatParameters) -> None:
        """Unshards the next module of the pass, frees the previous one, and starts to gather the one after it."""
        if self._position >= len(self._pass_order) or self._pass_order[self._position] is not flat:
            raise _not_supported(f"it does not run {flat.name} in its turn")
        if self._unsharded is not flat:
            if self._unsharded is not None:
                self._unsharded.release()
                self._unsharded = None
            if self._prefetched is None:
                self._start_all_gather(flat)
            assert self._prefetched is not None
            _, wait = self._prefetched
            wait()
            self._prefetched, self._unsharded = None, flat
        self._position += 1
        if self._position < len(self._pass_order) and self._pass_order[self._position] is not flat:
            self._start_all_gather(self._pass_order[self._position])

    def _start_all_gather(self, flat: FlatParameters) -> None:
        flat.allocate()
        self._prefetched = flat, self._process_group.all_gather_into_tensor(flat.unsharded, flat.local_shard)

    def _before_embeddings(self, module: torch.nn.Module, _: object) -> None:
        del module
        assert self._embeddings is not None
        self._begin_forward_pass()
        self._unshard_next(self._embeddings)

    def _before_layer(self, flat: FlatParameters, layer: torch.nn.Module, args: Any, kwargs: Any) -> None:
        if self._is_repeated(flat):
            return
        if layer is self._first_module:
            self._begin_forward_pass()
        self._unshard_next(flat)
        if torch.is_grad_enabled() and flat is self._layers[0]:
            # Without this, a first layer without an adapter has no backward pass in this process, and the other
            # processes wait for its all-gather.
            hidden = args[0] if args else kwargs["hidden_states"]
            if not hidden.requires_grad:
                hidden.requires_grad_()

    def _after_layer(self, flat: FlatParameters, layer: torch.nn.Module, args: Any, output: Any) -> None:
        del layer, args
        hidden = output[0] if isinstance(output, tuple) else output
        if hidden.requires_grad and not self._is_repeated(flat):
            hidden.register_hook(partial(self._backward, flat))

    def _backward(self, flat: FlatParameters, gradient: torch.Tensor) -> None:
        """Torch's hook for the gradient of the layer's output: the backward pass of the layer is next."""
        del gradient
        self._unshard_next(flat)

    def _is_repeated(self, flat: FlatParameters) -> bool:
        """Whether the layer runs forward inside its backward pass, for gradient checkpointing."""
        return self._position > len(self._forward) and self._unsharded is flat

    def _broadcast_command(self, command: int, index: int = 0) -> None:
        self._process_group.broadcast(torch.tensor([command, index]))

    def _log_sizes(self) -> None:
        event(
            "sharded",
            modules=len(self._flat_parameters),
            bytes=sum(flat.size_bytes for flat in self._flat_parameters),
            here=self.held_bytes,
        )


def _is_frozen(module: torch.nn.Module) -> bool:
    return not any(weight.requires_grad for weight in module.parameters())


def _not_supported(why: str) -> TrainerError:
    message = f"spec.model.sharding: full: this model's architecture cannot be sharded: {why}; use deviceMap instead"
    return TrainerError(FailureReason.NOT_SUPPORTED, message)
