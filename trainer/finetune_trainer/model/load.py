"""Loads the base model from a folder, and quantises it.

BitsAndBytesConfig's own defaults are fp4 and float32 as the compute type, so both are always set. Weights are read only
from safetensors. Nothing is downloaded. Code in the folder runs only if the recipe says so, and the operator refuses
such a recipe unless the administrator allows it.

For damaged files the libraries raise errors of any class (tokenizers raises plain Exception). So every error is
reported as an error of the model, except the known errors of the machine.
"""

import copy
import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
)
from transformers.quantizers.base import get_keys_to_not_convert
from transformers.utils import logging as transformers_logging

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe.model import (
    Attention,
    ComputeDtype,
    DeviceMap,
    ModelSpec,
    QuantizationType,
)
from finetune_trainer.model.attention import NAME, avoid_cudnn_attention, obstacle_to_varlen, register_varlen
from finetune_trainer.model.deterministic_forward import make_forward_deterministic
from finetune_trainer.model.files import require_unquantised
from finetune_trainer.model.fused_norms import fuse_norms
from finetune_trainer.model.hub_kernels import require_no_hub_kernels
from finetune_trainer.model.layers import require_no_surplus
from finetune_trainer.model.layerwise_loading import on_each_layer_loaded
from finetune_trainer.model.lora_targets import layers_never_quantised
from finetune_trainer.model.model_types import require_language_model
from finetune_trainer.runtime.machine_errors import is_machine_error

if TYPE_CHECKING:
    from finetune_trainer.model.sharded_weights import ShardedWeights

_DTYPES = {
    ComputeDtype.BFLOAT16: torch.bfloat16,
    ComputeDtype.FLOAT16: torch.float16,
    ComputeDtype.FLOAT32: torch.float32,
}


def compute_dtype(chosen: ComputeDtype) -> torch.dtype:
    """The number type of the matrix products; auto depends on the device.

    On a CPU auto is float32. bfloat16 is exact enough, but five times slower than float32, even on CPUs with bfloat16
    instructions (measured with SmolLM2-135M). float16 also becomes float32 on a CPU, because CPUs have no float16
    products. So recipes for older GPUs also run on a CPU.
    """
    if chosen is ComputeDtype.FLOAT16 and not torch.cuda.is_available():
        return torch.float32
    if chosen is not ComputeDtype.AUTO:
        return _DTYPES[chosen]
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def load_base(
    folder: Path, spec: ModelSpec, dtype: torch.dtype, sharded_weights: "ShardedWeights | None" = None
) -> Any:
    """The base model on the GPU or CPU, quantised as in the recipe.

    Args:
        folder: the model's files.
        spec: the recipe's settings for quantisation, attention and placement.
        dtype: number type of the matrix products, and of the weights that are not quantised.
        sharded_weights: shards every decoder layer when it is loaded, so that at most two layers are whole at a time;
            None if the model is not sharded.

    Raises:
        TrainerError: MODEL_INVALID, the files are damaged, incomplete or of an unknown architecture; NOT_SUPPORTED, the
            weights are quantised already, or the architecture or machine lacks a feature that the recipe requests;
            GPU_OUT_OF_MEMORY, the model does not fit into the GPUs.
    """
    transformers_logging.disable_progress_bar()
    avoid_cudnn_attention()
    config = _config(folder, remote_code=spec.trust_remote_code)
    require_unquantised(spec.uri, config.to_dict())
    # config.to_dict() leaves the implementations out.
    stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    require_no_hub_kernels(spec.uri, stated)
    require_language_model(spec.uri, stated, remote_code=spec.trust_remote_code)
    attention = _attention(spec.attention, config)
    placed: Any = device_map(spec.device_map, gpu=torch.cuda.current_device() if torch.cuda.is_available() else None)
    try:
        with on_each_layer_loaded(sharded_weights.shard_layer) if sharded_weights is not None else nullcontext():
            model, loaded = AutoModelForCausalLM.from_pretrained(
                folder,
                output_loading_info=True,
                dtype=dtype,
                quantization_config=_quantization(spec, config, dtype),
                attn_implementation=attention,
                device_map=placed,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=spec.trust_remote_code,
            )
    except Exception as error:
        if is_machine_error(error):
            raise
        if "dispatched on the CPU or the disk" in str(error):  # transformers:quantizers/quantizer_bnb_4bit.py
            raise _too_large() from error
        raise unusable("the base model cannot be loaded", error) from error
    # transformers initialises weights that the files lack at random, and only logs a warning.
    if absent := sorted(loaded["missing_keys"]):
        raise TrainerError(
            FailureReason.MODEL_INVALID,
            f"the base model's files lack {len(absent)} of its weights, {absent[0]} for one: the folder is incomplete, "
            "or its config.json belongs to another model",
        )
    require_no_surplus(stated, loaded["unexpected_keys"])
    _require_on_gpus(model)
    _require_shapes(model)
    _keep_weights_as_packed(model)
    make_forward_deterministic(model)
    fuse_norms(model)
    if sharded_weights is not None:
        sharded_weights.require_all_layers(model)
        if torch.cuda.is_available():
            # NCCL allocates its buffers outside of torch's allocator, which has kept the memory of whole layers.
            torch.cuda.empty_cache()
    return model


def device_map(requested: DeviceMap, *, gpu: int | None) -> str | dict[str, int] | None:
    """The device map for accelerate, which spreads the layers over the visible GPUs.

    Without one, the whole model is read straight to this process's GPU. transformers reads unquantised weights to the
    CPU otherwise: they would take the host's memory, the first look at the model (train/isolation.py) would be at the
    CPU's attention, and sharded weights could not be moved later.

    Args:
        requested: `model.deviceMap`.
        gpu: number of this process's GPU; None if there is none.

    Raises:
        TrainerError: NOT_SUPPORTED, a device map is requested and there is no GPU.
    """
    if requested is DeviceMap.NONE:
        return None if gpu is None else {"": gpu}
    if gpu is None:
        raise TrainerError(
            FailureReason.NOT_SUPPORTED,
            f"spec.model.deviceMap: {requested}: layers are spread over GPUs, and this machine has none; remove the "
            "field",
        )
    return str(requested)


def _require_on_gpus(model: Any) -> None:
    """Requires that no layer was placed on the CPU or disk, from where training would take weeks.

    Raises:
        TrainerError: GPU_OUT_OF_MEMORY, some layer is not on a GPU.
    """
    places = set((getattr(model, "hf_device_map", None) or {}).values())
    if torch.cuda.is_available() and places & {"cpu", "disk", torch.device("cpu")}:
        raise _too_large()


def _too_large() -> TrainerError:
    return TrainerError(
        FailureReason.GPU_OUT_OF_MEMORY,
        "the base model does not fit into the GPUs' memory; raise resources.gpus with model.deviceMap balanced or "
        "model.sharding full, or quantise it to 4 bit",
    )


def _config(folder: Path, *, remote_code: bool) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=remote_code)
    except Exception as error:
        if is_machine_error(error):
            raise
        raise unusable("the model's config.json cannot be used", error) from error


def unusable(what: str, error: Exception) -> TrainerError:
    """The error of unusable model files.

    transformers' message for a model that needs its own code names an argument of transformers. It is replaced.
    """
    why = str(error)
    if "trust_remote_code" in why:
        why = (
            "it needs Python code of the model's repository, which runs only with model.trustRemoteCode: true, and "
            "only where the administrator allows it"
        )
    return TrainerError(FailureReason.MODEL_INVALID, f"{what}: {why}")


def _attention(requested: Attention, config: Any) -> str | None:
    """The name of the attention in transformers. auto is the first supported one of varlen, SDPA and eager.

    None leaves the choice to transformers. It is for auto with an architecture that transformers does not know, whose
    code is in the model's repository.

    Raises:
        TrainerError: NOT_SUPPORTED, the architecture lacks the requested attention (Bloom and GPT-J have no SDPA).
    """
    if requested is Attention.EAGER:
        return "eager"
    architecture = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if architecture is None and requested is Attention.AUTO:
        return None
    if requested in (Attention.VARLEN, Attention.AUTO):
        if (obstacle := obstacle_to_varlen(architecture, config)) is None:
            register_varlen()
            return NAME
        if requested is Attention.VARLEN:
            message = f"spec.model.attention: {requested}: {obstacle}; use auto"
            raise TrainerError(FailureReason.NOT_SUPPORTED, message)
    # The attribute is private upstream, but transformers itself decides by it. It also refuses unknown classes.
    if getattr(architecture, "_supports_sdpa", True):
        return "sdpa"
    if requested is Attention.AUTO:
        return "eager"
    raise TrainerError(
        FailureReason.NOT_SUPPORTED,
        f"spec.model.attention: {requested}: models of type {config.model_type} have none; use auto or eager",
    )


def _quantization(spec: ModelSpec, config: Any, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    if spec.quantization.type is QuantizationType.NONE:
        return None
    skipped = _never_quantised(config, remote_code=spec.trust_remote_code)
    if spec.quantization.type is QuantizationType.INT8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=str(spec.quantization.type),
        bnb_4bit_use_double_quant=spec.quantization.double_quant,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=skipped,
    )


def _never_quantised(config: Any, *, remote_code: bool) -> list[str] | None:
    """Names of the layers that bitsandbytes must leave as they are; None for transformers' own choice."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config), trust_remote_code=remote_code)
    names = layers_never_quantised(model)
    # A list takes the place of transformers' own choice (head and tied weights), which is added again.
    return [*names, *get_keys_to_not_convert(model)] if names else None


def _require_shapes(model: torch.nn.Module) -> None:
    """Requires that quantised weights have the shapes of config.json. transformers checks only the other weights.

    Raises:
        TrainerError: MODEL_INVALID, a weight has another shape.
    """
    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            shape = tuple(module.weight.quant_state.shape)
        elif isinstance(module, Linear8bitLt):
            shape = tuple(module.weight.shape)
        else:
            continue
        if shape != (expected := (module.out_features, module.in_features)):
            raise TrainerError(
                FailureReason.MODEL_INVALID,
                f"the base model's weight {name} has the shape {shape}, and its config.json says {expected}",
            )


def _keep_weights_as_packed(model: torch.nn.Module) -> None:
    """Stops bitsandbytes from repacking 4-bit weights for a CPU kernel that has no backward pass.

    On CPUs with AVX512-BF16 the first forward pass in evaluation mode rewrites the weight in place
    (bitsandbytes:nn/modules.py, since PR #1804), and it is never restored. Every later training step then has no
    gradients for the layers before, and only a generic warning is logged.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
