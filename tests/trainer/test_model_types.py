"""The model types that preflight knows are those of transformers, and training refuses what preflight refuses."""

from pathlib import Path

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe.model import ModelSpec
from finetune_trainer.model.model_types import DECODERS, ENCODER_DECODERS, ENCODERS, IMAGE_TEXT

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


def test_training_refuses_what_preflight_refuses(tmp_path: Path) -> None:
    import torch

    from finetune_trainer.model.load import load_base

    (tmp_path / "config.json").write_text('{"model_type": "bert", "vocab_size": 352}')
    spec = ModelSpec.model_validate({"uri": f"file://{tmp_path}"})

    with pytest.raises(TrainerError, match="model_type bert is an encoder") as raised:
        load_base(tmp_path, spec, torch.float32)
    assert raised.value.reason is FailureReason.NOT_SUPPORTED
