"""The sizes of a model on which its memory depends, from config.json and the names and shapes of its tensors."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

TensorShapes = Mapping[str, tuple[int, ...]]
"""Name of a model's tensor -> shape, as in a safetensors header."""

_TABLES = ("embed_tokens", "wte", "wpe", "word_embeddings", "embed_in", "embed_positions", "embedding", "embeddings")
_HEADS = ("lm_head", "embed_out", "output")
_HEAD_TRICKS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")
_ROUTERS = ("gate", "router", "shared_expert_gate")
_ONE_EXPERT = re.compile(r"\.experts\.\d+\.([^.]+)\.weight$")
"""Finds the name of a layer of one expert."""
_MIXER = "A_log"
"""A parameter that only Mamba mixers have."""
_IN_MIXERS = ("out_proj", "x_proj", "dt_proj")
_LARGEST_SIZE = 1 << 24
"""Largest size that a model can have: of a vocabulary, a width, a number of positions. Others count as missing."""
_MOST_LAYERS = 4096
_TOLERANCE = 0.03
"""Largest relative difference between the size of files and of tensors: headers, and buffers of older checkpoints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """One weight.

    Attributes:
        module: name of the weight's module, for example `model.layers.0.mlp.up_proj`.
        shape: shape of the weight: (outputs, inputs) for a linear layer, (inputs, outputs) for GPT-2's layers.
    """

    module: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The sizes of a decoder.

    Attributes:
        layers: number of decoder layers.
        hidden: width of the residual stream.
        attention: width of a token's queries, summed over all heads.
        keys: width of a token's keys, summed over all key heads. It equals the width of the values.
        heads: number of query heads.
        intermediate: width of a token's feed-forward layer; with experts, summed over the experts of one token.
        routed: number of experts per token; 0 for a model without experts.
        vocabulary: number of token ids.
        positions: largest number of tokens in a row; 0 if there is no limit.
        plain_head: whether the logits are only the head applied to the last hidden states. False if the model scales or
            caps the logits.
        linears: weights of all linear layers that `all-linear` adapts.
        never_quantised: names of the modules among them that are not quantised (model/lora_targets.py).
        others: all other weights (embeddings, norms, biases, the head unless it is tied, experts, projections of a
            Mamba mixer). They are never quantised.
    """

    layers: int
    hidden: int
    attention: int
    keys: int
    heads: int
    intermediate: int
    routed: int
    vocabulary: int
    positions: int
    plain_head: bool
    linears: tuple[Weight, ...]
    others: tuple[Weight, ...]
    never_quantised: frozenset[str] = frozenset()

    @property
    def experts(self) -> tuple[Weight, ...]:
        """The weights of a mixture's experts: of one expert each (in files), or of all experts of a layer (loaded)."""
        return tuple(weight for weight in self.others if _is_expert(weight))

    @property
    def largest_linear(self) -> int:
        """Number of elements in the largest linear layer's weight that is quantised."""
        return max((weight.size for weight in self.quantised), default=0)

    @property
    def quantised(self) -> Iterator[Weight]:
        """The weights that `model.quantization` quantises."""
        return (weight for weight in self.linears if weight.module not in self.never_quantised)


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config.json that describes the language model: a section of its own in an image-text model."""
    text = config.get("text_config")
    return text if text and isinstance(text, Mapping) else config


def model_shape(
    config: Mapping[str, Any], tensors: TensorShapes, never_quantised: frozenset[str] = frozenset()
) -> ModelShape | None:
    """The sizes of a model; None if the config lacks a size.

    Experts are not in `linears`. transformers 5 keeps the experts of a layer in one three-dimensional parameter, and
    bitsandbytes does not quantise it (transformers:integrations/bitsandbytes.py replaces only nn.Linear).

    Args:
        config: the model's config.json.
        tensors: the shapes of its tensors.
        never_quantised: names of linear layers that are not quantised. Without them the names of tensors decide.
    """
    sizes = _Sizes(text_config(config))
    if not (sizes.hidden and sizes.layers and sizes.heads and sizes.vocabulary):
        return None
    tied = bool(config.get("tie_word_embeddings"))
    weights = [(name, Weight(module=_module(name), shape=tuple(shape))) for name, shape in tensors.items()]
    weights = [(name, weight) for name, weight in weights if not (tied and is_head(weight.module))]
    in_mixers = _read_by_mixers(tensors)
    linears = tuple(
        weight
        for name, weight in weights
        if _is_linear(name, weight, experts=sizes.experts > 0) and weight.module not in in_mixers
    )
    chosen = set(linears)
    return ModelShape(
        layers=sizes.layers,
        hidden=sizes.hidden,
        attention=sizes.heads * sizes.head_width,
        keys=sizes.key_heads * sizes.head_width,
        heads=sizes.heads,
        intermediate=sizes.intermediate_of_token,
        routed=sizes.routed,
        vocabulary=sizes.vocabulary,
        positions=sizes.positions,
        plain_head=not any(sizes.has(name) for name in _HEAD_TRICKS),
        linears=linears,
        others=tuple(weight for _, weight in weights if weight not in chosen),
        never_quantised=never_quantised or _named_like_experts(linears, tensors),
    )


def tensors_of_llama(config: Mapping[str, Any], file_bytes: int) -> TensorShapes | None:
    """The tensors of a model with Llama's layers, from its config.json and the size of its weights.

    Most decoders on the Hub have these layers under these names (Llama, Mistral, Qwen, SmolLM, Gemma). The size is used
    as a check.

    Args:
        config: the model's config.json.
        file_bytes: bytes of the files of weights.

    Returns:
        The shapes by name; None if the tensors' size does not match the files', or the config lacks a size.
    """
    sizes, width = _Sizes(config), _BYTES_OF.get(str(config.get("torch_dtype") or config.get("dtype")))
    if not (sizes.hidden and sizes.layers and sizes.heads and sizes.vocabulary and width) or sizes.experts:
        return None
    tensors = dict(sizes.llama())
    for candidate in (tensors, {**tensors, "lm_head.weight": (sizes.vocabulary, sizes.hidden)}):
        if abs(sum(map(prod, candidate.values())) * width - file_bytes) <= _TOLERANCE * file_bytes:
            return candidate
    return None


_BYTES_OF = {"float32": 4, "bfloat16": 2, "float16": 2}


class _Sizes:
    """The sizes in a config.json, under any of the names that models use; 0 for a missing size."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self.hidden = self._of("hidden_size", "n_embd", "d_model")
        self.layers = self._of("num_hidden_layers", "n_layer", "num_layers", largest=_MOST_LAYERS)
        self.heads = self._of("num_attention_heads", "n_head")
        self.vocabulary = self._of("vocab_size")
        self.positions = self._of("max_position_embeddings", "n_positions", "n_ctx")
        self.key_heads = self._of("num_key_value_heads") or self.heads
        self.head_width = self._of("head_dim") or (self.hidden // self.heads if self.heads else 0)
        self.intermediate = self._of("intermediate_size", "n_inner", "ffn_dim") or 4 * self.hidden
        self.experts = self._of("num_local_experts", "num_experts", "n_routed_experts")
        self.routed = (self._of("num_experts_per_tok") or 2) if self.experts else 0

    @property
    def intermediate_of_token(self) -> int:
        if not self.experts:
            return self.intermediate
        expert = self._of("moe_intermediate_size") or self.intermediate
        return self.routed * expert + self._of("shared_expert_intermediate_size")

    def llama(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        hidden, queries, keys = self.hidden, self.heads * self.head_width, self.key_heads * self.head_width
        layer = {
            "self_attn.q_proj": (queries, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, queries),
            "mlp.gate_proj": (self.intermediate, hidden),
            "mlp.up_proj": (self.intermediate, hidden),
            "mlp.down_proj": (hidden, self.intermediate),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }
        yield "model.embed_tokens.weight", (self.vocabulary, hidden)
        for index in range(self.layers):
            for name, shape in layer.items():
                yield f"model.layers.{index}.{name}.weight", shape
        yield "model.norm.weight", (hidden,)

    def has(self, name: str) -> bool:
        return self._config.get(name) is not None

    def _of(self, *names: str, largest: int = _LARGEST_SIZE) -> int:
        values = (self._config.get(name) for name in names)
        return next((value for value in values if type(value) is int and 0 < value <= largest), 0)


def named(weight: Weight, names: Iterable[str]) -> bool:
    """Whether a weight's module is one of the named ones. By PEFT's rule a name matches a module's name or its end."""
    return any(weight.module == name or weight.module.endswith(f".{name}") for name in names)


def is_head(module: str) -> bool:
    """Whether a module with this name is an output head."""
    return _last(module) in _HEADS


def _is_linear(name: str, weight: Weight, *, experts: bool) -> bool:
    last = _last(weight.module)
    if len(weight.shape) != 2 or not name.endswith(".weight") or last in (*_TABLES, *_HEADS):
        return False
    return not experts or not (last in _ROUTERS or ".experts." in f".{weight.module}.")


def _named_like_experts(linears: Iterable[Weight], tensors: TensorShapes) -> frozenset[str]:
    """Names of the dense layers and shared experts that PEFT takes for experts, because files name both alike."""
    names = {match[1] for name in tensors if (match := _ONE_EXPERT.search(name))}
    return frozenset(weight.module for weight in linears if _last(weight.module) in names)


def _read_by_mixers(tensors: TensorShapes) -> set[str]:
    """Names of the layers whose weight a Mamba mixer reads itself. They are neither quantised nor adapted."""
    mixers = [name.removesuffix(_MIXER) for name in tensors if name.endswith(f".{_MIXER}")]
    return {f"{mixer}{name}" for mixer in mixers for name in _IN_MIXERS}


def _is_expert(weight: Weight) -> bool:
    _, inside, rest = f".{weight.module}.".rpartition(".experts.")
    return bool(inside) and len(weight.shape) == (2 if rest else 3)


def _module(name: str) -> str:
    return name.rpartition(".")[0] or name


def _last(module: str) -> str:
    return module.rpartition(".")[2]
