"""The section `model`: the place of the base model, and how it is loaded."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_trainer.contract.scalar import SECRET_KEY, ObjectName
from finetune_trainer.contract.uri import CacheUri, HubRevision, ModelUri
from finetune_trainer.contract.wire import Wire


class QuantizationType(StrEnum):
    """The quantisation type of the frozen base weights (bitsandbytes)."""

    NF4 = "nf4"
    FP4 = "fp4"
    INT8 = "int8"
    NONE = "none"


class ComputeDtype(StrEnum):
    """The number type in which matrix products are computed."""

    AUTO = "auto"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT32 = "float32"


class Attention(StrEnum):
    """The attention implementation."""

    AUTO = "auto"
    SDPA = "sdpa"
    EAGER = "eager"
    VARLEN = "varlen"


class DeviceMap(StrEnum):
    """How one process spreads the model's layers over the pod's GPUs (accelerate's names)."""

    NONE = "none"
    AUTO = "auto"
    BALANCED = "balanced"
    BALANCED_LOW_0 = "balanced_low_0"
    SEQUENTIAL = "sequential"


class Sharding(StrEnum):
    """Whether the base model's weights are sharded over the processes of a training."""

    NONE = "none"
    FULL = "full"


class Quantization(Wire):
    """How the frozen base model is quantised. The adapter itself is trained in float32."""

    type: QuantizationType = Field(
        QuantizationType.NF4,
        description="Type of the frozen base weights: nf4 or fp4 (4 bit), int8, or none. Default: nf4.",
    )
    double_quant: bool = Field(
        default=True,
        description="Quantise the scales too, which saves about 0.37 bits per weight. For 4-bit types only. "
        "Default: true.",
    )
    compute_dtype: ComputeDtype = Field(
        ComputeDtype.AUTO,
        description="Number type of the matrix products: bfloat16, float16 or float32. auto is bfloat16, float16 on "
        "GPUs without bfloat16, float32 on a CPU. On a CPU float16 means float32. Default: auto.",
    )


class SecretKeyRef(Wire):
    """One key of a Secret in the job's namespace. The Secret is mounted; the operator never reads it."""

    name: ObjectName = Field(description="Name of the Secret. Example: hub-token.")
    key: Annotated[str, Field(min_length=1, max_length=253), SECRET_KEY] = Field(
        "token", description="Key in the Secret that holds the value. Default: token."
    )


class ModelSpec(Wire):
    """The base model."""

    uri: ModelUri = Field(
        description="Where the base model is: hf://org/name, s3://bucket/prefix, pvc://claim/path. Weights must be "
        "safetensors. Example: hf://meta-llama/Llama-2-7b-chat-hf."
    )
    revision: HubRevision | None = Field(
        None,
        description="Branch, tag or commit of a Hub model. It is resolved to a commit, which is recorded. Default: the "
        "main branch. Example: f5db02db724555f92da89c216ac04704f23d4590.",
    )
    token_secret_ref: SecretKeyRef | None = Field(
        None,
        description="Hub access token for gated or private models and data sets: a key of a Secret in this namespace.",
    )
    cache: CacheUri | None = Field(
        None,
        description="Where downloaded hf:// and s3:// models are kept for other jobs: a claim that training pods "
        "may write to, and a folder in it. A volume that is full or read-only is not used. Default: "
        "none, each pod downloads the model. Example: pvc://models/cache.",
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Run the Python code in the model's repository, in the training pod. The operator's "
        "administrator must allow it. Default: false.",
    )
    quantization: Quantization = Field(
        default_factory=Quantization, description="How the frozen base weights are quantised."
    )
    attention: Attention = Field(
        Attention.AUTO,
        description="Attention implementation: varlen (each packed row by itself, without a mask; the fastest), "
        "sdpa, eager, or auto (the first of these that the model supports). Default: auto.",
    )
    device_map: DeviceMap = Field(
        DeviceMap.NONE,
        description="How layers are placed. none: one process per GPU. auto, balanced, balanced_low_0, sequential: "
        "one process, with its layers spread over the pod's GPUs. Default: none.",
    )
    sharding: Sharding = Field(
        Sharding.NONE,
        description="Whether the processes of a training divide the frozen base weights. none: each has all of "
        "them. full: each has a share, and collects a layer only while it runs. So a model too large "
        "for one GPU trains on several, on one node or more. Default: none.",
    )
