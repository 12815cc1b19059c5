"""Tiny random models of many architectures: two or three layers, hidden size 64, the tiny model's vocabulary."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.tiny_model import SEED, VOCABULARY

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_IDS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
# With the default standard deviation (0.02) an adapter of a few steps hardly changes the logits.
_WIDE = {"initializer_range": 0.2}
_DECODER = {
    **_IDS,
    **_WIDE,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
_GPT2 = {**_IDS, **_WIDE, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512}
_HEADS = {"head_dim": 16}
_WINDOW = {"sliding_window": 32}
_EXPERTS = {"num_experts_per_tok": 2}
_SMALL_EXPERTS = {**_EXPERTS, "num_experts": 4, "moe_intermediate_size": 32}
_LOCAL_EXPERTS = {**_EXPERTS, "num_local_experts": 4}
_LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
}
_DEEPSEEK = {
    **_EXPERTS,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
_DELTA = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
_MIXED_LAYERS = ["linear_attention", "full_attention"]
_MAMBA = {**_IDS, **_WIDE, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8}
_MAMBA_2 = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 1}
_EYES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_IMAGE = {"image_token_id": 351, "video_token_id": 350, "vision_start_token_id": 349, "vision_end_token_id": 348}
_GEMMA_IMAGE = {"image_token_index": 351, "boi_token_index": 350, "eoi_token_index": 349, "mm_tokens_per_image": 4}
_ROTARY = {"rope_type": "default", "mrope_section": [2, 3, 3]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A tiny model of one architecture.

    Attributes:
        model_type: transformers' name of the architecture.
        config: arguments of its configuration.
        head: transformers' auto class that makes the model.
    """

    model_type: str
    config: dict[str, Any] = field(default_factory=dict)
    head: str = "AutoModelForCausalLM"

    def write(self, folder: Path, tiny_model: Path) -> Path:
        """Writes the model with random weights, and the tiny model's tokenizer; returns the folder."""
        import torch
        import transformers

        folder.mkdir(parents=True)
        config = transformers.AutoConfig.for_model(self.model_type, **self.config)
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            model = getattr(transformers, self.head).from_config(config)
            for parameter in model.parameters():
                if not parameter.any():
                    # Biases and scales that begin at zero would hide what is behind them.
                    parameter.data.normal_(std=0.1)
            model.save_pretrained(folder)
        for name in _TOKENIZER:
            shutil.copyfile(tiny_model / name, folder / name)
        return folder


def _text(model_type: str, *parts: dict[str, Any], base: dict[str, Any] = _DECODER, **own: Any) -> Architecture:
    config: dict[str, Any] = dict(base)
    for part in (*parts, own):
        config |= part
    return Architecture(model_type=model_type, config=config)


def _seeing(model_type: str, text: dict[str, Any], eyes: dict[str, Any], **own: Any) -> Architecture:
    sections = {"text_config": {**_DECODER, **text}, "vision_config": eyes}
    return Architecture(model_type=model_type, config={**sections, **own}, head="AutoModelForImageTextToText")


def _translating(model_type: str, **config: Any) -> Architecture:
    return Architecture(model_type=model_type, config={**_IDS, **config}, head="AutoModelForSeq2SeqLM")


_ALL = [
    _text("llama"),
    _text("mistral", _WINDOW),
    _text("ministral", _HEADS, _WINDOW, layer_types=["sliding_attention", "full_attention"]),
    _text("ministral3", _HEADS),
    _text("qwen2"),
    _text("qwen3", _HEADS),
    _text("qwen3_5_text", _HEADS, _DELTA, layer_types=_MIXED_LAYERS),
    _text("gemma", _HEADS),
    _text("gemma2", _HEADS, _WINDOW, query_pre_attn_scalar=16),
    _text("gemma3_text", _HEADS, _WINDOW, query_pre_attn_scalar=16),
    _text(
        "gemma3n_text", _HEADS, _WINDOW, layer_types=["sliding_attention", "full_attention"], num_kv_shared_layers=0,
        hidden_size_per_layer_input=16, vocab_size_per_layer_input=VOCABULARY, laurel_rank=8,
        activation_sparsity_pattern=[0.0, 0.0], intermediate_size=[128, 128],
    ),
    _text("gemma4_text", _HEADS, _WINDOW, layer_types=["sliding_attention", "full_attention"], global_head_dim=16,
          hidden_size_per_layer_input=16, vocab_size_per_layer_input=VOCABULARY, num_kv_shared_layers=0),
    _text("phi"),
    _text("phi3", rope_scaling=None),
    _text("stablelm"),
    _text("starcoder2"),
    _text("cohere"),
    _text("cohere2", _WINDOW),
    _text("olmo"),
    _text("olmo2"),
    _text("olmo3", _WINDOW),
    _text("granite"),
    _text("glm", _HEADS),
    _text("glm4", _HEADS),
    _text("smollm3"),
    _text("exaone4", _WINDOW),
    _text("nemotron"),
    _text("ernie4_5", _HEADS),
    _text("seed_oss", _HEADS),
    _text("hunyuan_v1_dense", _HEADS),
    _text("apertus"),
    _text("arcee"),
    _text("helium", _HEADS),
    _text("internlm3", _HEADS),
    _text("diffllama"),
    _text("persimmon"),
    _text("nanochat"),
    _text("bitnet"),
    _text("gpt_neox"),
    _text("gpt2", base=_GPT2),
    _text("gpt_bigcode", base=_GPT2),
    _text("gptj", base=_GPT2, rotary_dim=8),
    _text("codegen", base=_GPT2, rotary_dim=8),
    _text("gpt_neo", num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], window_size=32),
    _text("opt", ffn_dim=128, word_embed_proj_dim=64),
    _text("bloom", base={**_IDS, **_WIDE, "hidden_size": 64, "n_layer": 2, "n_head": 4}),
    _text("falcon", new_decoder_architecture=False),
    _text("mpt", base={**_IDS, **_WIDE, "d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 512}),
    _text("xglm", base={**_IDS, "d_model": 64, "ffn_dim": 128, "num_layers": 2, "attention_heads": 4, "init_std": 0.2}),
    _text("biogpt"),
    _text("mixtral", _LOCAL_EXPERTS),
    _text("qwen2_moe", _SMALL_EXPERTS, shared_expert_intermediate_size=64),
    _text("qwen3_moe", _HEADS, _SMALL_EXPERTS),
    _text("qwen3_next", _HEADS, _SMALL_EXPERTS, _DELTA, shared_expert_intermediate_size=32, layer_types=_MIXED_LAYERS),
    _text("qwen3_5_moe_text", _HEADS, _SMALL_EXPERTS, _DELTA, shared_expert_intermediate_size=32,
          layer_types=_MIXED_LAYERS),
    _text("olmoe", _EXPERTS, num_experts=4),
    _text("flex_olmo", _EXPERTS, num_experts=4),
    _text("granitemoe", _LOCAL_EXPERTS),
    _text("granitemoeshared", _LOCAL_EXPERTS, shared_intermediate_size=64),
    _text("phimoe", _LOCAL_EXPERTS),
    _text("gpt_oss", _HEADS, _WINDOW, _LOCAL_EXPERTS),
    _text("llama4_text", _HEADS, intermediate_size_mlp=128, num_local_experts=2, num_experts_per_tok=1),
    _text("deepseek_v2", _LATENT, _DEEPSEEK),
    _text("deepseek_v3", _LATENT, _DEEPSEEK),
    _text("glm4_moe", _HEADS, _DEEPSEEK),
    _text("ernie4_5_moe", _HEADS, moe_num_experts=4, moe_k=2, moe_intermediate_size=32, moe_num_shared_experts=1,
          moe_layer_start_index=1, moe_layer_end_index=1),
    _text("hunyuan_v1_moe", _HEADS, num_experts=4, moe_topk=2, num_shared_expert=1),
    _text("dots1", _HEADS, _DEEPSEEK),
    _text("minimax", _HEADS, num_local_experts=2, num_experts_per_tok=1, layer_types=_MIXED_LAYERS),
    _text("minimax_m2", _HEADS, _LOCAL_EXPERTS, rotary_dim=16),
    _text("dbrx", base={**_IDS, "d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 512,
                        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
                        "ffn_config": {"ffn_hidden_size": 128, "moe_num_experts": 4, "moe_top_k": 2,
                                       "hidden_size": 64}}),
    _text("jetmoe", num_local_experts=4, num_experts_per_tok=2, kv_channels=16),
    _text("mamba", base=_MAMBA),
    _text("mamba2", base=_MAMBA, state_size=16, head_dim=16, num_heads=8, n_groups=1),
    _text("falcon_mamba", base=_MAMBA),
    _text("falcon_h1", mamba_d_ssm=64, mamba_n_heads=4, mamba_d_head=16, mamba_d_state=16, mamba_n_groups=1),
    _text("bamba", _MAMBA_2, attn_layer_indices=[1]),
    _text("jamba", num_experts=2, num_experts_per_tok=1, attn_layer_period=2, attn_layer_offset=1,
          expert_layer_period=2, expert_layer_offset=1, mamba_d_state=8, use_mamba_kernels=False),
    _text("granitemoehybrid", _LOCAL_EXPERTS, _MAMBA_2, layer_types=["mamba", "attention"],
          shared_intermediate_size=64),
    _text("zamba", num_hidden_layers=4, num_key_value_heads=4, layers_block_type=["linear_attention", "hybrid"] * 2,
          mamba_d_state=8, n_mamba_heads=2, use_mamba_kernels=False),
    _text("zamba2", num_hidden_layers=4, num_key_value_heads=4, layers_block_type=["linear_attention", "hybrid"] * 2,
          mamba_d_state=16, n_mamba_heads=8, mamba_headdim=16, mamba_ngroups=1, use_mem_rope=False),
    _text("nemotron_h", num_hidden_layers=3, hybrid_override_pattern="M*-", mamba_num_heads=8, mamba_head_dim=16,
          ssm_state_size=16, n_groups=1, head_dim=16),
    _text("lfm2", layer_types=["conv", "full_attention"]),
    _text("lfm2_moe", _SMALL_EXPERTS, layer_types=["conv", "full_attention"], num_dense_layers=1),
    _text("recurrent_gemma", num_hidden_layers=3, num_key_value_heads=1, lru_width=64, attention_window_size=32),
    _text("rwkv", base={**_IDS, "hidden_size": 64, "attention_hidden_size": 64, "num_hidden_layers": 2,
                        "context_length": 512}),
    _seeing("gemma3", {"model_type": "gemma3_text", **_HEADS, **_WINDOW, "query_pre_attn_scalar": 16},
            {**_EYES, "model_type": "siglip_vision_model"}, **_GEMMA_IMAGE),
    _seeing("llava", {"model_type": "llama"}, {**_EYES, "model_type": "clip_vision_model"}, image_token_index=351),
    _seeing("mistral3", {"model_type": "mistral", **_HEADS}, {**_EYES, "model_type": "pixtral", **_HEADS},
            image_token_index=351),
    _seeing("qwen2_vl", {"model_type": "qwen2_vl_text", "rope_scaling": _ROTARY},
            {"depth": 1, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "patch_size": 14}, **_IMAGE),
    _seeing("qwen2_5_vl", {"model_type": "qwen2_5_vl_text", "rope_scaling": _ROTARY},
            {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 64, "num_heads": 2,
             "patch_size": 14, "fullatt_block_indexes": [0]}, **_IMAGE),
    _seeing("qwen3_vl", {"model_type": "qwen3_vl_text", **_HEADS,
                         "rope_scaling": {**_ROTARY, "mrope_interleaved": True}},
            {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 64, "num_heads": 2,
             "patch_size": 14, "deepstack_visual_indexes": [0], "num_position_embeddings": 16}, **_IMAGE),
    _seeing("idefics3", {"model_type": "llama"}, _EYES, image_token_id=351, scale_factor=2),
    _seeing("mllama", {"model_type": "mllama_text_model", "cross_attention_layers": [1],
                       "rope_scaling": {"rope_type": "default"}},
            {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_global_layers": 1,
             "attention_heads": 2, "image_size": 28, "patch_size": 14, "vision_output_dim": 64,
             "intermediate_layers_indices": [0], "supported_aspect_ratios": [[1, 1]]}, image_token_index=351),
    _translating("t5", d_model=64, d_ff=128, num_layers=2, num_heads=4, d_kv=16),
    _translating("bart", d_model=64, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=64, decoder_ffn_dim=64,
                 encoder_attention_heads=2, decoder_attention_heads=2),
    _text("bert"),
    _text("roberta"),
]  # fmt: skip

ARCHITECTURES = {architecture.model_type: architecture for architecture in _ALL}
"""transformers' name of the architecture -> its tiny model."""
