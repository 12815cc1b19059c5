"""Measuring the adapter: what it costs the training (nothing), which adapter is kept, and the end that it can mean."""

import json
import math
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.progress import Progress, Stage
from finetune_trainer.contract.termination import Outcome
from finetune_trainer.data.tokenization.tokens import TokenRow
from finetune_trainer.model.base import without_adapter
from finetune_trainer.model.load import load_base
from finetune_trainer.storage.registry import StoreRegistry
from finetune_trainer.train.build_trainer import build_trainer
from finetune_trainer.train.context import Context
from finetune_trainer.train.inputs import resolve_inputs
from finetune_trainer.train.token_dataset import write_rows
from finetune_trainer.train.tokenized_data import tokenize_data
from finetune_trainer.train.validation_loss import ValidationRows, validation_metrics
from trainer.running import QUESTIONS, LocalRun, folder_of, manifest_of, recipe_of

pytestmark = pytest.mark.trainer
Runs = Callable[..., LocalRun]

OTHERS = [
    {"prompt": f"Question: where is {number}? Answer:", "completion": f" over there {number * 3} or so"}
    for number in range(5)
]
"""Validation rows that the training rows teach a little of, until they are learned by heart."""
STEPS, BEST = 14, 8
OVERFITS: dict[str, Any] = {
    "training": {"maxSteps": STEPS, "batchSize": 4, "learningRate": "1e-2", "scheduler": "constant"},
    "lora": {"dropout": "0.1"},
    "evaluation": {"everySteps": 2},
}
"""With 12 rows: five passes over the data; the validation loss is lowest after step 8 and rises from there."""


def _overfitting(model: Path, folder: Path, **sections: Any) -> LocalRun:
    """The run that overfits, with rows of their own to measure with."""
    file = folder / "others.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in OTHERS))
    merged = {name: {**OVERFITS.get(name, {}), **sections.get(name, {})} for name in {**OVERFITS, **sections}}
    return LocalRun.make(model, folder, QUESTIONS[:12], dataset={"validation": {"uri": f"file://{file}"}}, **merged)


@pytest.fixture
def overfitting(tiny_model: Path, tmp_path: Path) -> Callable[..., LocalRun]:
    """Makes that run; sections of its recipe are keyword arguments."""
    return partial(_overfitting, tiny_model, tmp_path)


@pytest.fixture(scope="module")
def kept(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The adapter's bytes of that run without an interruption: the best one, however long it went on after it."""
    return _weights(_overfitting(tiny_model, tmp_path_factory.mktemp("kept")))


def _weights(run: LocalRun) -> bytes:
    return (folder_of(run()) / "adapter_model.safetensors").read_bytes()


def _losses(run: LocalRun) -> dict[int, float]:
    """The validation losses that were reported, by step."""
    return {p.step: p.eval_loss for p in run.seen if p.step is not None and p.eval_loss is not None}


def _elsewhere(run: LocalRun, name: str, **sections: Any) -> LocalRun:
    return run.changed(output={"uri": f"file://{run.folder}/{name}"}, **sections)


def _told_while_measuring(run: LocalRun, step: int, stage: Stage = Stage.EVALUATING, times: int = 1) -> str:
    """Runs until that stage is entered at the step for the so many-th time, then tells it to stop."""
    seen = 0

    def tell(progress: Progress) -> None:
        nonlocal seen
        entered = len(run.seen) < 2 or run.seen[-2].stage is not stage
        seen += progress.stage is stage and progress.step == step and entered
        if seen >= times:
            run.stop.set()

    run.on_progress = tell
    with pytest.raises(TrainerError) as caught:
        run()
    assert caught.value.reason is FailureReason.PREEMPTED
    run.stop.clear()
    run.on_progress = lambda _: None
    return caught.value.message


class _KilledError(Exception):
    """Stands for SIGKILL: nothing of this project catches it."""


def _killed_after(run: LocalRun, step: int) -> None:
    def kill(progress: Progress) -> None:
        if progress.stage is Stage.TRAINING and progress.step == step:
            raise _KilledError

    run.on_progress = kill
    with pytest.raises(_KilledError):
        run()
    run.on_progress = lambda _: None


def test_the_adapter_with_the_lowest_loss_is_kept(overfitting: Callable[..., LocalRun]) -> None:
    run = overfitting()

    result = run()

    losses, manifest = _losses(run), manifest_of(result)
    assert sorted(losses) == [*range(2, STEPS + 1)]  # a loss stays until there is another one
    assert min(losses, key=lambda step: losses[step]) == BEST
    assert manifest.metrics["eval_step"] == BEST
    assert manifest.metrics["eval_loss"] == losses[BEST]
    assert manifest.metrics["eval_perplexity"] == pytest.approx(math.exp(losses[BEST]))
    assert manifest.metrics["steps"] == STEPS
    assert (manifest.losses.lowest_eval_loss_step, manifest.losses.last_eval_loss) == (BEST, losses[STEPS])
    assert result.output.metrics == manifest.metrics
    # It is the very adapter of that step: a run that is stopped there leaves it in its checkpoint.
    other = _elsewhere(run, "stopped")
    _told_while_measuring(other, BEST + 2)
    (checkpoint,) = (run.folder / "stopped").rglob("checkpoint.json")
    best = load_file(checkpoint.parent / "best_adapter.safetensors")
    last = load_file(folder_of(result) / "adapter_model.safetensors")
    assert best.keys() == last.keys()
    assert all(torch.equal(best[name], last[name]) for name in last)


def test_without_steps_only_the_end_is_measured_and_the_last_adapter_is_kept(local_run: Runs) -> None:
    """The rows that are held out are the same ones for the next pod: two passes over the data, ended in the second."""
    sections: dict[str, Any] = {
        "training": {"maxSteps": None, "epochs": 2},
        "dataset": {"validation": {"fraction": "0.2"}},
    }
    run = local_run(QUESTIONS, **sections, lora={"dropout": "0.1"})
    whole = _elsewhere(run, "whole")
    result = whole()

    def tell(progress: Progress) -> None:
        if progress.step == 4:
            run.stop.set()

    run.on_progress = tell
    with pytest.raises(TrainerError, match="stopped after step 4 of 6"):
        run()

    assert _weights(run.changed()) == (folder_of(result) / "adapter_model.safetensors").read_bytes()
    assert _losses(whole).keys() == {6}
    manifest = manifest_of(result)
    assert (manifest.metrics["eval_step"], manifest.metrics["steps"]) == (6, 6)
    assert manifest.data is not None
    assert (manifest.rows, manifest.data.validation) == (20, 4)


@pytest.mark.parametrize("packing", ["enabled", "disabled"])
def test_a_training_that_is_measured_makes_the_bytes_of_one_that_is_not(
    overfitting: Callable[..., LocalRun], packing: str
) -> None:
    """Dropout and the shuffle draw random numbers. The sixth step's loss is the lowest so far."""
    run = overfitting(training={"maxSteps": 6, "neftuneAlpha": "5"})
    run = run.changed(dataset={"packing": packing})
    values = run.recipe.to_dict()
    values["dataset"].pop("validation")
    values["evaluation"].pop("everySteps")
    alone = LocalRun(recipe=run.recipe.model_validate(values), folder=run.folder)

    assert _weights(run) == _weights(alone)
    assert manifest_of(run()).metrics["eval_step"] == 6


@pytest.mark.parametrize("step", [3, BEST + 3])
def test_killed_before_and_after_the_best_step_it_ends_the_same(
    overfitting: Callable[..., LocalRun], kept: bytes, step: int
) -> None:
    run = overfitting(checkpoint={"everySteps": 3})
    _killed_after(run, step)

    resumed = run.changed()

    assert _weights(resumed) == kept
    assert manifest_of(resumed()).metrics["eval_step"] == BEST


@pytest.mark.parametrize("step", [BEST, STEPS])
def test_told_to_stop_while_it_is_measured_it_measures_first(
    overfitting: Callable[..., LocalRun], kept: bytes, step: int
) -> None:
    """What was begun is not noted; the resumed run begins with it, be it of the best step or of the last."""
    run = overfitting()
    message = _told_while_measuring(run, step)
    resumed = run.changed()
    weights = _weights(resumed)

    assert message.startswith(f"told to stop; stopped after step {step} of {STEPS}; the newest checkpoint is of step")
    whole = _elsewhere(run, "whole")
    whole()
    assert weights == kept
    stages = [p.stage for p in resumed.seen if p.step == step and p.stage in (Stage.TRAINING, Stage.EVALUATING)]
    assert Stage.EVALUATING in stages
    assert _losses(resumed) == {at: loss for at, loss in _losses(whole).items() if at >= step}


def test_told_to_stop_at_the_step_that_is_to_be_measured(overfitting: Callable[..., LocalRun], kept: bytes) -> None:
    """It goes at once, and the next pod measures."""
    run = overfitting()

    def tell(progress: Progress) -> None:
        if progress.step == BEST:
            run.stop.set()

    run.on_progress = tell
    with pytest.raises(TrainerError):
        run()
    resumed = run.changed()

    assert Stage.EVALUATING not in {p.stage for p in run.seen if p.step == BEST}
    assert _weights(resumed) == kept
    assert manifest_of(resumed()).metrics["eval_step"] == BEST


def test_told_to_stop_while_base_and_adapter_are_compared(overfitting: Callable[..., LocalRun], kept: bytes) -> None:
    run = overfitting(checkpoint={"everySteps": 2})
    message = _told_while_measuring(run, STEPS, times=2)

    assert message.startswith("told to stop after the training, while its adapter was measured; the newest checkpoint")
    assert _weights(run.changed()) == kept


EARLY = {"earlyStopping": {"patience": 2}}
ENDS = BEST + 4
"""Two measurements after the best one."""


def test_a_training_that_no_longer_improves_ends(overfitting: Callable[..., LocalRun], kept: bytes) -> None:
    run = overfitting(training=EARLY)

    result = run()

    assert result.outcome is Outcome.SUCCEEDED
    assert manifest_of(result).metrics["steps"] == ENDS
    assert manifest_of(result).metrics["eval_step"] == BEST
    assert max(p.step or 0 for p in run.seen) == ENDS
    assert (
        _weights(_elsewhere(run, "all", training={"earlyStopping": None}))
        == (folder_of(result) / "adapter_model.safetensors").read_bytes()
    )


@pytest.mark.parametrize("step", [BEST + 1, BEST + 3])
def test_an_early_end_is_the_same_after_a_kill(overfitting: Callable[..., LocalRun], kept: bytes, step: int) -> None:
    """The counting does not begin anew: one of the two measurements without improvement lies before the kill."""
    run = overfitting(training=EARLY, checkpoint={"everySteps": 1})
    _killed_after(run, step)

    resumed = run.changed()
    result = resumed()

    assert manifest_of(result).metrics["steps"] == ENDS
    assert (folder_of(result) / "adapter_model.safetensors").read_bytes() == kept


def test_an_early_end_that_was_not_measured_yet_is_found_by_the_next_pod(
    overfitting: Callable[..., LocalRun], kept: bytes
) -> None:
    run = overfitting(training=EARLY)
    _told_while_measuring(run, ENDS)

    resumed = run.changed()
    result = resumed()

    assert {p.step for p in resumed.seen if p.stage is Stage.TRAINING} == {ENDS}
    assert manifest_of(result).metrics["steps"] == ENDS
    assert (folder_of(result) / "adapter_model.safetensors").read_bytes() == kept


def test_an_early_end_that_has_a_checkpoint_is_taken_up_as_an_end(
    overfitting: Callable[..., LocalRun], kept: bytes
) -> None:
    run = overfitting(training=EARLY, checkpoint={"everySteps": 2})
    _told_while_measuring(run, ENDS, times=2)  # the comparison with the base model

    resumed = run.changed()
    result = resumed()

    assert Stage.TRAINING not in {p.stage for p in resumed.seen}
    assert (folder_of(result) / "adapter_model.safetensors").read_bytes() == kept


def _reference(model: Any, rows: list[TokenRow]) -> float:
    """The loss by its definition: the mean of -log p over the trained tokens, row by row."""
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            scores = model(input_ids=torch.tensor([row.ids])).logits[0].double().log_softmax(-1)
            for place in range(1, len(row.ids)):
                if row.trained[place]:
                    total, count = total - scores[place - 1, row.ids[place]].item(), count + 1
    return total / count


ROWS = [
    TokenRow(ids=tuple(range(5 + n, 17 + 2 * n)), trained=tuple(place >= n for place in range(12 + n)))
    for n in range(9)
]


@pytest.mark.parametrize(
    ("weights", "packing", "lora"),
    [
        ("nf4", "enabled", {}),
        ("nf4", "disabled", {}),
        ("none", "enabled", {"modulesToSave": ["lm_head", "embed_tokens"]}),
        ("nf4", "disabled", {"bias": "all", "targetModules": ["q_proj"]}),
        ("nf4", "enabled", {"variant": "dora"}),
    ],
)
def test_the_base_loss_is_that_of_the_base_model_alone(
    weights: str, packing: str, lora: dict[str, Any], tiny_model: Path, tokenizer: Any, tmp_path: Path
) -> None:
    """Also where the base model's own biases are trained, and where whole modules are."""
    from transformers import LlamaConfig, LlamaForCausalLM

    base = shutil.copytree(tiny_model, tmp_path / "base")
    if "bias" in lora:
        torch.manual_seed(3)
        LlamaForCausalLM(LlamaConfig.from_pretrained(base, attention_bias=True)).save_pretrained(base)
    training = {"learningRate": "5e-2", "maxSteps": 4, "batchSize": 4}
    quantization = {"quantization": {"type": weights}}
    recipe = recipe_of(
        base,
        base,
        base,
        lora={**lora, "dropout": "0.5"},
        model=quantization,
        training=training,
        dataset={"packing": packing},
    )
    rows = write_rows(iter(ROWS), tmp_path / "rows.arrow")
    model = load_base(base, recipe.model, torch.float32)
    trainer = build_trainer(recipe, model, tokenizer, rows, torch.float32, tmp_path / "work", [])
    trainer.train_from(None)
    validation = ValidationRows(rows)

    tuned = validation_metrics(trainer, validation)["eval_loss"]
    with without_adapter(trainer.model, trainer.base_weights):
        untuned = validation_metrics(trainer, validation)["eval_loss"]

    assert untuned == pytest.approx(_reference(load_base(base, recipe.model, torch.float32), ROWS), rel=1e-5)
    assert tuned < untuned - 0.1
    assert validation_metrics(trainer, validation)["eval_loss"] == tuned
    assert tuned == pytest.approx(_reference(trainer.model, ROWS), rel=1e-5)


def test_measuring_leaves_mode_and_random_numbers_as_they_were(
    tiny_model: Path, tokenizer: Any, tmp_path: Path
) -> None:
    """Also where a model draws some in evaluation mode, as code of its own may."""
    recipe = recipe_of(tiny_model, tmp_path, tmp_path)
    rows = write_rows(iter(ROWS), tmp_path / "rows.arrow")
    model = load_base(tiny_model, recipe.model, torch.float32)
    trainer = build_trainer(recipe, model, tokenizer, rows, torch.float32, tmp_path / "work", [])
    drawn: list[float] = []
    trainer.model.register_forward_hook(lambda *_: drawn.append(torch.rand(()).item() + random.random()))
    trainer.model.train()
    torch.manual_seed(5)
    random.seed(5)
    expected = (torch.rand(3).tolist(), random.random())
    torch.manual_seed(5)
    random.seed(5)

    validation_metrics(trainer, ValidationRows(rows))

    assert drawn
    assert (torch.rand(3).tolist(), random.random()) == expected
    assert trainer.model.training


def _divided(run: LocalRun, tokenizer: Any, name: str) -> tuple[list[list[int]], list[list[int]], Any]:
    recipe = run.recipe
    work = run.folder / name
    work.mkdir()
    places = StoreRegistry(recipe.storage, None)
    context = Context(work=work, open_store=places, writer="test", pvc_root=run.folder)
    data = tokenize_data(recipe, resolve_inputs(recipe, places), tokenizer, context)
    return [row["input_ids"] for row in data.rows], [row["input_ids"] for row in data.validation], data.counts


def test_rows_are_held_out_by_content(local_run: Runs, tokenizer: Any) -> None:
    """Whatever their order; and equal rows go together, so none is trained and measured with."""
    rows = [*QUESTIONS, *QUESTIONS[:8]]
    run = local_run(rows, dataset={"validation": {"fraction": "0.3"}})

    trained, kept, counts = _divided(run, tokenizer, "one")
    (run.folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    _, again, _ = _divided(run, tokenizer, "two")
    _, other_seed, _ = _divided(run.changed(training={"seed": 43}), tokenizer, "three")

    assert 0 < len(kept) <= 0.3 * len(rows)
    assert len(trained) + len(kept) == len(rows)
    assert not {tuple(row) for row in trained} & {tuple(row) for row in kept}
    assert sorted(again) == sorted(kept)
    assert sorted(other_seed) != sorted(kept)
    assert (counts.rows, counts.validation) == (len(trained), len(kept))
    assert counts.tokens == sum(map(len, trained))


def test_validation_rows_that_are_trained_too_are_left_out(local_run: Runs, tokenizer: Any) -> None:
    run = local_run(QUESTIONS)
    own = run.folder / "own.jsonl"
    own.write_text("".join(json.dumps(row) + "\n" for row in [*OTHERS, *QUESTIONS[:3]]))
    run = run.changed(dataset={"validation": {"uri": f"file://{own}"}})

    trained, kept, counts = _divided(run, tokenizer, "one")

    assert (len(trained), len(kept), counts.trained_too) == (len(QUESTIONS), len(OTHERS), 3)


@pytest.mark.parametrize(
    ("rows", "own", "said"),
    [
        (QUESTIONS[:1] * 5, None, "spec.dataset.validation.fraction: 5 rows that are all the same"),
        (QUESTIONS[:5], QUESTIONS[:2], "spec.dataset.validation.uri: each of its 2 rows is a training row too"),
    ],
)
def test_rows_that_nothing_can_be_measured_with(
    local_run: Runs, rows: list[dict[str, Any]], own: list[dict[str, Any]] | None, said: str
) -> None:
    run = local_run(rows, dataset={"validation": {"fraction": "0.5"}})
    if own is not None:
        file = run.folder / "own.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in own))
        run = run.changed(dataset={"validation": {"uri": f"file://{file}"}})

    with pytest.raises(TrainerError) as caught:
        run()

    assert caught.value.reason is FailureReason.DATASET_INVALID
    assert caught.value.message.startswith(said)


def test_a_gate_that_is_passed(overfitting: Callable[..., LocalRun]) -> None:
    run = overfitting(evaluation={"gate": {"minLossImprovement": "0.5", "maxPerplexity": "1200"}})

    metrics = manifest_of(run()).metrics

    assert metrics["base_eval_loss"] - metrics["eval_loss"] > 0.5
    assert metrics["eval_perplexity"] < 1200 < metrics["base_eval_perplexity"]


def test_a_gate_that_is_missed_keeps_nothing(overfitting: Callable[..., LocalRun]) -> None:
    run = overfitting(evaluation={"gate": {"minLossImprovement": "2", "maxPerplexity": "2"}})

    with pytest.raises(TrainerError) as caught:
        run()

    assert caught.value.reason is FailureReason.QUALITY_GATE_MISSED
    message = caught.value.message
    assert message.startswith("spec.evaluation.gate: the loss improved by 0.")
    assert "asked for is 2 (minLossImprovement); the perplexity is " in message
    assert "without the adapter); nothing is kept; there is no checkpoint" in message
    assert not list((run.folder / "out").rglob("*.json"))


def test_prompts_are_answered_by_both_models(local_run: Runs) -> None:
    """After enough steps on one answer the tuned model gives it, and ends at EOS; the base model does not."""
    rows = [{"prompt": f"Say {word}:", "completion": " water boils"} for word in ("a", "b", "c", "d")]
    run = local_run(
        rows,
        training={"maxSteps": 30, "batchSize": 4, "learningRate": "1e-2"},
        evaluation={"samplePrompts": ["Say a:", "<b>Say</b> b:"]},
    )

    report = (folder_of(run()) / "report.html").read_text()

    assert '<span class="soft">tuned</span><pre>water boils</pre>' in report
    assert '<span class="soft">base</span><pre>water boils</pre>' not in report
    assert "<pre>&lt;b&gt;Say&lt;/b&gt; b:</pre>" in report
    assert Stage.EVALUATING in {p.stage for p in run.seen}


def test_told_to_stop_between_two_tokens(local_run: Runs) -> None:
    run = local_run(QUESTIONS, evaluation={"samplePrompts": ["Question: what is 2? Answer:"]})

    message = _told_while_measuring(run, 2)

    assert message.startswith("told to stop after the training, while its adapter was measured; there is no checkpoint")
    assert not list((run.folder / "out").rglob("manifest.json"))
    assert run.changed()().outcome is Outcome.SUCCEEDED


def test_a_prompt_that_the_template_refuses_ends_the_run_before_the_training(local_run: Runs) -> None:
    refusal = "{% if messages[0].content == 'no' %}{{ raise_exception('not that') }}{% endif %}"
    template = f"{refusal}{{% for m in messages %}}{{{{ m.content }}}}{{{{ eos_token }}}}{{% endfor %}}"
    conversations = [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": f"yes {n}"}]}
             for n in range(4)]  # fmt: skip
    run = local_run(conversations, dataset={"chatTemplate": template}, evaluation={"samplePrompts": ["hi", "no"]})

    with pytest.raises(TrainerError) as caught:
        run()

    assert caught.value.reason is FailureReason.INVALID_SPEC
    assert caught.value.message.startswith("spec.evaluation.samplePrompts[1]: a conversation that the chat template")
    assert Stage.TRAINING not in {p.stage for p in run.seen}
