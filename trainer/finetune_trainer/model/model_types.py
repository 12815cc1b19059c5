"""Which models are language models that this trainer trains, by the `model_type` of config.json.

The names are those of the locked transformers (tests/trainer/test_model_types.py compares them). They stand here
because preflight has no torch, and so cannot ask transformers: a model that does not load must be refused before a GPU
is requested.
"""

from collections.abc import Mapping
from typing import Any

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe.model import QuantizationType
from finetune_trainer.contract.recipe.output import Merged
from finetune_trainer.contract.uri import Uri

_DECODERS_NAMES = """
afmoe apertus apertus1p5_text arcee aria_text axk1 axk2 bailing_hybrid bamba beam biogpt bitnet bloom blt codegen
cohere cohere2 cohere2_moe cohere_compass_text cpmant ctrl cwm dbrx deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4
diffllama doge dory dots1 dots3_note dots3_note_text ernie4_5 ernie4_5_moe exaone exaone4 exaone_moe falcon
falcon_h1 falcon_mamba flex_olmo flint gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text gemma4 gemma4_text
gemma4_unified gemma4_unified_text glm glm4 glm4_moe glm4_moe_lite glm_moe_dsa gpt-sw3 gpt2 gpt_bigcode gpt_neo
gpt_neox gpt_neox_japanese gpt_oss gptj granite granite_swa granitemoe granitemoe_swa granitemoehybrid
granitemoeshared helium hrm_text hunyuan_v1_dense hunyuan_v1_moe hy_v3 hy_v4 hyperclovax inkling2_loop_text
inkling2_text inkling_text internlm3 iquestcoder jais2 jamba jetmoe kimi_linear kolibri1 laguna lara_mini lfm2
lfm2_moe lfm3 llama llama4 llama4_text longcat_flash mamba mamba2 mellum mimo_v2_flash minicpm3 minimax minimax_m2
minimax_m3_vl_text ministral ministral3 mistral mixtral modernbert-decoder mpt nanochat nemotron nemotron_h olmo
olmo2 olmo3 olmo_hybrid olmoe openai-gpt opt persimmon phi phi3 phi4_multimodal phimoe qwen2 qwen2_moe qwen3 qwen3_5
qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next qwen4_exp qwen4_exp_text recurrent_gemma rwkv
sarvam_mla sarvam_moe seed_oss smollm3 solar_open stablelm starcoder2 vaultgemma xglm xlstm youtu zamba zamba2 zaya
"""
DECODERS = frozenset(_DECODERS_NAMES.split())
"""Models that continue a text, and that `AutoModelForCausalLM` loads."""
_NOT_MEASURED_NAMES = "dots3_note qwen4_exp"
NOT_MEASURED = frozenset(_NOT_MEASURED_NAMES.split())
"""Decoders among them that nobody has trained with this version (benchmarks/architectures.py)."""
_UNTRAINABLE = {
    "gemma3n": "an image-text model whose vision tower needs the package timm; use Gemma 3 or Gemma 4",
    "inkling2_loop_text": "a model whose adapter PEFT does not read back as it was trained; use Inkling",
    "inkling2_text": "a model whose adapter PEFT does not read back as it was trained; use Inkling",
    "laguna": "a mixture whose adapter PEFT does not read back as it was trained; use another mixture",
    "modernbert-decoder": "a decoder with layers in its output head, which this trainer passes over; use another one",
}
"""Decoders among them that do not train -> why, with the remedy."""
_ENCODER_DECODERS_NAMES = """
audioflamingo3 bart bigbird_pegasus blenderbot blenderbot-small encoder-decoder fsmt glmasr granite_speech
granite_speech_plus led longt5 m2m_100 marian mbart moss_transcribe_diarize mt5 musicflamingo mvp nemo_speechlm
nllb-moe omniasr pegasus pegasus_x plbart prophetnet qwen2_audio qwen3_asr seamless_m4t seamless_m4t_v2
switch_transformers t5 t5gemma t5gemma2 umt5 vibevoice_asr voxtral voxtral_realtime
"""
ENCODER_DECODERS = frozenset(_ENCODER_DECODERS_NAMES.split())
_ENCODERS_NAMES = """
albert bert bert-generation big_bird camembert convbert data2vec-text deberta deberta-v2 distilbert electra ernie
esm esmc eurobert flaubert fnet funnel gte ibert jina_embeddings_v3 layoutlm longformer luke megatron-bert
mobilebert modernbert modernvbert mpnet mra neomme nomic_bert nystromformer perceiver reformer rembert roberta
roberta-prelayernorm roc_bert roformer squeezebert tapas ultrabert ultravbert xlm xlm-roberta xlm-roberta-xl xlnet
xmod yoso
"""
ENCODERS = frozenset(_ENCODERS_NAMES.split())
"""Models in which a token sees the tokens after it."""
_IMAGE_TEXT_NAMES = """
apertus1p5 aria aya_vision blip blip-2 chameleon cohere2_vision cohere_compass cosmos3_edge cosmos3_omni
deepseek_ocr2 deepseek_vl deepseek_vl_hybrid diffusion_gemma emu3 ernie4_5_vl_moe evolla exaone4_5 fast_vlm
florence2 fuyu git glm46v glm4v glm4v_moe glm5_next glm_ocr glmga got_ocr2 granite4_vision granite_docling
hunyuan_vl hy_v4_vl hyperclovax_vision_v2 idefics idefics2 idefics3 inkling2 inkling2_loop inkling_mm_model
instructblip instructblipvideo internvl janus kimi_k25 kosmos-2 kosmos-2.5 lfm2_vl lfm3_vl lighton_ocr llava
llava_next llava_next_video llava_onevision minicpm_ocr minicpmv4_6 minicpmv4_7 minimax_m3_vl mistral3 mistral4
mistral_large4 mllama molmo2 muse_glimmer muse_spark nemotron_h_omni ovis2 paddleocr_vl paligemma perception_lm pi0
pix2struct pp_chart2table pp_formulanet qianfan_ocr qwen2_5_omni_thinker qwen2_5_vl qwen2_vl qwen3_omni_moe_thinker
qwen3_vl qwen3_vl_moe shieldgemma2 smolvlm step3p7 udop unlimited_ocr video_llama_3 video_llava vipllava
vision-encoder-decoder
"""
IMAGE_TEXT = frozenset(_IMAGE_TEXT_NAMES.split())
"""Models of images and text whose language model does not load alone."""
REPEATED_LAYERS = frozenset({"zamba", "zamba2"})
"""Models that use the weights of one layer in several places. Each place gets an adapter of its own."""
_RESCALED = "rescale their weights as they run, and quantised weights cannot be"
_CAST = "cast what goes into a layer to the type of its weight, which is int8 then"
NOT_QUANTISED: Mapping[str, tuple[frozenset[QuantizationType], str]] = {
    # RwkvModel._bnb_4bit_dequantize_and_rescale
    "rwkv": (frozenset({QuantizationType.NF4, QuantizationType.FP4, QuantizationType.INT8}), _RESCALED),
    "dots3_note_text": (frozenset({QuantizationType.INT8}), _CAST),
    "hy_v4": (frozenset({QuantizationType.INT8}), _CAST),
}
"""Models that fail with some types of quantised weights, which types, and why."""
_SIBLINGS = {
    "qwen2_vl": "Qwen 2",
    "qwen2_5_vl": "Qwen 2.5",
    "qwen3_vl": "Qwen 3",
    "qwen3_vl_moe": "Qwen 3 MoE",
    "mistral3": "Mistral or Ministral",
    "mllama": "Llama 3.1",
    "llava": "Llama 2",
    "internvl": "Qwen 2.5 or InternLM",
    "paligemma": "Gemma 2",
    "smolvlm": "SmolLM 2",
    "idefics3": "Llama 3",
}
"""The text-only family of an image-text model, for the remedy."""


def require_language_model(place: Uri, config: Mapping[str, Any], *, remote_code: bool) -> None:
    """Requires a model that continues text.

    Args:
        place: the model's URI, for the message.
        config: the model's config.json.
        remote_code: whether code of the model's repository may run (model.trustRemoteCode). Then its own class decides.

    Raises:
        TrainerError: NOT_SUPPORTED, the model is of another kind.
    """
    kind = str(config.get("model_type") or "")
    auto_map = config.get("auto_map")
    own_class = isinstance(auto_map, Mapping) and "AutoModelForCausalLM" in auto_map
    if config.get("is_encoder_decoder") is True or kind in ENCODER_DECODERS:
        raise _refused(place, kind, "an encoder-decoder or speech model", "use a decoder model of text")
    if kind in ENCODERS and config.get("is_decoder") is not True:
        what = "an encoder: in it a token sees the tokens after it, so it cannot learn to continue a text"
        raise _refused(place, kind, what, "use a decoder model")
    if kind in _UNTRAINABLE:
        what, _, remedy = _UNTRAINABLE[kind].partition("; ")
        raise _refused(place, kind, what, remedy)
    if kind in DECODERS or kind in ENCODERS or (remote_code and own_class):
        return
    if kind in IMAGE_TEXT:
        sibling = f" ({_SIBLINGS[kind]})" if kind in _SIBLINGS else ""
        what = "an image-text model, whose language model is not trained alone"
        raise _refused(place, kind, what, f"use the text model of the family{sibling}")
    what = "not a language model that this version trains"
    remedy = "use a decoder model that transformers has; docs/models.md lists them"
    if own_class:
        remedy = "its class is code of the model's repository, which runs only with model.trustRemoteCode"
    raise _refused(place, kind, what, remedy)


def not_measured_warning(config: Mapping[str, Any]) -> str | None:
    """A sentence for the user of a model of which nothing is known but that transformers has it; else None.

    Args:
        config: the model's config.json.
    """
    kind = str(config.get("model_type") or "")
    if kind in DECODERS - NOT_MEASURED:
        return None
    return (
        f"Nobody has measured model_type {kind} with this version: try a few steps first (training.maxSteps), and "
        "compare the answers of base model and adapter"
    )


def require_mergeable(merged: Merged, config: Mapping[str, Any]) -> None:
    """Requires that the adapter can be merged, if the recipe asks for a merged model.

    Args:
        merged: output.merged.
        config: the model's config.json.

    Raises:
        TrainerError: NOT_SUPPORTED, layers with adapters of their own share one weight, which can hold only one.
    """
    kind = config.get("model_type")
    if merged is not Merged.NONE and kind in REPEATED_LAYERS:
        raise TrainerError(
            FailureReason.NOT_SUPPORTED,
            f"spec.output.merged: {merged}: models of type {kind} use one layer's weights in several places, each with "
            "an adapter of its own, so they have no merged weights; use none, and serve the adapter",
        )


def require_quantizable(quantization: QuantizationType, config: Mapping[str, Any]) -> None:
    """Requires that the model runs with its weights quantised as the recipe asks.

    Args:
        quantization: model.quantization.type.
        config: the model's config.json.

    Raises:
        TrainerError: NOT_SUPPORTED, it does not.
    """
    kind = config.get("model_type")
    types, why = NOT_QUANTISED.get(str(kind), (frozenset(), ""))
    if quantization in types:
        others = [other for other in (QuantizationType.NF4, QuantizationType.NONE) if other not in types]
        raise TrainerError(
            FailureReason.NOT_SUPPORTED,
            f"spec.model.quantization.type: {quantization}: models of type {kind} {why}; use {' or '.join(others)}",
        )


def _refused(place: Uri, kind: str, what: str, remedy: str) -> TrainerError:
    return TrainerError(FailureReason.NOT_SUPPORTED, f"{place}/config.json: model_type {kind} is {what}; {remedy}")
