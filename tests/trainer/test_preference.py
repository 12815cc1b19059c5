"""Direct Preference Optimization beside TRL's DPOTrainer, and what holds for it as for supervised training."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.progress import Progress, Stage
from finetune_trainer.data.examples import Preference, PromptCompletion, RowLocation
from finetune_trainer.data.tokenization.tokenize import token_rows
from finetune_trainer.data.tokenization.tokens import TokenCounts
from finetune_trainer.model.load import load_base
from finetune_trainer.train.build_trainer import build_trainer
from finetune_trainer.train.reference import measure_reference
from finetune_trainer.train.token_dataset import write_rows
from trainer.pods import adapter_of, difference, end_of, start_pod
from trainer.running import PAIRS, LocalRun, folder_of, manifest_of, recipe_of

pytestmark = pytest.mark.trainer
Runs = Callable[..., LocalRun]
Weights = dict[str, torch.Tensor]

STEPS = 20
LOSSES: dict[str, dict[str, Any]] = {
    "sigmoid": {},
    "ipo": {"lossType": "ipo"},
    "hinge": {"lossType": "hinge", "beta": "0.5"},
    "smoothed labels": {"labelSmoothing": "0.2"},
    "without a reference": {"referenceFree": True},
    "with the supervised loss": {"sftWeight": "0.5"},
}


class KeepLog(TrainerCallback):  # type: ignore[misc]
    """Keeps what a trainer logs."""

    def __init__(self) -> None:
        self.entries: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **rest: Any) -> None:
        """Keeps the losses."""
        del args, state, control, rest
        if logs is not None and "loss" in logs:
            self.entries.append(logs)


def _ours(base: Path, folder: Path, spec: dict[str, Any], packing: str) -> tuple[list[dict[str, float]], Weights, Any]:
    """The log and the adapter of this trainer, and a function that gives another model the adapter it began with."""
    training = {"maxSteps": STEPS, "batchSize": 8}
    dataset = {"packing": packing}
    recipe = recipe_of(base, folder, folder, method="dpo", dpo=spec, training=training, dataset=dataset)
    tokenizer = AutoTokenizer.from_pretrained(base)
    place = RowLocation(file="pairs", line=1)
    pairs = [
        Preference(
            place=place,
            chosen=PromptCompletion(place=place, prompt=pair["prompt"], completion=pair["chosen"]),
            rejected=PromptCompletion(place=place, prompt=pair["prompt"], completion=pair["rejected"]),
        )
        for pair in PAIRS
    ]
    rows = write_rows(
        token_rows(pairs, tokenizer, loss=recipe.dataset.loss, max_length=2048, counts=TokenCounts()),
        folder / f"{packing}.arrow",
    )
    model = load_base(base, recipe.model.model_copy(update={"quantization": _unquantised()}), torch.float32)
    kept = KeepLog()
    trainer = build_trainer(recipe, model, tokenizer, rows, torch.float32, folder / packing, [kept])
    before = {name: weight.clone() for name, weight in get_peft_model_state_dict(trainer.model).items()}
    measure_reference(trainer, rows, None, None)
    trainer.train_from(None)
    return kept.entries, get_peft_model_state_dict(trainer.model), before


def _unquantised() -> Any:
    from finetune_trainer.contract.recipe import Quantization

    return Quantization.model_validate({"type": "none"})


def _trls(base: Path, folder: Path, spec: dict[str, Any], before: Weights) -> tuple[list[dict[str, float]], Weights]:
    """The log and the adapter of TRL's trainer, on the same pairs in the same order, from the same adapter."""
    supervised, smoothing = float(spec.get("sftWeight", 0)), float(spec.get("labelSmoothing", 0))
    losses = {spec.get("lossType", "sigmoid"): 2 * (1 - smoothing) if smoothing else 1.0}
    if smoothing:
        # TRL has no smoothed loss, but one with the same two terms, of which the second has the other sign.
        losses["robust"] = 2 * smoothing - 1
    if supervised:
        losses["sft"] = supervised
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        args=DPOConfig(
            output_dir=str(folder / "trl"),
            per_device_train_batch_size=8,
            max_steps=STEPS,
            learning_rate=2e-3,
            lr_scheduler_type="cosine",
            optim="adamw_torch_fused",
            warmup_steps=0,
            beta=float(spec.get("beta", "0.1")),
            loss_type=list(losses),
            loss_weights=list(losses.values()),
            label_smoothing=smoothing,
            precompute_ref_log_probs=True,
            max_length=2048,
            logging_steps=1,
            seed=42,
            data_seed=42,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
        ),
        train_dataset=Dataset.from_list(PAIRS),
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    set_peft_model_state_dict(trainer.model, before)
    if spec.get("referenceFree"):
        measured = trainer.train_dataset.remove_columns(["ref_chosen_logps", "ref_rejected_logps"])
        zeros = [0.0] * len(measured)
        trainer.train_dataset = measured.add_column("ref_chosen_logps", zeros).add_column("ref_rejected_logps", zeros)
    kept = KeepLog()
    trainer.add_callback(kept)
    trainer.train()
    return kept.entries, get_peft_model_state_dict(trainer.model)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_rewards_and_adapter_are_those_of_trl(loss: str, tiny_model: Path, tmp_path: Path) -> None:
    spec = LOSSES[loss]
    log, weights, before = _ours(tiny_model, tmp_path, spec, "enabled")
    padded_log, padded_weights, _ = _ours(tiny_model, tmp_path, spec, "disabled")

    expected_log, expected_weights = _trls(tiny_model, tmp_path, spec, before)

    assert len(log) == len(padded_log) == len(expected_log) == STEPS
    for step, (ours, padded, theirs) in enumerate(zip(log, padded_log, expected_log, strict=True)):
        for name in ("loss", "rewards/chosen", "rewards/rejected", "rewards/margins"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-4), (step, name)
            assert padded[name] == pytest.approx(theirs[name], abs=1e-4), (step, name)
        # Before the first step all margins are 0 but for rounding, and the accuracy is a matter of luck.
        if step:
            assert ours["rewards/accuracies"] == padded["rewards/accuracies"] == theirs["rewards/accuracies"]
    assert expected_weights.keys() == weights.keys()
    for name, weight in expected_weights.items():
        assert torch.allclose(weights[name], weight, atol=1e-4), name
        assert torch.allclose(padded_weights[name], weight, atol=1e-4), name


def _answers(folder: Path) -> dict[str, str]:
    """The answers to the first sample prompt in a report, by the model."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    return dict(re.findall(r'<div><span class="soft">([a-z ]+)</span><pre>(.*?)</pre></div>', page, re.DOTALL))


def _weights(run: LocalRun) -> bytes:
    return (folder_of(run()) / "adapter_model.safetensors").read_bytes()


def _preference_run(local_run: Runs, **sections: Any) -> LocalRun:
    training = {"maxSteps": 8, "batchSize": 8, "learningRate": "1e-2"}
    return local_run(PAIRS, method="dpo", training=training, lora={"dropout": "0.1"}, **sections)


@pytest.mark.parametrize("step", [1, 5])
def test_told_to_stop_it_goes_on_to_the_same_bytes(local_run: Runs, tmp_path: Path, step: int) -> None:
    """The reference is that of the beginning: the checkpoint has it, because the adapter has changed since."""
    run = _preference_run(local_run, dataset={"validation": {"fraction": "0.2"}}, evaluation={"everySteps": 3})

    def tell(progress: Progress) -> None:
        if progress.stage is Stage.TRAINING and progress.step == step:
            run.stop.set()

    run.on_progress = tell
    with pytest.raises(TrainerError) as caught:
        run()
    run.stop.clear()

    assert caught.value.reason is FailureReason.PREEMPTED
    assert _weights(run.changed()) == _weights(run.changed(output={"uri": f"file://{tmp_path}/whole"}))


def test_told_to_stop_while_the_reference_is_measured(local_run: Runs, tmp_path: Path) -> None:
    run = _preference_run(local_run)

    def tell(progress: Progress) -> None:
        if progress.stage is Stage.EVALUATING:
            run.stop.set()

    run.on_progress = tell
    with pytest.raises(TrainerError) as caught:
        run()
    run.stop.clear()

    assert caught.value.reason is FailureReason.PREEMPTED
    assert "while the reference model was measured" in caught.value.message
    assert _weights(run.changed()) == _weights(run.changed(output={"uri": f"file://{tmp_path}/whole"}))


def test_what_is_measured_of_the_reference_is_not_measured_again(
    local_run: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_trainer.train.validation_loss._ROWS_AT_ONCE", 4)
    run = _preference_run(local_run, dataset={"validation": {"fraction": "0.25"}})
    stopped, resumed = [], []

    def stop_after_three(progress: Progress) -> None:
        if progress.stage is Stage.EVALUATING:
            stopped.append(progress)
            # One of them says that the stage begins, each of the others that a group of four pairs is measured.
            if len(stopped) == 4:
                run.stop.set()

    run.on_progress = stop_after_three
    with pytest.raises(TrainerError) as caught:
        run()
    again = run.changed()
    again.on_progress = lambda progress: resumed.append(progress.stage)

    assert caught.value.message.endswith("the newest checkpoint has 12 pairs")
    assert _weights(again) == _weights(run.changed(output={"uri": f"file://{tmp_path}/whole"}))
    before_training = resumed[: resumed.index(Stage.TRAINING)]
    assert before_training.count(Stage.EVALUATING) == 1 + (18 - 12 + 3) // 4 + (6 + 3) // 4


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_processes_make_what_one_makes(local_run: Runs, sharding: str) -> None:
    sections = {
        "dataset": {"validation": {"fraction": "0.25"}},
        "evaluation": {"everySteps": 3},
        "model": {"sharding": sharding},
    }
    training = {"maxSteps": 6, "batchSize": 5, "learningRate": "5e-3"}
    run = local_run(PAIRS[:15], method="dpo", training=training, machine={"gpus": 2}, **sections)

    code, log, message = end_of(start_pod(run), run)

    assert code == 0, log
    assert message.output is not None
    alone = run.changed(output={"uri": f"file://{run.folder}/alone"}, machine={"gpus": 1}, model={"sharding": "none"})()
    for number in ("loss", "eval_loss", "base_eval_loss", "eval_reward_margin", "eval_reward_accuracy"):
        assert message.output.metrics[number] == pytest.approx(alone.output.metrics[number], abs=1e-5)
    assert difference(adapter_of(message), load_file(folder_of(alone) / "adapter_model.safetensors")) < 1e-5


def test_progress_history_and_metrics_have_the_rewards(local_run: Runs) -> None:
    run = _preference_run(local_run, dataset={"validation": {"fraction": "0.2"}})

    result = run()

    last = run.seen[-1]
    assert last.reward_margin is not None
    assert last.reward_margin > 0
    assert last.reward_accuracy is not None
    assert last.eval_reward_accuracy == result.output.metrics["eval_reward_accuracy"]
    assert result.output.metrics["base_eval_loss"] == pytest.approx(0.6931, abs=1e-3), "the base is the reference"
    assert "eval_perplexity" not in result.output.metrics
    manifest = manifest_of(result)
    assert manifest.recipe["method"] == "dpo"
    assert manifest.data is not None
    assert (manifest.rows, manifest.data.validation) == (20, 4)


def test_a_training_whose_accuracy_no_longer_rises_ends(local_run: Runs) -> None:
    """The pairs are easily told apart: all are ordered after some steps, while the loss still falls."""
    run = local_run(
        PAIRS,
        method="dpo",
        dataset={"validation": {"fraction": "0.25"}},
        training={
            "maxSteps": 30,
            "batchSize": 6,
            "learningRate": "1e-2",
            "earlyStopping": {"patience": 2, "metric": "accuracy"},
        },
        evaluation={"everySteps": 1},
    )

    result = run()

    metrics = manifest_of(result).metrics
    assert metrics["steps"] == metrics["eval_step"] + 2 < 30
    assert metrics["eval_reward_accuracy"] == 1.0
    losses = [progress.eval_loss for progress in run.seen if progress.eval_loss is not None]
    assert min(losses) < metrics["eval_loss"], "by the loss it would have gone on"


def test_the_reference_of_an_adapter_that_is_continued_is_that_adapter(local_run: Runs, tmp_path: Path) -> None:
    asked = {"samplePrompts": ["Question: what is 3? Answer:"]}
    first = folder_of(_preference_run(local_run, evaluation=asked)())
    run = local_run(
        PAIRS,
        method="dpo",
        training={"maxSteps": 2, "batchSize": 8, "learningRate": "2e-2"},
        lora={"initialAdapterUri": f"file://{first}"},
        output={"uri": f"file://{tmp_path}/second"},
        evaluation=asked,
    )

    second = folder_of(run())

    losses = [progress.loss for progress in run.seen if progress.loss is not None]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3), "no margin before the first step"
    before, after = _answers(first), _answers(second)
    assert after["base"] == before["base"]
    assert after["initial adapter"] == before["tuned"] != after["tuned"]
    unasked = run.changed(evaluation={"samplePrompts": None}, output={"uri": f"file://{tmp_path}/third"})
    assert _weights(unasked) == (second / "adapter_model.safetensors").read_bytes(), "the adapter is put back"


def test_without_a_reference_the_answers_are_compared_by_themselves(local_run: Runs) -> None:
    """A random model gives the longer answer less: the first margin is what the lengths make it."""
    run = local_run(PAIRS, method="dpo", dpo={"referenceFree": True}, training={"maxSteps": 1, "batchSize": 24})

    run()

    margin = next(progress.reward_margin for progress in run.seen if progress.reward_margin is not None)
    assert abs(margin) > 0.01


def test_a_gate_by_accuracy_keeps_nothing_that_misses_it(local_run: Runs) -> None:
    sections = {"dataset": {"validation": {"fraction": "0.2"}}, "evaluation": {"gate": {"minAccuracy": "1"}}}
    run = local_run(PAIRS, method="dpo", training={"maxSteps": 1, "batchSize": 8, "learningRate": "1e-9"}, **sections)

    with pytest.raises(TrainerError) as caught:
        run()

    assert caught.value.reason is FailureReason.QUALITY_GATE_MISSED
    assert "asked for is 1 (minAccuracy)" in caught.value.message


def test_rows_with_one_answer_are_refused_with_the_remedy(local_run: Runs) -> None:
    run = local_run([{"prompt": "a", "completion": "b"}], method="dpo")

    with pytest.raises(TrainerError, match="rows with one answer are trained with method: sft") as caught:
        run()

    assert caught.value.reason is FailureReason.DATASET_INVALID


def test_pairs_under_sft_are_refused_with_the_remedy(local_run: Runs) -> None:
    run = local_run([{"messages": [{"role": "user", "content": "a"}], "chosen": "b", "rejected": "c"}] * 3)

    with pytest.raises(TrainerError, match="method: dpo") as caught:
        run()

    assert caught.value.reason is FailureReason.DATASET_INVALID
