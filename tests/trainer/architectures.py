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
_SMALL = {
    **_DECODER,
    "head_dim": 16,
    "sliding_window": 32,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 512,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "shared_expert_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "qk_head_dim": 24,
    "v_head_dim": 16,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "index_head_dim": 16,
    "index_n_heads": 2,
    "index_topk": 64,
    "num_nextn_predict_layers": 0,
}
"""Small sizes under the names that configurations have for them."""
_LATENT_SMALL = {"head_dim": 8, "num_key_value_heads": 4}
"""Sizes that differ in models with latent attention (DeepSeek)."""
_SLIDING_FULL = ["sliding_attention", "full_attention"]
_DENSE_SPARSE = ["dense", "sparse"]
_BYTES = {
    **_DECODER,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_key_value_heads": 4,
    "intermediate_size": 64,
    "head_dim": 8,
}
_INKLING = {
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 2,
    "swa_head_dim": 16,
    "sliding_window_size": 32,
    "d_rel": 4,
    "rel_extent": 32,
}
_QWEN_EYES = {
    "depth": 1,
    "hidden_size": 32,
    "intermediate_size": 64,
    "out_hidden_size": 64,
    "num_heads": 2,
    "patch_size": 14,
    "num_position_embeddings": 16,
}
_GEMMA_4 = {
    "image_token_id": 351,
    "boi_token_id": 350,
    "eoi_token_id": 349,
    "video_token_id": 348,
    "audio_token_id": 347,
    "boa_token_id": 346,
}
_ROTARY = {"rope_type": "default", "mrope_section": [2, 3, 3]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A tiny model of one architecture.

    Attributes:
        model_type: transformers' name of the architecture.
        config: arguments of its configuration.
        head: transformers' auto class that makes the model.
        shrunk: whether the sizes that `config` does not have, and the default configuration has, are small ones.
    """

    model_type: str
    config: dict[str, Any] = field(default_factory=dict)
    head: str = "AutoModelForCausalLM"
    shrunk: bool = False

    def make_config(self) -> Any:
        """Returns transformers' configuration of the tiny model."""
        import transformers

        return transformers.AutoConfig.for_model(self.model_type, **self.arguments())

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of the configuration."""
        from transformers import CONFIG_MAPPING

        if not self.shrunk:
            return self.config
        kind = CONFIG_MAPPING[self.model_type]
        defaults = kind().to_dict()
        known = {*defaults, *kind.attribute_map} - {name for name, value in defaults.items() if value is None}
        small = _SMALL | (_LATENT_SMALL if "kv_lora_rank" in known else {})
        known |= _IDS.keys()
        return {name: value for name, value in small.items() if name in known} | self.config

    def write(self, folder: Path, tiny_model: Path) -> Path:
        """Writes the model with random weights, and the tiny model's tokenizer; returns the folder."""
        import torch
        import transformers

        folder.mkdir(parents=True)
        config = self.make_config()
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


def _seeing(model_type: str, text: dict[str, Any], eyes: dict[str, Any] | None, **own: Any) -> Architecture:
    sections = {"text_config": {**_DECODER, **text}, "vision_config": eyes}
    return Architecture(model_type=model_type, config={**sections, **own}, head="AutoModelForImageTextToText")


def _shrunk(model_type: str, **own: Any) -> Architecture:
    return Architecture(model_type=model_type, config=own, shrunk=True)


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
    # Measured without a test of their own: see benchmarks/architectures.py.
    _shrunk("afmoe", layer_types=_SLIDING_FULL),
    _shrunk("apertus1p5_text"),
    _shrunk("aria_text", moe_num_experts=4, moe_num_shared_experts=1),
    _shrunk("axk1", mlp_layer_types=_DENSE_SPARSE),
    _shrunk("axk2", mlp_layer_types=_DENSE_SPARSE, layer_types=["indexed_attention"] * 2, gated_norm_rank=4),
    _shrunk("bailing_hybrid", num_expert_group=1, num_experts_per_token=2, layer_types=_MIXED_LAYERS,
            mlp_layer_types=_DENSE_SPARSE, linear_head_dim=16, linear_num_heads=4),
    _shrunk("beam", layer_types=_SLIDING_FULL, mlp_layer_types=_DENSE_SPARSE),
    _shrunk("blt", vocab_size=VOCABULARY, encoder_hash_byte_group_size=[3, 4], encoder_hash_byte_group_vocab=50,
            patcher_config=_BYTES, encoder_config={**_BYTES, "hidden_size_global": 64},
            decoder_config={**_BYTES, "hidden_size_global": 64},
            global_config={**_BYTES, "hidden_size": 64, "head_dim": 16}),
    _shrunk("cohere2_moe", layer_types=_SLIDING_FULL, mlp_layer_types=["sparse"] * 2),
    _shrunk("cohere_compass_text", layer_types=["full_attention"] * 2,
            rope_parameters={"full_attention": {**_ROTARY, "rope_theta": 10000.0}}),
    _shrunk("cpmant", dim_head=16, dim_ff=128, init_std=0.2, prompt_length=4, prompt_types=4, segment_types=4),
    _shrunk("ctrl", dff=128),
    _shrunk("cwm", layer_types=["full_attention", "sliding_attention"]),
    _shrunk("deepseek_v32", mlp_layer_types=_DENSE_SPARSE, layer_types=["indexed_attention"] * 2),
    _shrunk(
        "deepseek_v4",
        layer_types=["compressed_sparse_attention", "heavily_compressed_attention"],
        mlp_layer_types=["hash_moe", "moe"],
        compress_rates={"compressed_sparse_attention": 4, "heavily_compressed_attention": 8},
        hc_mult=2,
        o_groups=2,
        o_lora_rank=16,
        head_dim=16,
        partial_rotary_factor=0.5,
    ),
    _shrunk("doge"),
    _shrunk("dory", num_hidden_layers=8, n_input_layers=2, n_recurrent_layers=4, n_output_layers=2,
            layer_types=["sliding_attention", "mlp", "full_attention", "mlp"] * 2),
    _shrunk("dots3_note_text", layer_types=["indexed_attention", "sliding_attention"], mlp_layer_types=_DENSE_SPARSE,
            shared_experts_intermediate_size=32, swa_num_attention_heads=4, swa_num_key_value_heads=4,
            swa_kv_lora_rank=16, swa_q_lora_rank=16, swa_qk_nope_head_dim=16, swa_qk_rope_head_dim=8,
            swa_v_head_dim=16, swa_head_dim=24),
    _shrunk("exaone"),
    _shrunk("exaone_moe", layer_types=_SLIDING_FULL, mlp_layer_types=_DENSE_SPARSE),
    _shrunk("flint", layer_types=_SLIDING_FULL, mlp_only_layers=[0]),
    _shrunk("gemma4_unified_text", layer_types=_SLIDING_FULL),
    _shrunk("glm4_moe_lite", mlp_layer_types=_DENSE_SPARSE),
    _shrunk("glm_moe_dsa", mlp_layer_types=_DENSE_SPARSE, layer_types=["indexed_attention"] * 2),
    _shrunk("gpt-sw3"),
    _shrunk("gpt_neox_japanese"),
    _shrunk("granite_swa"),
    _shrunk("granitemoe_swa"),
    _shrunk("hrm_text", initializer_range=0.1),
    _shrunk("hy_v3", mlp_layer_types=_DENSE_SPARSE),
    _shrunk("hy_v4", mlp_layer_types=_DENSE_SPARSE),
    _shrunk("hyperclovax"),
    _shrunk("inkling_text", layer_types=["hybrid_sliding", "hybrid"], mlp_layer_types=_DENSE_SPARSE, **_INKLING),
    _shrunk("inkling2_text", layer_types=["hybrid_sliding", "hybrid"], unpadded_vocab_size=VOCABULARY,
            n_layers_per_attn_res_block=1, **_INKLING),
    _shrunk("inkling2_loop_text", num_hidden_layers=3, layer_types=["hybrid_sliding", "hybrid_sliding", "hybrid"],
            unpadded_vocab_size=VOCABULARY, n_layers_per_attn_res_block=1, loop_layer_index_start=1,
            loop_layer_index_end=2, loop_num_passes=2, loop_gate_rank=4, **_INKLING),
    _shrunk("iquestcoder"),
    _shrunk("jais2"),
    _shrunk("kimi_linear", num_expert_group=1, num_experts_per_token=2, layer_types=_MIXED_LAYERS,
            mlp_layer_types=_DENSE_SPARSE, linear_head_dim=16, linear_num_heads=4),
    _shrunk("kolibri1", layer_types=_SLIDING_FULL),
    _shrunk("laguna", layer_types=_SLIDING_FULL, num_attention_heads_per_layer=[4, 4], mlp_layer_types=_DENSE_SPARSE),
    _shrunk("lara_mini", num_hidden_layers=3,
            layer_types=["linear_attention", "sliding_attention", "full_attention"]),
    _shrunk("lfm3", num_hidden_layers=3, layer_types=["conv", "sliding_attention", "full_attention"]),
    _shrunk("longcat_flash", num_layers=2, ffn_hidden_size=128, moe_topk=2, zero_expert_num=2,
            expert_ffn_hidden_size=32),
    _shrunk("mellum", layer_types=_SLIDING_FULL, mlp_layer_types=["sparse"] * 2),
    _shrunk("mimo_v2_flash", layer_types=["full_attention", "sliding_attention"], mlp_layer_types=_DENSE_SPARSE),
    _shrunk("minicpm3", dim_model_base=16),
    _shrunk("minimax_m3_vl_text", dense_intermediate_size=128, shared_intermediate_size=32, rotary_dim=8,
            mlp_layer_types=_DENSE_SPARSE, layer_types=["full_attention"] * 2, index_block_size=8, index_topk_blocks=2),
    _shrunk("modernbert-decoder", layer_types=["full_attention", "sliding_attention"], local_attention=32,
            cls_token_id=1, sep_token_id=2),
    _shrunk("olmo_hybrid", layer_types=_MIXED_LAYERS),
    _shrunk("openai-gpt"),
    _shrunk("phi4_multimodal",
            vision_config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2,
                           "image_size": 28, "crop_size": 28, "image_token_id": 351},
            audio_config={"hidden_size": 32, "intermediate_size": 64, "num_blocks": 2, "num_attention_heads": 2,
                          "ext_pw_out_channel": 32, "depthwise_separable_out_channel": 32, "nemo_conv_channels": 32,
                          "nemo_final_size": 10, "audio_token_id": 350}),
    _shrunk("qwen4_exp_text", hc_count=2, hc_lowrank=8, ple_embed_dim=16, layer_types=_MIXED_LAYERS, indexer_n_heads=2,
            indexer_kv_heads=1, indexer_head_dim=16, indexer_budget=64, indexer_compress_ratio=8),
    _shrunk("sarvam_mla"),
    _shrunk("sarvam_moe"),
    _shrunk("solar_open"),
    _shrunk("vaultgemma", layer_types=_SLIDING_FULL, query_pre_attn_scalar=16),
    _shrunk("xlstm", embedding_dim=64, num_blocks=2, num_heads=2, ffn_round_up_to_multiple_of=8, chunk_size=16),
    _shrunk("youtu"),
    _shrunk("zaya", layer_types=["hybrid", "hybrid"], router_hidden_size=16, num_experts_per_tok=1),
    _seeing("qwen3_5", {"model_type": "qwen3_5_text", **_HEADS, **_DELTA, "layer_types": _MIXED_LAYERS}, _QWEN_EYES,
            **_IMAGE),
    _seeing("qwen3_5_moe", {"model_type": "qwen3_5_moe_text", **_HEADS, **_SMALL_EXPERTS, **_DELTA,
                            "shared_expert_intermediate_size": 32, "layer_types": _MIXED_LAYERS}, _QWEN_EYES, **_IMAGE),
    _seeing("llama4", {"model_type": "llama4_text", **_HEADS, "intermediate_size_mlp": 128, "num_local_experts": 2,
                       "num_experts_per_tok": 1},
            {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2,
             "image_size": 28, "patch_size": 14, "vision_output_dim": 64, "projector_input_dim": 32,
             "projector_output_dim": 64}, image_token_index=351, boi_token_index=350, eoi_token_index=349),
    _seeing("gemma4", {"model_type": "gemma4_text", **_HEADS, **_WINDOW, "layer_types": _SLIDING_FULL,
                       "global_head_dim": 16, "hidden_size_per_layer_input": 16,
                       "vocab_size_per_layer_input": VOCABULARY, "num_kv_shared_layers": 0},
            {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
             "num_key_value_heads": 2, "head_dim": 16, "patch_size": 14, "position_embedding_size": 64}, **_GEMMA_4),
    _seeing("gemma4_unified", {"model_type": "gemma4_unified_text", **_HEADS, **_WINDOW, "layer_types": _SLIDING_FULL},
            None, **_GEMMA_4),
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
