"""The model types that preflight knows are those of transformers, and training refuses what preflight refuses."""

from pathlib import Path

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe.model import ModelSpec
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.model.model_types import (
    DECODERS,
    ENCODER_DECODERS,
    ENCODERS,
    IMAGE_TEXT,
    NOT_MEASURED,
    not_measured_warning,
    require_language_model,
)
from trainer.architectures import ARCHITECTURES

pytestmark = pytest.mark.trainer
GENERATORS = {
    "gemma4_assistant",
    "gemma4_unified_assistant",
    "moshi",
    "musicgen",
    "musicgen_melody",
    "trocr",
    "whisper",
}
"""Models of sound and of images, and drafts for other models, which transformers lists among the causal ones."""


def test_the_types_are_those_of_transformers() -> None:
    from transformers.models.auto import modeling_auto as auto

    causal, masked = set(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES), set(auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES)
    seq2seq = set(auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
    images = set(auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)

    assert causal - DECODERS - ENCODERS - ENCODER_DECODERS - IMAGE_TEXT == GENERATORS
    assert causal >= DECODERS
    assert seq2seq == ENCODER_DECODERS
    assert masked - ENCODER_DECODERS <= ENCODERS
    assert images - causal - seq2seq <= IMAGE_TEXT
    assert not DECODERS & (ENCODERS | ENCODER_DECODERS | IMAGE_TEXT)


def test_every_other_decoder_is_in_the_matrix() -> None:
    """A type of a newer transformers is measured (benchmarks/architectures.py), or said to be unmeasured."""
    refused = {"gemma3n"}

    assert DECODERS - ARCHITECTURES.keys() <= NOT_MEASURED | refused
    assert NOT_MEASURED <= DECODERS


def test_preflight_says_that_a_type_is_not_measured() -> None:
    assert not_measured_warning({"model_type": "llama"}) is None
    for kind in ("qwen4_exp", "of_its_own_code"):
        assert f"Nobody has measured model_type {kind} " in (not_measured_warning({"model_type": kind}) or "")


def test_a_decoder_that_does_not_train_is_refused_by_name() -> None:
    with pytest.raises(TrainerError, match=r"model_type gemma3n is an image-text model .*use Gemma 3"):
        require_language_model(parse_uri("s3://models/gemma"), {"model_type": "gemma3n"}, remote_code=False)


def test_training_refuses_what_preflight_refuses(tmp_path: Path) -> None:
    import torch

    from finetune_trainer.model.load import load_base

    (tmp_path / "config.json").write_text('{"model_type": "bert", "vocab_size": 352}')
    spec = ModelSpec.model_validate({"uri": f"file://{tmp_path}"})

    with pytest.raises(TrainerError, match="model_type bert is an encoder") as raised:
        load_base(tmp_path, spec, torch.float32)
    assert raised.value.reason is FailureReason.NOT_SUPPORTED
