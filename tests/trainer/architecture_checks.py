"""What an architecture must hold: it trains, however a step is divided, and its adapter says the same everywhere."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.model.model_types import REPEATED_LAYERS, require_language_model
from trainer.architectures import Architecture
from trainer.running import QUESTIONS, recipe_of

_HEAD = "AutoModelForCausalLM"
_DIVISIONS: dict[str, dict[str, Any]] = {
    "packed": {},
    "padded": {"dataset": {"packing": "disabled"}},
    "alone": {"training": {"microBatchSize": 1}},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of one architecture and quantisation.

    Attributes:
        refusal: preflight's words, for an architecture that it refuses; then nothing else is measured.
        packs: whether rows are packed.
        losses: division of the steps -> loss of the last of two steps.
        effect: mean distance of the logits with and without the adapter.
        adapter_error: largest distance of the logits of the adapter loaded by PEFT from those after training.
        merged_error: distance of the logits of the merged model from those after training: the median over the tokens
            of the mean over the vocabulary. Rounding to bfloat16 sends a token to other experts now and then. None
            where preflight refuses output.merged.
        resumed: whether a training that goes on from a checkpoint of the first step ends with the same weights.
        magnitude: mean size of the logits.
        adapted: names of the layers with an adapter.
        plain: names of the linear layers without one.
        dead: names of weights B that are zero after training, so that their adapter does nothing.
    """

    refusal: str | None = None
    packs: bool = False
    losses: dict[str, float]
    effect: float = 0.0
    adapter_error: float = 0.0
    merged_error: float | None = 0.0
    resumed: bool = True
    magnitude: float = 0.0
    adapted: list[str]
    plain: list[str]
    dead: list[str]

    def faults(self) -> list[str]:
        """What does not hold."""
        if self.refusal is not None:
            return []
        lowest, highest = min(self.losses.values()), max(self.losses.values())
        wrong = {
            f"the loss depends on the division: {self.losses}": highest - lowest > 1e-4 * highest,
            "the adapter has no effect": self.effect <= 0,
            f"parts of the adapter learn nothing: {self.dead[:3]}": bool(self.dead),
            f"the adapter loaded by PEFT says something else ({self.adapter_error})": (
                self.adapter_error > 1e-4 * self.magnitude
            ),
            "a resumed training ends with other weights": not self.resumed,
            f"the merged model says something else ({self.merged_error} of {self.magnitude})": (
                self.merged_error is not None
                and (self.merged_error > 0.03 * self.magnitude or self.merged_error > 0.15 * self.effect)
            ),
        }
        return [text for text, is_wrong in wrong.items() if is_wrong]


def measure(architecture: Architecture, folder: Path, tiny_model: Path, quantization: str = "none") -> Measured:
    """Trains the architecture's tiny model and measures. `folder` is new, and removed at the end."""
    folder.mkdir(parents=True)
    try:
        return _measure(architecture, folder, tiny_model, quantization)
    finally:
        shutil.rmtree(folder)


def _measure(architecture: Architecture, folder: Path, tiny_model: Path, quantization: str) -> Measured:
    import transformers
    from peft import PeftModel

    from finetune_trainer.export.adapter import write_adapter
    from finetune_trainer.export.merged import write_merged
    from finetune_trainer.model.adapter import adapted_modules, modules_without_adapter
    from finetune_trainer.model.load import load_base
    from finetune_trainer.model.tokenizer import load_tokenizer

    config = architecture.make_config().to_dict()
    try:
        require_language_model(parse_uri("file:///base"), config, remote_code=False)
    except TrainerError as error:
        return Measured(refusal=error.message, losses={}, adapted=[], plain=[], dead=[])
    base = architecture.write(folder / "base", tiny_model)
    tokenizer = load_tokenizer(base)
    losses = {}
    for name, sections in _DIVISIONS.items():
        trainer, recipe = _trained(base, tokenizer, folder / name, quantization, sections)
        losses[name] = trainer.last_loss
        if name == "packed":
            first = trainer
    stopped, _ = _trained(base, tokenizer, folder / "stopped", quantization, {}, stop=True)
    resumed, _ = _trained(
        base, tokenizer, folder / "resumed", quantization, {}, checkpoint=Path(stopped.args.output_dir) / "checkpoint-1"
    )
    ids = torch.tensor([tokenizer(QUESTIONS[3]["prompt"])["input_ids"]])
    tuned = _logits(first.model, ids)
    with first.model.disable_adapter():
        effect = float((tuned - _logits(first.model, ids)).abs().mean())
    adapter = write_adapter(first.model, tokenizer, recipe, folder / "adapter")
    served = PeftModel.from_pretrained(load_base(base, recipe.model, torch.float32), adapter.folder)
    adapter_error = float((_logits(served, ids) - tuned).abs().max())
    merged_error = None
    if architecture.model_type not in REPEATED_LAYERS:
        write_merged(first.model, tokenizer, base, folder / "merged")
        merged, told = getattr(transformers, architecture.head).from_pretrained(
            folder / "merged", dtype=torch.float32, output_loading_info=True
        )
        assert not any(told.values()), told
        if architecture.head != _HEAD:
            # The language model of the same files: transformers' Llama 4 of images and text takes no text alone.
            merged = getattr(transformers, _HEAD).from_pretrained(folder / "merged", dtype=torch.float32)
        merged_error = float((_logits(merged, ids) - tuned).abs().mean(dim=-1).median())
    return Measured(
        packs=first.micro_batches.packed,
        losses=losses,
        effect=effect,
        adapter_error=adapter_error,
        merged_error=merged_error,
        resumed=all(
            torch.equal(one, other) for one, other in zip(_adapter(first.model), _adapter(resumed.model), strict=True)
        ),
        magnitude=float(tuned.abs().mean()),
        adapted=adapted_modules(first.model),
        plain=modules_without_adapter(first.model),
        dead=[name for name, weight in first.model.named_parameters() if "lora_B" in name and not weight.any()],
    )


class _StopAfterOneStep(TrainerCallback):  # type: ignore[misc]
    """Writes a checkpoint after the first step, and ends."""

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        """Asks for both."""
        del args, state, rest
        control.should_save = control.should_training_stop = True
        return control


def _adapter(model: Any) -> list[torch.Tensor]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def _trained(
    base: Path,
    tokenizer: Any,
    folder: Path,
    quantization: str,
    sections: dict[str, Any],
    *,
    stop: bool = False,
    checkpoint: Path | None = None,
) -> Any:
    from datasets import Dataset

    from finetune_trainer.model.load import load_base
    from finetune_trainer.train.build_trainer import build_trainer

    sections = dict(sections)
    training = {"maxSteps": 2, "batchSize": 8, "learningRate": "1e-2", **sections.pop("training", {})}
    model = {"quantization": {"type": quantization}}
    recipe = recipe_of(base, Path("/data"), Path("/output"), model=model, training=training, **sections)
    texts = [tokenizer(row["prompt"] + row["completion"])["input_ids"] for row in QUESTIONS]
    rows = Dataset.from_list([{"input_ids": ids, "labels": ids} for ids in texts])
    trainer = build_trainer(
        recipe,
        load_base(base, recipe.model, torch.float32),
        tokenizer,
        rows,
        torch.float32,
        folder,
        [_StopAfterOneStep()] if stop else [],
    )
    trainer.train_from(checkpoint)
    return trainer, recipe


def _logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits.float()
