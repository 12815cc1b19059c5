"""Measures one row of the trainer's benchmark in its own process: `trainer_row.py ROW`, where ROW is JSON.

CPU and wall time are those between the trainer's first and last step. The peak of memory is that of the whole process,
with imports and loading. Prints one JSON object.
"""

import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

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
    """

    name: str
    trl: dict[str, Any] | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    dropout: str = "0"
    device: str = "cpu"
    shape: str = "smollm2"
    rows: int = 96


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The result of one measurement.

    Attributes:
        tokens: useful tokens: those of the rows, without padding.
        cpu_seconds: CPU seconds of all threads in the training.
        wall_seconds: wall time of the training in seconds.
        peak_bytes: peak memory of the process (VmHWM), or of the GPU.
        parameters: parameters in matrix products of the base model, with the head.
        peak_flops: floating point operations per second of a large matrix product on this device.
        loss: mean loss of the steps, in nats per trained token.
    """

    tokens: int
    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int
    parameters: int
    peak_flops: float
    loss: float

    @classmethod
    def parse(cls, text: str) -> "Measured":
        """Parses the process's output."""
        return cls(**json.loads(text.splitlines()[-1]))


def measure(row: Row, folder: Path) -> Measured:
    """Trains `row.rows` rows and measures the training."""
    import torch
    from benchmarks.trainer_models import conversations, load_model, matrix_parameters
    from transformers import TrainerCallback

    from finetune_trainer.memory.process import peak_process_bytes

    class Clock(TrainerCallback):  # type: ignore[misc]
        """A trainer callback that takes the time when the first step begins."""

        began: tuple[float, float] = (0.0, 0.0)

        def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            del args, control, rest
            if state.global_step == 0:
                self.began = time.process_time(), time.perf_counter()

    clock = Clock()
    conversation = conversations(row.rows)
    model, tokenizer = load_model(row.shape, row.device, ours=row.trl is None, attention=row.recipe.get("attention"))
    peak = product_speed(torch.device(row.device), model.dtype)
    parameters = matrix_parameters(model)
    make = plain_trl if row.trl is not None else ours
    trainer = make(row, model, tokenizer, conversation, folder, clock)
    lengths = [len(ids) for ids in trainer.train_dataset["input_ids"]]
    result = trainer.train()
    if row.device == "cuda":
        torch.cuda.synchronize()
    cpu, wall = time.process_time() - clock.began[0], time.perf_counter() - clock.began[1]
    high_water = peak_process_bytes()
    assert high_water is not None, "the system does not say"
    return Measured(
        tokens=sum(lengths),
        cpu_seconds=cpu,
        wall_seconds=wall,
        peak_bytes=torch.cuda.max_memory_allocated() if row.device == "cuda" else high_water,
        parameters=parameters,
        peak_flops=peak,
        loss=result.training_loss,
    )


def plain_trl(row: Row, model: Any, tokenizer: Any, conversations: list[Any], folder: Path, clock: Any) -> Any:
    """Trains with TRL's SFTTrainer as its documentation shows it. Only the row's settings and one epoch are set."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    settings = SFTConfig(
        output_dir=str(folder),
        num_train_epochs=1,
        use_cpu=row.device == "cpu",
        bf16=row.device == "cuda",
        dataloader_pin_memory=row.device == "cuda",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **(row.trl or {}),
    )
    adapter = LoraConfig(
        task_type="CAUSAL_LM",
        r=LORA["rank"],
        lora_alpha=LORA["alpha"],
        lora_dropout=float(row.dropout),
        target_modules="all-linear",
    )
    rows = Dataset.from_list(conversations)
    return SFTTrainer(
        model=model,
        args=settings,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=adapter,
        callbacks=[clock],
    )


def ours(row: Row, model: Any, tokenizer: Any, conversations: list[Any], folder: Path, clock: Any) -> Any:
    """Trains the rows' tokens with our trainer. As in TRL, all tokens count in the loss."""
    from finetune_trainer.contract.recipe import Recipe
    from finetune_trainer.contract.recipe.dataset import Loss
    from finetune_trainer.data.examples import Conversation, Message, Messages, RowLocation
    from finetune_trainer.data.tokenization.tokenize import RowTokenizer
    from finetune_trainer.train.build_trainer import build_trainer
    from finetune_trainer.train.token_dataset import write_rows

    sections = {key: value for key, value in row.recipe.items() if key != "attention"}
    recipe = Recipe.model_validate(
        {
            "job": {"name": "benchmark"},
            "model": {"uri": "file:///model"},
            "dataset": {"uri": "file:///data", "maxLength": LENGTH, **sections.get("dataset", {})},
            "lora": {**LORA, "dropout": row.dropout},
            "training": {"epochs": 1, **sections.get("training", {})},
            "output": {"uri": "file:///out"},
        }
    )
    tokenize = RowTokenizer(tokenizer, Loss.ALL)
    place = RowLocation(file="corpus", line=1)
    tokens = (
        tokenize(
            Conversation(place=place, messages=Messages(tuple(Message(**message) for message in item["messages"])))
        )
        for item in conversations
    )
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
    from finetune_trainer.runtime.log import libraries_quiet

    row = Row(**json.loads(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder, libraries_quiet():
        found = measure(row, Path(folder))
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
