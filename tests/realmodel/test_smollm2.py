"""A real model on real conversations: it learns, and what it learns survives saving and loading."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from demo.smollm2 import chatterbot_rows, prepare_smollm2
from finetune_trainer.contract.recipe import ModelSpec
from finetune_trainer.runtime import log

pytestmark = pytest.mark.trainer
STEPS = 5
HELD_OUT = 12


def _answer_loss(model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> float:
    """Mean loss of the held-out answers, nats per token, one row at a time."""
    from finetune_trainer.contract.recipe.dataset import Loss
    from finetune_trainer.data.examples import Conversation, Message, Messages, RowLocation
    from finetune_trainer.data.tokenization.tokenize import RowTokenizer

    tokenize, total, count = RowTokenizer(tokenizer, Loss.AUTO), 0.0, 0
    for line, row in enumerate(rows, 1):
        messages = tuple(Message(**message) for message in row["messages"])
        tokens = tokenize(Conversation(place=RowLocation(file="held-out", line=line), messages=Messages(messages)))
        ids = torch.tensor([tokens.ids])
        labels = torch.where(torch.tensor([tokens.trained]), ids, -100)
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1]
        total += torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum").item()
        count += sum(tokens.trained[1:])
    return total / count


def test_real_model_learns_real_conversations(tmp_path: Path) -> None:
    from peft import PeftModel

    from finetune_trainer.model.load import load_base
    from finetune_trainer.model.tokenizer import load_tokenizer
    from trainer.running import LocalRun, folder_of

    with log.libraries_quiet():
        folder, rows = prepare_smollm2(), chatterbot_rows()
        rows = [rows[(index * 379) % len(rows)] for index in range(len(rows))]  # topics mixed, in a fixed order
        training, held_out = rows[HELD_OUT:], rows[:HELD_OUT]
        run = LocalRun.make(
            folder,
            tmp_path,
            training,
            training={"maxSteps": STEPS, "batchSize": 8, "learningRate": "2e-3"},
            dataset={"maxLength": 256},
            lora={"rank": 8, "alpha": 16},
        )

        adapter = folder_of(run())

        tokenizer = load_tokenizer(folder)
        base = load_base(folder, ModelSpec(uri=f"file://{folder}"), torch.float32)
        before = _answer_loss(base, tokenizer, held_out)
        after = _answer_loss(PeftModel.from_pretrained(base, adapter), tokenizer, held_out)
    assert after < 0.85 * before, f"held-out loss {before:.3f} -> {after:.3f}"
    assert json.loads((adapter / "tokenizer_config.json").read_text()).keys().isdisjoint({"is_local"})
