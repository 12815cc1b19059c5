"""Measures one row of the trainer's benchmark in its own process: `trainer_row.py ROW`, where ROW is JSON.

CPU and wall time are those between the end of the warm-up and the last step. The peak of memory is that of the whole
process, with imports and loading. Prints one JSON object.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# In the place of this script's own folder, whose trainer.py would hide tests/trainer.
_ROOT = Path(__file__).resolve().parents[1]
sys.path[:1] = [str(_ROOT / name) for name in ("", "operator", "trainer", "tools", "tests")]

LENGTH = 1024
LORA = {"rank": 16, "alpha": 32}


@dataclass(frozen=True, kw_only=True)
class Row:
    """The parameters of one measurement.

    Attributes:
        name: the row's name in the table.
        trl: settings of TRL's SFTConfig for plain TRL; None measures our trainer.
        recipe: sections of our recipe.
        dropout: dropout of the adapter.
        device: `cpu` or `cuda`.
        shape: a name of `trainer_models.SHAPES`.
        rows: number of rows of data. Each is trained once.
        length: tokens of the longest row, for shapes with random weights, whose rows are random too.
        warm_up: steps before the time counts.
        cudnn: whether cuDNN's attention may be used, which our trainer turns off.
    """

    name: str
    trl: dict[str, Any] | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    dropout: str = "0"
    device: str = "cpu"
    shape: str = "smollm2"
    rows: int = 96
    length: int = 2048
    warm_up: int = 0
    cudnn: bool = False

    @property
    def is_random(self) -> bool:
        """Whether weights and rows are random."""
        return self.shape != "smollm2"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The result of one measurement.

    Attributes:
        tokens: useful tokens of the steps that are measured: those of the rows, without padding.
        cpu_seconds: CPU seconds of all threads in these steps.
        wall_seconds: wall time of these steps in seconds.
        peak_bytes: peak memory of the process (VmHWM), or of the GPU's tensors.
        reserved_bytes: peak of the GPU memory that torch's allocator held; 0 on a CPU.
        estimated_bytes: our estimate of the peak; 0 for TRL.
        parameters: parameters in matrix products of the base model, with the head.
        peak_flops: floating point operations per second of a large matrix product on this device.
        loss: mean loss of all steps, in nats per trained token.
        gradient_norms: length of the gradient in the logged steps.
        plan: our trainer's micro-batches, in words; empty for TRL.
        device: name and driver of the device, and torch's version.
    """

    tokens: int
    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int
    reserved_bytes: int
    estimated_bytes: int
    parameters: int
    peak_flops: float
    loss: float
    gradient_norms: list[float]
    plan: str
    device: str

    @classmethod
    def parse(cls, text: str) -> "Measured":
        """Parses the process's output."""
        return cls(**json.loads(text.splitlines()[-1]))


def measure(row: Row, folder: Path) -> Measured:
    """Trains `row.rows` rows and measures the training."""
    import torch
    from benchmarks.trainer_models import conversations, load_model, matrix_parameters, random_model
    from transformers import TrainerCallback

    from finetune_trainer.memory.process import peak_process_bytes

    def now() -> tuple[float, float]:
        if row.device == "cuda":
            torch.cuda.synchronize()
        return time.process_time(), time.perf_counter()

    class Clock(TrainerCallback):  # type: ignore[misc]
        """A trainer callback that takes the time when the warm-up ends."""

        began: tuple[float, float] = (0.0, 0.0)

        def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            del args, control, rest
            if state.global_step == row.warm_up:
                self.began = now()

    clock, attention, ours = Clock(), row.recipe.get("attention"), row.trl is None
    if row.is_random:
        model, tokenizer = random_model(
            row.shape, row.device, ours=ours, attention=attention, tokenizer=folder / "tokenizer"
        )
        data: list[Any] = _random_rows(row)
    else:
        model, tokenizer = load_model(row.device, ours=ours, attention=attention)
        data = conversations(row.rows)
    torch.backends.cuda.enable_cudnn_sdp(row.cudnn or not ours)
    peak = product_speed(torch.device(row.device), model.dtype)
    parameters = matrix_parameters(model)
    trainer = (our_trainer if ours else plain_trl)(row, model, tokenizer, data, folder, clock)
    lengths = [len(ids) for ids in trainer.train_dataset["input_ids"]]
    if row.device == "cuda":
        # Random weights are quantised on the GPU: what that took is not the training's.
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    result = trainer.train()
    end = now()
    high_water = peak_process_bytes()
    assert high_water is not None, "the system does not say"
    steps = trainer.state.global_step
    assert steps > row.warm_up, f"{steps} steps, of which {row.warm_up} are the warm-up: more --rows"
    plan = trainer.plan if ours else None
    return Measured(
        # Rows are shuffled: the measured steps have their share of all tokens.
        tokens=sum(lengths) * (steps - row.warm_up) // steps,
        cpu_seconds=end[0] - clock.began[0],
        wall_seconds=end[1] - clock.began[1],
        peak_bytes=torch.cuda.max_memory_allocated() if row.device == "cuda" else high_water,
        reserved_bytes=torch.cuda.max_memory_reserved() if row.device == "cuda" else 0,
        estimated_bytes=plan.memory.total if plan is not None and plan.memory is not None else 0,
        parameters=parameters,
        peak_flops=peak,
        loss=result.training_loss,
        gradient_norms=[float(entry["grad_norm"]) for entry in trainer.state.log_history if "grad_norm" in entry],
        plan=_words(plan, trainer) if plan is not None else "",
        device=device_name(row.device),
    )


def _words(plan: Any, trainer: Any) -> str:
    kept = "checkpointing" if plan.gradient_checkpointing else "activations kept"
    return f"{trainer.micro_batches.max_tokens} tokens, {kept}"


def _random_rows(row: Row) -> list[Any]:
    from benchmarks.trainer_models import LLAMA_SHAPES, random_rows

    return random_rows(row.rows, row.length, LLAMA_SHAPES[row.shape]["vocab_size"])


def device_name(device: str) -> str:
    """Returns the GPU's name, driver, memory and compute capability, or `CPU`, and the versions of torch and CUDA."""
    import torch

    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"  # type: ignore[no-untyped-call]
    if device == "cpu":
        return f"CPU; {versions}"
    asked = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        said = torch.cuda.get_device_name()
    return f"{said}; {versions}"


def plain_trl(row: Row, model: Any, tokenizer: Any, data: list[Any], folder: Path, clock: Any) -> Any:
    """Trains with TRL's SFTTrainer as its documentation shows it. Only the row's settings and one epoch are set."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    tokenised: dict[str, Any] = {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
    settings = SFTConfig(
        output_dir=str(folder),
        num_train_epochs=1,
        use_cpu=row.device == "cpu",
        bf16=row.device == "cuda",
        dataloader_pin_memory=row.device == "cuda",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **(row.trl or {}) | ({"logging_steps": 1, **tokenised} if row.is_random else {}),
    )
    adapter = LoraConfig(
        task_type="CAUSAL_LM",
        r=LORA["rank"],
        lora_alpha=LORA["alpha"],
        lora_dropout=float(row.dropout),
        target_modules="all-linear",
    )
    rows = Dataset.from_list([{"input_ids": ids, "labels": ids} for ids in data] if row.is_random else data)
    return SFTTrainer(
        model=model,
        args=settings,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=adapter,
        callbacks=[clock],
    )


def our_trainer(row: Row, model: Any, tokenizer: Any, data: list[Any], folder: Path, clock: Any) -> Any:
    """Trains the rows' tokens with our trainer. As in TRL, all tokens count in the loss."""
    from finetune_trainer.contract.recipe import Recipe
    from finetune_trainer.contract.recipe.dataset import Loss
    from finetune_trainer.data.examples import Conversation, Message, Messages, RowLocation
    from finetune_trainer.data.tokenization.tokenize import RowTokenizer
    from finetune_trainer.data.tokenization.tokens import TokenRow
    from finetune_trainer.train.build_trainer import build_trainer
    from finetune_trainer.train.token_dataset import write_rows

    sections = {key: value for key, value in row.recipe.items() if key != "attention"}
    recipe = Recipe.model_validate(
        {
            "job": {"name": "benchmark"},
            "model": {"uri": "file:///model"},
            "dataset": {
                "uri": "file:///data",
                "maxLength": row.length if row.is_random else LENGTH,
                **sections.get("dataset", {}),
            },
            "lora": {**LORA, "dropout": row.dropout},
            "training": {
                "epochs": 1,
                **({"loggingSteps": 1} if row.is_random else {}),
                **sections.get("training", {}),
            },
            "output": {"uri": "file:///out"},
        }
    )
    if row.is_random:
        tokens = (TokenRow(ids=tuple(ids), trained=(True,) * len(ids)) for ids in data)
    else:
        tokenize = RowTokenizer(tokenizer, Loss.ALL)
        place = RowLocation(file="corpus", line=1)
        chats = (Messages(tuple(Message(**message) for message in item["messages"])) for item in data)
        tokens = (tokenize(Conversation(place=place, messages=chat)) for chat in chats)
    dataset = write_rows(tokens, folder / "rows.arrow")
    return build_trainer(recipe, model, tokenizer, dataset, model.dtype, folder, [clock])


def product_speed(device: Any, dtype: Any) -> float:
    """Returns the floating point operations per second of a matrix product that is large for the device."""
    import torch

    size = 1024 if device.type == "cpu" else 8192
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(6):
        begin = time.perf_counter() if device.type == "cuda" else time.process_time()
        one @ other
        if device.type == "cuda":
            torch.cuda.synchronize()
        end = time.perf_counter() if device.type == "cuda" else time.process_time()
        best = min(best, end - begin)
    return 2 * size**3 / best


def main() -> None:
    """Measures the row of the command line."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from finetune_trainer.runtime.cuda_allocator import use_expandable_segments
    from finetune_trainer.runtime.log import libraries_quiet

    row = Row(**json.loads(sys.argv[1]))
    if row.trl is None:
        use_expandable_segments(os.environ)
    with tempfile.TemporaryDirectory() as folder, libraries_quiet():
        found = measure(row, Path(folder))
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
