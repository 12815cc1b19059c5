"""Calls a function for each decoder layer while a model is loaded, so that no process has to hold all layers at once.

transformers returns a model only when all of it is loaded. But its loader reads the files layer by layer, and sets each
weight as a parameter of its module. torch has hooks for that (`register_module_*_registration_hook`).
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.nn.modules import module as torch_modules
from transformers import modeling_utils

_ONE_AFTER_THE_OTHER = "HF_DEACTIVATE_ASYNC_LOAD"
"""transformers' variable that turns off its loading threads. They would load weights of later layers ahead of time."""

Take = Callable[[str, torch.nn.Module], object]


@contextmanager
def on_each_layer_loaded(take: Take) -> Iterator[None]:
    """A context in which `take` is called for every decoder layer of a model that is loaded.

    `take` is called when all weights of the layer are loaded, at the latest at the end of the context. It is not called
    for a layer of which the files lack a weight. Decoder layers are the modules of the types in the model's
    `_no_split_modules`.

    Args:
        take: called with name and module of the layer.
    """
    watch = _Watch(take)
    with ExitStack() as stack:
        stack.enter_context(torch_modules.register_module_module_registration_hook(watch.module))
        stack.enter_context(torch_modules.register_module_parameter_registration_hook(watch.parameter))
        # transformers reserves the bytes of the whole model on the GPU before it loads the first weight.
        stack.callback(setattr, modeling_utils, "caching_allocator_warmup", modeling_utils.caching_allocator_warmup)
        modeling_utils.caching_allocator_warmup = lambda *_: None
        stack.callback(_restore, _ONE_AFTER_THE_OTHER, os.environ.get(_ONE_AFTER_THE_OTHER))
        os.environ[_ONE_AFTER_THE_OTHER] = "1"
        yield
        watch.next(None)


class _Watch:
    def __init__(self, take: Take) -> None:
        self._take = take
        self._parents: WeakKeyDictionary[torch.nn.Module, tuple[torch.nn.Module, str]] = WeakKeyDictionary()
        self._open: tuple[str, torch.nn.Module] | None = None

    def module(self, parent: torch.nn.Module, name: str, child: torch.nn.Module | None) -> None:
        """Torch's hook for a module that is registered as a child."""
        if child is not None:
            self._parents[child] = (parent, name)

    def parameter(self, module: torch.nn.Module, name: str, value: Any) -> None:
        """Torch's hook for a parameter that is registered in a module."""
        del name
        if value is not None and value.device.type != "meta":
            self.next(self._layer_of(module))

    def next(self, layer: tuple[str, torch.nn.Module] | None) -> None:
        """Begins another layer, None at the end of loading; the layer before is complete unless it lacks a weight."""
        if self._open is not None and (layer is None or layer[1] is not self._open[1]):
            if not any(weight.is_meta for weight in self._open[1].parameters()):
                self._take(*self._open)
            self._open = None
        self._open = self._open or layer

    def _layer_of(self, module: torch.nn.Module) -> tuple[str, torch.nn.Module] | None:
        """Name and module of the outermost decoder layer that contains a module; None if there is none."""
        chain, names = [module], list[str]()
        while (place := self._parents.get(chain[-1])) is not None:
            chain.append(place[0])
            names.append(place[1])
        kinds = {kind for part in chain for kind in getattr(part, "_no_split_modules", None) or ()}
        for index in reversed(range(len(chain) - 1)):
            if type(chain[index]).__name__ in kinds:
                return ".".join(reversed(names[index:])), chain[index]
        return None


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
