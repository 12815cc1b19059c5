"""Counts the allocations of a real training, for comparison with the memory estimate.

No GPU is needed: the allocations of torch's CPU allocator are counted during the second step, with the real trainer and
random weights. The memory of model, adapter and optimizer is that of their tensors.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import QuantState
from transformers import LlamaConfig, LlamaForCausalLM

from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.data.tokenization.tokens import TokenRow
from finetune_trainer.memory.activations import Masking, MicroBatchShape
from finetune_trainer.memory.estimate import MemoryEstimate, TrainingSetup, estimate
from finetune_trainer.model.load import load_base
from finetune_trainer.model.sizes import loaded_shape
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.train.build_trainer import build_trainer
from finetune_trainer.train.token_dataset import write_rows
from trainer.tiny_model import make_tiny_model

ROWS_A_PASS = 4
SHAPES: dict[str, dict[str, Any]] = {
    "small": {
        "vocab_size": 2048,
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
    },
    "135M": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The parameters of one training."""

    shape: str
    tokens: int
    quantization: str = "nf4"
    dtype: str = "float32"
    gradient_checkpointing: bool = False
    packed: bool = True
    attention: str = "sdpa"
    lora: tuple[tuple[str, Any], ...] = ()

    @property
    def recipe(self) -> Recipe:
        """Returns the case as a recipe. Nothing reads its URIs."""
        switch = {True: "enabled", False: "disabled"}
        return Recipe.model_validate(
            {
                "job": {"name": "memory"},
                "model": {
                    "uri": "file:///model",
                    "quantization": {"type": self.quantization, "computeDtype": self.dtype},
                    "attention": self.attention,
                },
                "dataset": {
                    "uri": "file:///rows.jsonl",
                    "maxLength": self.tokens // ROWS_A_PASS,
                    "packing": switch[self.packed],
                },
                "lora": dict(self.lora),
                "training": {
                    "batchSize": ROWS_A_PASS,
                    "microBatchSize": ROWS_A_PASS,
                    "maxSteps": 2,
                    "gradientCheckpointing": switch[self.gradient_checkpointing],
                },
                "output": {"uri": "file:///out"},
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Measured bytes: of the model, of trained parameters with their optimizer, and the peak of a step beside these."""

    model: int
    trained: int
    step: int


def measure(case: Case, folder: Path) -> tuple[MemoryEstimate, Counted]:
    """Trains two steps. Returns the estimate and the measured bytes."""
    torch.manual_seed(0)
    make_tiny_model(folder / "model")
    config = LlamaConfig(bos_token_id=1, eos_token_id=2, max_position_embeddings=16384, **SHAPES[case.shape])
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    recipe, dtype = case.recipe, getattr(torch, case.dtype)
    base = load_base(folder / "model", recipe.model, dtype)
    shape = loaded_shape(base)
    assert shape is not None
    model_bytes = sum(_bytes(tensor) for tensor in _model_tensors(base))
    length = case.tokens // ROWS_A_PASS
    # Padded rows differ in length as real rows do, because rows of equal length need no mask.
    lengths = [length, length - 1, length - 2, length - 3] * 2
    rows = write_rows((_row(length) for length in lengths), folder / "rows.arrow")
    trainer = build_trainer(recipe, base, load_tokenizer(folder / "model"), rows, dtype, folder / "trainer", [])
    steps: list[int] = []
    run = trainer.training_step

    def counted(*arguments: Any) -> torch.Tensor:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            loss: torch.Tensor = run(*arguments)
        steps.append(_highest(profile))
        return loss

    trainer.training_step = counted  # type: ignore[method-assign,assignment]
    trainer.train()
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    state = [value for kept in trainer.optimizer.state.values() for value in kept.values() if torch.is_tensor(value)]
    # Gradients are allocated in the first backward pass of a step, so the count of the step includes them.
    gradients = sum(map(_bytes, trained))
    tokens = length * ROWS_A_PASS
    masking = (
        Masking.VARLEN
        if trainer.micro_batches.varlen
        else Masking.EAGER
        if case.attention == "eager"
        else Masking.DENSE
    )
    micro_batch = MicroBatchShape(
        tokens=tokens,
        span=tokens if case.packed else length,
        gradient_checkpointing=case.gradient_checkpointing,
        keep_dequantized=trainer.plan.keep_dequantized,
    )
    plan = TrainingSetup.of(recipe, cuda=False, masking=masking)
    assert trainer.micro_batches.packed is case.packed
    return estimate(shape, plan, micro_batch), Counted(
        model=model_bytes, trained=2 * gradients + sum(map(_bytes, state)), step=steps[-1] - gradients
    )


def _row(length: int) -> TokenRow:
    return TokenRow(ids=tuple(range(3, 3 + length)), trained=(True,) * length)


def _model_tensors(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    for parameter in model.parameters():
        yield parameter
        if isinstance(state := getattr(parameter, "quant_state", None), QuantState):
            yield from (state.absmax, state.code)
            if state.nested:
                yield from (state.state2.absmax, state.state2.code, state.offset)
        if (scales := getattr(parameter, "SCB", None)) is not None:
            yield scales


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _highest(profile: Any) -> int:
    """Returns the largest sum of the allocations since the start, in bytes."""
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    return highest
