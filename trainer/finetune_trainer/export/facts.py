"""The facts of a run: all that the model card, the report and the event files are made from.

They hold untrusted text from outside (rows, object keys, prompts): every page that shows it escapes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from finetune_trainer.contract.history import HistoryEntry, LossSummary
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.data.histogram import LengthBin
from finetune_trainer.data.tokenization.tokens import TokenCounts
from finetune_trainer.export.base_model import model_id
from finetune_trainer.model.vllm import vllm_warnings

_NOT_SHOWN = ("job", "storage")
"""Sections of the recipe that shape nothing: who asked, and how storage is reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What the model answers to one prompt, before and after.

    Attributes:
        prompt: what was asked.
        base: the base model's answer.
        tuned: the answer with the adapter.
        initial: the answer with the adapter that the training went on from, the reference of pairs; None for none.
    """

    prompt: str
    base: str
    tuned: str
    initial: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What happened.

    Attributes:
        recipe: what was asked for.
        fingerprint: the run's name by what went into it.
        base_revision: the commit of a Hub model.
        base_licence: the licence that the base model's card names.
        base_config: the base model's config.json.
        dataset: the data's objects.
        counts: what became of the rows.
        lengths: the trained rows by length, shortest first.
        target_modules: names of the layers that carry the adapter.
        modules_without_adapter: names of the linear layers and experts that carry none, `*` for a layer's number.
        metrics: final figures.
        history: the losses, in the order of steps.
        samples: answers before and after.
        resumed_from_step: the step of the checkpoint that this attempt went on from.
        smaller_micro_batch_tokens: most tokens of a forward pass, when it was halved for lack of GPU memory.
        stage_seconds: seconds this attempt spent in each stage so far, in order.
        device: what it was trained on, in words.
        peak_gpu_memory_bytes, peak_memory_bytes: the most that was in use on the GPU and in the process.
        peak_gpu_reserved_bytes: the most that torch's allocator held of the GPU.
        memory_estimate_bytes: what the training was estimated to take: of the GPU, or of the process without one.
        versions: packages that shaped the result.
        created: when the adapter was made.
    """

    recipe: Recipe
    fingerprint: str
    base_revision: str | None
    base_licence: str | None
    base_config: Mapping[str, Any] = field(default_factory=dict)
    dataset: Sequence[SourceObject]
    counts: TokenCounts
    lengths: Sequence[LengthBin]
    target_modules: Sequence[str]
    modules_without_adapter: Sequence[str] = ()
    metrics: Mapping[str, float]
    history: Sequence[HistoryEntry]
    samples: Sequence[Sample] = ()
    resumed_from_step: int | None = None
    smaller_micro_batch_tokens: int | None = None
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    device: str
    peak_gpu_memory_bytes: int | None
    peak_memory_bytes: int
    peak_gpu_reserved_bytes: int | None = None
    memory_estimate_bytes: int | None = None
    versions: Mapping[str, str]
    created: datetime

    @property
    def base_model(self) -> str:
        """The base model as a server should name it."""
        return model_id(self.recipe.model.uri)

    @property
    def settings(self) -> dict[str, str]:
        """Every setting of the recipe by its path in the spec, defaults among them."""
        settings = settings_of(self.recipe)
        if self.recipe.profile is not None:
            settings["profile"] = ", ".join(map(str, self.recipe.profile.sources))
        return _flat(settings)

    @property
    def warnings(self) -> list[str]:
        """What a reader should know before using the adapter."""
        counts, loss = self.counts, LossSummary.of(self.history)
        length = self.recipe.dataset.max_length
        warnings = vllm_warnings(self.recipe.lora, self.base_config)
        if counts.truncated:
            warnings.append(
                f"{counts.truncated} of {counts.rows + counts.validation + counts.dropped} rows were longer than "
                f"dataset.maxLength ({length} tokens) and were cut; the longest has {counts.longest}."
            )
        if counts.dropped:
            warnings.append(f"{counts.dropped} rows were left out: after the cut they had no token to train.")
        if counts.duplicates:
            warnings.append(f"{counts.duplicates} rows repeat one before and were trained as often as they are there.")
        if self.resumed_from_step:
            warnings.append(
                f"The training went on from a checkpoint of step {self.resumed_from_step}; times and memory of a stage "
                "are this attempt's."
            )
        if self.smaller_micro_batch_tokens:
            warnings.append(
                "GPU memory ran out: steps were divided into passes of at most "
                f"{self.smaller_micro_batch_tokens} tokens. The rows of a step stayed the same."
            )
        lowest, last = loss.lowest_eval_loss, loss.last_eval_loss
        if (kept := self.metrics.get("eval_step")) is not None and kept < self.metrics.get("steps", kept):
            warnings.append(
                f"The adapter is that of step {kept:.0f}, whose validation loss was the lowest; the training went on "
                f"to step {self.metrics['steps']:.0f}."
            )
        elif lowest is not None and last is not None and last > lowest:
            warnings.append(
                f"The validation loss was lowest after step {loss.lowest_eval_loss_step} ({lowest:.4f}) and is "
                f"{last:.4f} at the end: the adapter fits its own rows more than others."
            )
        return warnings


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """The recipe without the job's identity and without the storage's addresses."""
    return {key: value for key, value in recipe.to_dict().items() if key not in _NOT_SHOWN}


def _flat(value: Any, path: str = "") -> dict[str, str]:
    if isinstance(value, dict):
        inner = [_flat(item, f"{path}.{key}" if path else key) for key, item in value.items()]
        return {key: text for part in inner for key, text in part.items()}
    if isinstance(value, list):
        return {path: ", ".join(map(str, value))}
    return {path: str(value).lower() if isinstance(value, bool) else str(value)}
