"""The section `lora`: the adapter (PEFT's LoRA)."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_trainer.contract.rule import decimal
from finetune_trainer.contract.scalar import DECIMAL_LENGTH, PLAIN
from finetune_trainer.contract.uri import HubRevision, ModelUri
from finetune_trainer.contract.wire import Wire

ALL_LINEAR = "all-linear"
"""The language model's linear layers except the output head, and its experts. PEFT's word, which also means others."""


class LoraBias(StrEnum):
    """The biases that are trained with the adapter (PEFT's names)."""

    NONE = "none"
    ALL = "all"
    LORA_ONLY = "lora_only"


class LoraVariant(StrEnum):
    """The kind of low-rank adapter."""

    LORA = "lora"
    RSLORA = "rslora"
    DORA = "dora"


Dropout = Annotated[
    str,
    Field(max_length=DECIMAL_LENGTH),
    decimal('must be a decimal in quotes from "0" to below "1", for example "0.05"', below=1.0),
]
ModuleName = Annotated[str, Field(min_length=1, max_length=128), PLAIN]


class LoraSpec(Wire):
    """The adapter that is trained."""

    rank: int = Field(
        16, ge=1, le=1024, description="Rank (r): inner dimension of the adapter's matrices. Default: 16."
    )
    alpha: int = Field(
        32,
        ge=1,
        le=4096,
        description="Scale of the adapter. Its output is multiplied by alpha/rank. Default: 32.",
    )
    dropout: Dropout = Field("0", description='Dropout on the adapter\'s input, from "0" to below "1". Default: "0".')
    target_modules: Annotated[list[ModuleName], Field(min_length=1, max_length=64)] = Field(
        [ALL_LINEAR],
        description="Names of the modules that get an adapter. Default: [all-linear] (every linear layer of the "
        "language model except the output head, and its experts). Example: [q_proj, v_proj].",
    )
    bias: LoraBias = Field(
        LoraBias.NONE,
        description="Biases that are trained with the adapter: none, all or lora_only. Default: none.",
    )
    variant: LoraVariant = Field(
        LoraVariant.LORA,
        description="Kind of adapter: lora, rslora (scale alpha/sqrt(rank)) or dora (weight-decomposed). Default: "
        "lora.",
    )
    modules_to_save: Annotated[list[ModuleName], Field(min_length=1, max_length=16)] | None = Field(
        None,
        description="Modules that are trained and saved as a whole. Default: none. Example: [embed_tokens, lm_head].",
    )
    initial_adapter_uri: ModelUri | None = Field(
        None,
        description="Adapter from whose weights a new training starts. This is not resume: resume is automatic. "
        "Example: s3://models/adapters/support-bot/3f2a9c0d1e4b/1-0a1b2c3d.",
    )
    initial_adapter_revision: HubRevision | None = Field(
        None,
        description="Branch, tag or commit of an initialAdapterUri on the Hub. It is resolved to a commit, which is "
        "recorded. Default: the main branch.",
    )
