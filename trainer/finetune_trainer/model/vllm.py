"""Which adapters vLLM does not load, by the base model's architecture; `contract/serving.py` has the limits by recipe.

Read in the sources of vLLM 0.33.0 (2 November 2026): `model_executor/models/registry.py` names a class for each
architecture, and the class says whether it takes LoRA (`SupportsLoRA`). Architectures that it does not name run in its
Transformers backend, which takes LoRA. Experts are in `lora/model_manager.py`. KServe and AIBrix serve with vLLM.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from finetune_trainer.contract.recipe.lora import LoraSpec
from finetune_trainer.contract.serving import serving_warning
from finetune_trainer.memory.shape import text_config
from finetune_trainer.memory.trainable import adapts_experts

VERSION = "0.33"
"""Of vLLM, from which the names are."""
_WITHOUT_LORA_NAMES = """
BeamForCausalLM BloomForCausalLM Cohere2MoeForCausalLM DbrxForCausalLM DeepseekV32ForCausalLM DoryForCausalLM
Dots3NoteForCausalLM FalconForCausalLM FalconMambaForCausalLM FlintForCausalLM GPT2LMHeadModel GPTJForCausalLM
Gemma3nForCausalLM Gemma3nForConditionalGeneration GlmMoeDsaForCausalLM HrmTextForCausalLM KimiLinearForCausalLM
Mamba2ForCausalLM MambaForCausalLM MiMoV2FlashForCausalLM MiniMaxM3SparseForCausalLM StableLmForCausalLM
Zamba2ForCausalLM
"""
_WITHOUT_LORA = frozenset(_WITHOUT_LORA_NAMES.split())
"""Architectures whose class in vLLM takes no LoRA."""
_NOT_SERVED_NAMES = """
BambaForCausalLM Dots1ForCausalLM MiniMaxForCausalLM MptForCausalLM PersimmonForCausalLM Phi4MultimodalForCausalLM
"""
_NOT_SERVED = frozenset(_NOT_SERVED_NAMES.split())
"""Architectures that vLLM served in the past, and refuses by name."""
_OWN_CLASS_NAMES = """
AXK1ForCausalLM AfmoeForCausalLM ApertusForCausalLM Cohere2ForCausalLM CohereForCausalLM DeepseekV2ForCausalLM
DeepseekV3ForCausalLM DeepseekV4ForCausalLM Ernie4_5ForCausalLM Ernie4_5_MoeForCausalLM Exaone4ForCausalLM
ExaoneMoeForCausalLM FalconH1ForCausalLM Gemma2ForCausalLM Gemma3ForCausalLM Gemma3ForConditionalGeneration
Gemma4ForCausalLM Gemma4ForConditionalGeneration Gemma4UnifiedForConditionalGeneration GemmaForCausalLM Glm4ForCausalLM
Glm4MoeForCausalLM Glm4MoeLiteForCausalLM GptOssForCausalLM GraniteForCausalLM GraniteMoeForCausalLM
GraniteMoeHybridForCausalLM GraniteMoeSWAForCausalLM GraniteMoeSharedForCausalLM GraniteSWAForCausalLM HYV3ForCausalLM
HYV4ForCausalLM HyperCLOVAXForCausalLM InklingForCausalLM JambaForCausalLM LagunaForCausalLM Lfm2ForCausalLM
Lfm2MoeForCausalLM Llama4ForCausalLM Llama4ForConditionalGeneration LlamaForCausalLM LongcatFlashForCausalLM
MiniCPM3ForCausalLM MiniMaxM2ForCausalLM Ministral3ForCausalLM MistralForCausalLM MixtralForCausalLM
NemotronForCausalLM NemotronHForCausalLM OPTForCausalLM OlmoHybridForCausalLM OlmoeForCausalLM PhiMoEForCausalLM
PhimoeForCausalLM Phi3ForCausalLM Qwen2ForCausalLM Qwen2MoeForCausalLM Qwen3ForCausalLM Qwen3MoeForCausalLM
Qwen3NextForCausalLM Qwen3_5ForCausalLM Qwen3_5ForConditionalGeneration Qwen3_5MoeForCausalLM
Qwen3_5MoeForConditionalGeneration Qwen4ExpForCausalLM
"""
_OWN_CLASS = frozenset(_OWN_CLASS_NAMES.split())
"""Architectures with a class of their own in vLLM that takes LoRA."""
_FUSED_EXPERTS = frozenset({"GptOssForCausalLM", "Qwen3_5MoeForConditionalGeneration"})
"""Architectures whose experts vLLM reads as PEFT writes them; the others need a switch of the server."""
_LANGUAGE_MODELS = {
    "llama4": "Llama4ForCausalLM",
    "qwen3_5": "Qwen3_5ForCausalLM",
    "qwen3_5_moe": "Qwen3_5MoeForCausalLM",
    "qwen4_exp": "Qwen4ExpForCausalLM",
}
"""model_type of an image-text model -> the class of its language model, which transformers loads and the adapter names
its layers by. vLLM's class of the whole model has other names for them, and leaves out what it does not find."""
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


class Support(StrEnum):
    """What vLLM does with an adapter of an architecture."""

    OWN_CLASS = "yes"
    BACKEND = "by its Transformers backend"
    NO = "no"


def lora_support(architecture: str) -> Support:
    """Whether vLLM loads adapters of an architecture, for example of `LlamaForCausalLM`."""
    if architecture in _WITHOUT_LORA | _NOT_SERVED:
        return Support.NO
    return Support.OWN_CLASS if architecture in _OWN_CLASS else Support.BACKEND


def needs_expert_switch(architecture: str) -> bool:
    """Whether vLLM needs `--enable-mixed-moe-lora-format` for an adapter of experts."""
    return architecture not in _FUSED_EXPERTS


def language_model_of(model_type: str) -> str | None:
    """The class that vLLM must be told to take for an image-text model; None where its own choice is right."""
    return _LANGUAGE_MODELS.get(model_type)


def vllm_warnings(lora: LoraSpec, config: Mapping[str, Any]) -> list[str]:
    """Sentences for a user whose adapter vLLM does not load, or loads only with a switch.

    Args:
        lora: the adapter.
        config: the base model's config.json.
    """
    if by_recipe := serving_warning(lora):
        return [by_recipe]
    named = config.get("architectures")
    architecture = str(named[0]) if isinstance(named, list) and named else ""
    if lora_support(architecture) is Support.NO:
        what = "does not serve" if architecture in _NOT_SERVED else "loads no adapter of"
        return [f"vLLM {VERSION} {what} {architecture}: serve the merged model (output.merged), or PEFT."]
    found = []
    served = architecture
    if language_model := language_model_of(str(config.get("model_type"))):
        served = language_model
        overrides = f'{{"architectures": ["{language_model}"]}}'
        found.append(
            f"The adapter is one of the language model. Serve it in vLLM with --hf-overrides '{overrides}': vLLM's "
            f"{architecture or 'own choice'} has other names for the layers, and would leave the adapter out without "
            "an error."
        )
    experts = any(isinstance(count := text_config(config).get(name), int) and count > 1 for name in _EXPERTS)
    if experts and adapts_experts(lora) and needs_expert_switch(served):
        found.append(
            "vLLM loads an adapter of experts with --enable-mixed-moe-lora-format, and is_3d_lora_weight: true where "
            "the adapter is named."
        )
    return found
