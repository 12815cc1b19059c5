"""Preference tuning beside TRL's DPOTrainer with its defaults: useful tokens a CPU second, and peak memory.

Both train the same pairs of real chats with SmolLM2-135M-Instruct in NF4, one row after the other in a process of its
own. What the reference says of the pairs is part of the time: TRL asks the reference in every step, we once before the
training. The seconds are CPU seconds of one thread, because the machine may be shared.

    python benchmarks/preference.py [--pairs N]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
# In the place of this script's own folder, whose trainer.py would hide tests/trainer.
sys.path[:1] = [str(_ROOT / name) for name in ("", "operator", "trainer", "tools", "tests")]

SPEED_BAR, MEMORY_BAR = 2.0, 0.7
LENGTH = 512
BATCH, RANK, ALPHA = 8, 16, 32


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The result of one trainer.

    Attributes:
        tokens: useful tokens: those of both answers with their prompts, without padding.
        cpu_seconds: CPU seconds of reference and training.
        peak_bytes: peak memory of the process.
        losses: of all steps.
        load: load average of the machine at the end, in words.
    """

    tokens: int
    cpu_seconds: float
    peak_bytes: int
    losses: list[float]
    load: str


def pairs_of_chats(count: int) -> list[dict[str, Any]]:
    """Returns pairs: to the first question of a chat its own answer, and the answer of another chat."""
    from benchmarks.trainer_models import conversations

    chats = [item["messages"] for item in conversations(count)]
    asked = [next(index for index, turn in enumerate(turns) if turn["role"] == "user") for turns in chats]
    answers = [turns[place + 1]["content"] for turns, place in zip(chats, asked, strict=True)]
    return [
        {
            "prompt": turns[: place + 1],
            "chosen": [{"role": "assistant", "content": answers[number]}],
            "rejected": [{"role": "assistant", "content": answers[(number + 1) % count]}],
        }
        for number, (turns, place) in enumerate(zip(chats, asked, strict=True))
    ]


def measure_ours(pairs: list[dict[str, Any]], folder: Path) -> Measured:
    """Trains with our trainer and its defaults."""
    from benchmarks.trainer_models import load_model

    from finetune_trainer.contract.recipe import Recipe
    from finetune_trainer.data.examples import RowLocation
    from finetune_trainer.data.schemas.preference_forms import preference_schemas
    from finetune_trainer.data.tokenization.tokenize import token_rows
    from finetune_trainer.data.tokenization.tokens import TokenCounts
    from finetune_trainer.train.build_trainer import build_trainer
    from finetune_trainer.train.reference import measure_reference
    from finetune_trainer.train.token_dataset import write_rows

    recipe = Recipe.model_validate(
        {
            "job": {"name": "benchmark"},
            "method": "dpo",
            "model": {"uri": "file:///model"},
            "dataset": {"uri": "file:///data", "maxLength": LENGTH},
            "lora": {"rank": RANK, "alpha": ALPHA},
            "training": {"epochs": 1, "batchSize": BATCH, "learningRate": "1e-6"},
            "output": {"uri": "file:///out"},
        }
    )
    model, tokenizer = load_model("cpu", ours=True, attention=None)
    schema = next(schema for schema in preference_schemas(None) if schema.fits(pairs[0]))
    counts, place = TokenCounts(), RowLocation(file="pairs", line=1)
    examples = [schema.build(pair, place) for pair in pairs]
    rows = token_rows(examples, tokenizer, loss=recipe.dataset.loss, max_length=LENGTH, counts=counts)
    data = write_rows(rows, folder / "rows.arrow")
    trainer = build_trainer(recipe, model, tokenizer, data, model.dtype, folder, [])
    begin = time.process_time()
    measure_reference(trainer, data, None, None)
    trainer.train_from(None)
    return _measured(counts.tokens, begin, trainer)


def measure_trls(pairs: list[dict[str, Any]], folder: Path) -> Measured:
    """Trains with TRL's DPOTrainer and its defaults."""
    from benchmarks.trainer_models import load_model
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    model, tokenizer = load_model("cpu", ours=False, attention=None)
    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(
            output_dir=str(folder),
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            max_length=LENGTH,
            logging_steps=1,
            use_cpu=True,
            bf16=False,
            dataloader_pin_memory=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(pairs),
        processing_class=tokenizer,
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules="all-linear"),
    )
    rows = trainer.train_dataset
    tokens = sum(
        min(LENGTH, len(row["prompt_ids"]) + len(row[f"{answer}_ids"]))
        for row in rows
        for answer in ("chosen", "rejected")
    )
    begin = time.process_time()
    trainer.train()
    return _measured(tokens, begin, trainer)


def _measured(tokens: int, begin: float, trainer: Any) -> Measured:
    from benchmarks.tables import load

    from finetune_trainer.memory.process import peak_process_bytes

    seconds, peak = time.process_time() - begin, peak_process_bytes()
    assert peak is not None, "the system does not say"
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return Measured(tokens=tokens, cpu_seconds=seconds, peak_bytes=peak, losses=losses, load=load())


def _in_a_process(trainer: str, pairs: int) -> Measured:
    command = [sys.executable, __file__, "--pairs", str(pairs), "--trainer", trainer]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{trainer}: {done.stderr[-3000:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measures both and prints a table. Exits with an error when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=48, help="pairs that each trains, 8 a step")
    parser.add_argument("--trainer", choices=("trl", "ours"), help="measure one, and print it as JSON")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if asked.trainer is not None:
        from finetune_trainer.runtime.log import libraries_quiet

        with tempfile.TemporaryDirectory() as folder, libraries_quiet():
            measure = measure_ours if asked.trainer == "ours" else measure_trls
            print(json.dumps(asdict(measure(pairs_of_chats(asked.pairs), Path(folder)))))
        return

    from benchmarks.tables import Table

    table = Table(
        f"SmolLM2-135M, NF4, rank {RANK}, {asked.pairs} pairs of at most {LENGTH} tokens",
        ["", "useful tokens a CPU second", "x TRL", "peak RSS, GB", "x TRL", "losses", "load"],
    )
    theirs, ours = (_in_a_process(trainer, asked.pairs) for trainer in ("trl", "ours"))
    for name, found in (("TRL's DPOTrainer, its defaults", theirs), ("our defaults", ours)):
        table.rows.append(
            [
                name,
                f"{found.tokens / found.cpu_seconds:,.1f}",
                f"{found.tokens / found.cpu_seconds * theirs.cpu_seconds / theirs.tokens:.2f}",
                f"{found.peak_bytes / 1e9:.2f}",
                f"{found.peak_bytes / theirs.peak_bytes:.2f}",
                " ".join(f"{loss:.4f}" for loss in found.losses[:4]),
                found.load,
            ]
        )
    print(table.text())
    faster = ours.tokens / ours.cpu_seconds * theirs.cpu_seconds / theirs.tokens
    larger = ours.peak_bytes / theirs.peak_bytes
    print(f"{faster:.2f}x the useful tokens (bar: {SPEED_BAR}), {larger:.2f}x the memory (bar: {MEMORY_BAR})")
    sys.exit(0 if faster >= SPEED_BAR and larger <= MEMORY_BAR else 1)


if __name__ == "__main__":
    main()
