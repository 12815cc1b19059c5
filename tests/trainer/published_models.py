"""Sizes of published models, as in the config.json of the repository that is named, and their number of parameters.

The parameters are those of the model's card, in billions: `shape_of` requires that the sizes give about as many.
"""

from dataclasses import dataclass
from typing import Any

from finetune_trainer.memory.shape import ModelShape, model_shape

_TOLERANCE = 0.03


@dataclass(frozen=True, slots=True)
class Published:
    """A published model: its repository on the Hub, its parameters in billions, its model_type and its sizes."""

    repository: str
    billions: float
    model_type: str
    sizes: dict[str, Any]


def _dense(hidden: int, intermediate: int, layers: int, heads: int, keys: int, vocabulary: int, **own: Any) -> Any:
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "vocab_size": vocabulary,
        **own,
    }


_TIED = {"tie_word_embeddings": True}
_UNTIED = {"tie_word_embeddings": False}
_128 = {"head_dim": 128}

MODELS = (
    Published("meta-llama/Llama-3.2-1B", 1.24, "llama", _dense(2048, 8192, 16, 32, 8, 128256, head_dim=64, **_TIED)),
    Published("meta-llama/Llama-3.2-3B", 3.21, "llama", _dense(3072, 8192, 28, 24, 8, 128256, **_TIED)),
    Published("meta-llama/Llama-3.1-8B", 8.03, "llama", _dense(4096, 14336, 32, 32, 8, 128256)),
    Published("meta-llama/Llama-3.1-70B", 70.6, "llama", _dense(8192, 28672, 80, 64, 8, 128256)),
    Published("mistralai/Mistral-7B-v0.3", 7.25, "mistral", _dense(4096, 14336, 32, 32, 8, 32768)),
    Published("mistralai/Mistral-Nemo-Base-2407", 12.2, "mistral", _dense(5120, 14336, 40, 32, 8, 131072, **_128)),
    Published("mistralai/Mistral-Small-24B-Base-2501", 23.6, "mistral",
              _dense(5120, 32768, 40, 32, 8, 131072, **_128)),
    Published("mistralai/Mixtral-8x7B-v0.1", 46.7, "mixtral", _dense(4096, 14336, 32, 32, 8, 32000)),
    Published("Qwen/Qwen2.5-7B", 7.62, "qwen2", _dense(3584, 18944, 28, 28, 4, 152064)),
    Published("Qwen/Qwen2.5-32B", 32.8, "qwen2", _dense(5120, 27648, 64, 40, 8, 152064)),
    Published("Qwen/Qwen2.5-72B", 72.7, "qwen2", _dense(8192, 29568, 80, 64, 8, 152064)),
    Published("Qwen/Qwen3-0.6B", 0.6, "qwen3", _dense(1024, 3072, 28, 16, 8, 151936, **_128, **_TIED)),
    Published("Qwen/Qwen3-4B", 4.02, "qwen3", _dense(2560, 9728, 36, 32, 8, 151936, **_128, **_TIED)),
    Published("Qwen/Qwen3-8B", 8.19, "qwen3", _dense(4096, 12288, 36, 32, 8, 151936, **_128)),
    Published("Qwen/Qwen3-14B", 14.8, "qwen3", _dense(5120, 17408, 40, 40, 8, 151936, **_128)),
    Published("Qwen/Qwen3-32B", 32.8, "qwen3", _dense(5120, 25600, 64, 64, 8, 151936, **_128)),
    Published("Qwen/Qwen3-30B-A3B", 30.5, "qwen3_moe",
              _dense(2048, 6144, 48, 32, 4, 151936, **_128, num_experts=128, num_experts_per_tok=8,
                     moe_intermediate_size=768)),
    Published("google/gemma-2-9b", 9.24, "gemma2", _dense(3584, 14336, 42, 16, 8, 256000, head_dim=256)),
    Published("google/gemma-2-27b", 27.2, "gemma2", _dense(4608, 36864, 46, 32, 16, 256000, **_128)),
    Published("google/gemma-3-1b-pt", 1.0, "gemma3_text", _dense(1152, 6912, 26, 4, 1, 262144, head_dim=256)),
    Published("google/gemma-3-12b-pt (text)", 11.8, "gemma3_text",
              _dense(3840, 15360, 48, 16, 8, 262208, head_dim=256)),
    Published("google/gemma-3-27b-pt (text)", 27.0, "gemma3_text", _dense(5376, 21504, 62, 32, 16, 262208, **_128)),
    Published("microsoft/Phi-4-mini-instruct", 3.84, "phi3", _dense(3072, 8192, 32, 24, 8, 200064, **_TIED)),
    Published("microsoft/phi-4", 14.7, "phi3", _dense(5120, 17920, 40, 40, 10, 100352)),
    Published("openai/gpt-oss-20b (in bfloat16)", 20.9, "gpt_oss",
              _dense(2880, 2880, 24, 64, 8, 201088, head_dim=64, num_local_experts=32, num_experts_per_tok=4)),
    Published("allenai/OLMo-2-1124-7B", 7.3, "olmo2", _dense(4096, 11008, 32, 32, 32, 100352)),
    Published("ibm-granite/granite-3.3-8b-base", 8.17, "granite", _dense(4096, 12800, 40, 32, 8, 49159, **_TIED)),
    Published("HuggingFaceTB/SmolLM3-3B", 3.08, "smollm3", _dense(2048, 11008, 36, 16, 4, 128256, **_TIED)),
    Published("CohereLabs/c4ai-command-r7b-12-2024", 8.03, "cohere2", _dense(4096, 14336, 32, 32, 8, 256000)),
    Published("zai-org/GLM-4-9B-0414", 9.4, "glm4", _dense(4096, 13696, 40, 32, 2, 151552, **_128, **_UNTIED)),
    Published("ByteDance-Seed/Seed-OSS-36B-Base", 36.2, "seed_oss",
              _dense(5120, 27648, 64, 80, 8, 155136, **_128, **_UNTIED)),
    Published("deepseek-ai/DeepSeek-V2-Lite", 15.7, "deepseek_v2",
              _dense(2048, 10944, 27, 16, 16, 102400, n_routed_experts=64, n_shared_experts=2, num_experts_per_tok=6,
                     moe_intermediate_size=1408, first_k_dense_replace=1, q_lora_rank=None, kv_lora_rank=512,
                     qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128)),
)  # fmt: skip


def shape_of(model: Published) -> ModelShape:
    """The sizes of a model, from an instance without weights.

    Raises:
        ValueError: the sizes give another number of parameters than the model's card.
    """
    import torch
    import transformers

    from finetune_trainer.model.lora_targets import layers_never_quantised

    config = transformers.AutoConfig.for_model(model.model_type, **model.sizes)
    with torch.device("meta"):
        empty = transformers.AutoModelForCausalLM.from_config(config)
    tensors = {name: tuple(weight.shape) for name, weight in empty.named_parameters()}
    billions = sum(weight.numel() for weight in empty.parameters()) / 1e9
    if abs(billions - model.billions) > _TOLERANCE * model.billions:
        raise ValueError(f"{model.repository}: {billions:.2f} billion parameters, its card says {model.billions}")
    shape = model_shape(config.get_text_config().to_dict(), tensors, frozenset(layers_never_quantised(empty)))
    if shape is None:
        raise ValueError(f"{model.repository}: a size is missing")
    return shape
