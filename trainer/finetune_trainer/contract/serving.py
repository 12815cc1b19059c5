"""Which adapters a server cannot load, by the recipe alone.

The limits are those of vLLM, which KServe and AIBrix serve with. It loads PEFT's folder, but not every kind of adapter
(vllm:lora/peft_helper.py; vllm:config/lora.py has the ranks).
"""

from finetune_trainer.contract.recipe.lora import LoraBias, LoraSpec, LoraVariant

_LARGEST_RANK = 512


def serving_limits(lora: LoraSpec) -> list[str]:
    """The fields because of which vLLM does not load the adapter; empty when it does."""
    limits = []
    if lora.rank > _LARGEST_RANK:
        limits.append(f"lora.rank: {lora.rank} is above {_LARGEST_RANK}")
    if lora.variant is LoraVariant.DORA:
        limits.append(f"lora.variant: {lora.variant}")
    if lora.bias is not LoraBias.NONE:
        limits.append(f"lora.bias: {lora.bias}")
    if lora.modules_to_save:
        limits.append("lora.modulesToSave")
    return limits


def serving_warning(lora: LoraSpec) -> str | None:
    """A sentence for the user whose adapter vLLM does not load; None when it does."""
    if not (limits := serving_limits(lora)):
        return None
    return f"vLLM does not load an adapter with {', '.join(limits)}: serve the merged model (output.merged), or PEFT."
