"""Whole trainings of a tiny model on a GPU, every kind once, and what happens when its memory runs out."""

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch

BFLOAT16 = {"quantization": {"computeDtype": "bfloat16"}}
FLOAT16 = {"quantization": {"computeDtype": "float16"}}
KINDS: dict[str, dict[str, Any]] = {
    "bfloat16": {"model": BFLOAT16},
    "float16": {"model": FLOAT16},
    "float32": {"model": {"quantization": {"computeDtype": "float32"}}},
    "biases trained": {"model": BFLOAT16, "lora": {"bias": "all"}},
    "embeddings and head trained": {"model": BFLOAT16, "lora": {"modulesToSave": ["embed_tokens", "lm_head"]}},
    "dora": {"model": BFLOAT16, "lora": {"variant": "dora"}},
    "int8": {"model": {"quantization": {"type": "int8"}}},
    "unquantised": {"model": {"quantization": {"type": "none"}}},
    "padded, sdpa, dropout, noise": {
        "model": BFLOAT16 | {"attention": "sdpa"},
        "dataset": {"packing": "disabled"},
        "lora": {"dropout": "0.1"},
        "training": {"neftuneAlpha": "5"},
    },
    "checkpointing": {"model": BFLOAT16, "training": {"gradientCheckpointing": "enabled"}},
    "8-bit Adam": {"model": BFLOAT16, "training": {"optimizer": "adamw_8bit"}},
    "merged": {"model": BFLOAT16, "output": {"merged": "bf16"}},
    "the numbers of 2023": {
        "model": FLOAT16,
        "dataset": {"packing": "disabled"},
        "lora": {"dropout": "0.1"},
        "training": {"microBatchSize": 4, "gradientCheckpointing": "enabled"},
    },
}


def _sections(kind: str) -> dict[str, Any]:
    sections = {name: dict(values) for name, values in KINDS[kind].items()}
    sections["training"] = {"maxSteps": 12, "loggingSteps": 1} | sections.get("training", {})
    return sections


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_falls(kind: str, run: Any, device: "torch.device") -> None:
    trained = run(**_sections(kind))

    trained()

    losses = [progress.loss for progress in trained.seen if progress.loss is not None]
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "checkpointing"])
def test_half_precision_and_float32_learn_alike(kind: str, run: Any, device: "torch.device") -> None:
    """The same rows in the same order: but for rounding the same losses."""

    def losses(of: str) -> list[float]:
        trained = run(**_sections(of))
        trained()
        return [progress.loss for progress in trained.seen if progress.loss is not None]

    assert losses(kind) == pytest.approx(losses("float32"), rel=0.05)


def test_memory_that_runs_out_costs_no_step(run: Any, gpu: "torch.device", monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor of 64 TiB is asked for after the first micro-batch: the real allocator's own error."""
    import torch

    from finetune_trainer.train.trainer import StepTrainer

    whole = run(**_sections("bfloat16"))
    whole()
    real, failures = StepTrainer._run_micro_batch, list[int]()

    def failing(self: Any, *arguments: Any) -> Any:
        loss = real(self, *arguments)
        if len(failures) < 2:
            failures.append(1)
            torch.empty(1 << 46, dtype=torch.uint8, device=gpu)
        return loss

    monkeypatch.setattr(StepTrainer, "_run_micro_batch", failing)
    smaller = run(**_sections("bfloat16"))
    smaller()

    last, expected = smaller.seen[-1], whole.seen[-1]
    assert len(failures) == 2
    assert last.pass_tokens is not None
    assert last.pass_tokens < (expected.pass_tokens or 0)
    assert last.step == expected.step
    assert last.loss == pytest.approx(expected.loss, rel=0.02)


def test_layers_on_two_gpus(run: Any, gpu: "torch.device") -> None:
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("this machine has one GPU")
    spread = run(model=BFLOAT16 | {"deviceMap": "balanced"}, machine={"gpus": 2})
    spread()
    assert spread.seen[-1].loss


def test_peak_memory_is_about_the_estimate(gpu: "torch.device") -> None:
    """A shape that is large enough for activations to dominate: Llama 3 8B's widths, four layers, random weights."""
    import tempfile
    from pathlib import Path

    from benchmarks.trainer_models import LLAMA_SHAPES
    from benchmarks.trainer_row import Row, measure

    LLAMA_SHAPES["four layers"] = {**LLAMA_SHAPES["8b"], "num_hidden_layers": 4}
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Row(name="", device="cuda", shape="four layers", rows=32), Path(folder))

    context = 3 << 28  # which torch's allocator does not count
    assert 0.7 < found.peak_bytes / (found.estimated_bytes - context) < 1.05
