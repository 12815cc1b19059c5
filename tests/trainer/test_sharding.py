"""The base model's weights divided over processes: the bytes of a training without, and half of the weights in each."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import AutoConfig, AutoModelForCausalLM

from finetune_trainer.contract.failure import ExitCode, FailureReason
from finetune_trainer.contract.layout import MASTER_ENV, NODE_ENV, NODES_ENV
from finetune_trainer.contract.recipe import ModelSpec
from finetune_trainer.contract.termination import Termination
from finetune_trainer.data.tokenization.tokens import TokenRow
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.model.layerwise_loading import on_each_layer_loaded
from finetune_trainer.model.load import load_base
from finetune_trainer.model.sharded_weights import ShardedWeights
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.train.build_trainer import build_trainer
from finetune_trainer.train.hooks import TrainerHooks
from finetune_trainer.train.micro_batches import MicroBatches
from finetune_trainer.train.token_dataset import write_rows
from finetune_trainer.train.trainer import StepTrainer
from trainer.pods import adapter_of, difference, end_of, free_port, start_pod, wait_for, workers_of
from trainer.running import QUESTIONS, LocalRun, adapter_files, recipe_of
from trainer.shard_processes import alone, base_bytes, in_two_processes
from trainer.tiny_model import make_tiny_model

pytestmark = pytest.mark.trainer
Runs = Callable[..., LocalRun]
TWO = {"machine": {"gpus": 2}}
LENGTH = 12


def _end_of_two_pods(run: LocalRun) -> tuple[int, str, Termination]:
    """The end of the first of two pods with a process each, as on two nodes."""
    both = {NODES_ENV: "2", MASTER_ENV: f"127.0.0.1:{free_port()}"}
    pods = {index: start_pod(run, **both, **{NODE_ENV: index}) for index in ("0", "1")}
    found = end_of(pods["0"], run, "0")
    assert end_of(pods["1"], run, "1")[0] == found[0]
    return found


def test_killed_and_taken_up_again_it_makes_the_files_of_a_training_without(local_run: Runs) -> None:
    """Process 1 is killed, which process 0 meets in the middle of a pass; the reason is process 1's. Two pods go on.

    Steps of five passes leave one process without in every third round. Measured on the way and beside the base model,
    with samples and a merged model.
    """
    run = local_run(
        QUESTIONS,
        training={"maxSteps": 40, "batchSize": 5, "microBatchSize": 1, "gradientCheckpointing": "enabled"},
        lora={"dropout": "0.1"},
        dataset={"validation": {"fraction": "0.3"}},
        checkpoint={"everySteps": 3},
        evaluation={"everySteps": 20, "samplePrompts": ["Question: what is 3? Answer:"]},
        output={"merged": "bf16"},
        **TWO,
    )
    code, log, whole = end_of(start_pod(run), run)
    assert code == 0, log
    sharded = run.changed(output={"uri": f"file://{run.folder}/sharded"}, model={"sharding": "full"})

    process = start_pod(sharded)
    wait_for(process, " step step=7/")
    os.kill(workers_of(process.pid)[1], signal.SIGKILL)
    code, log, message = end_of(process, sharded)
    assert (code, message.reason) == (ExitCode.INTERNAL, FailureReason.KILLED), log
    assert message.message == "process 1 was ended by SIGKILL"

    code, log, message = _end_of_two_pods(sharded.changed(machine={"gpus": 1, "nodes": 2}))

    assert code == 0, log
    assert " resuming step=" in log
    assert " sharded modules=4 " in log
    assert message.output is not None
    assert whole.output is not None
    assert message.output.metrics == whole.output.metrics
    assert difference(adapter_of(message), adapter_of(whole)) == 0.0
    merged = [Path(str(output.merged_uri).removeprefix("file://")) for output in (message.output, whole.output)]
    assert adapter_files(merged[0]) == adapter_files(merged[1])


_SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 99,
}
ARCHITECTURES = {
    "gpt2": {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 99, "n_positions": 64},
    "gpt_neox": _SMALL,
    "bloom": {"hidden_size": 64, "n_layer": 3, "n_head": 4, "vocab_size": 99},
    "qwen3": {**_SMALL, "num_key_value_heads": 2, "head_dim": 16},
    "gemma2": {**_SMALL, "num_key_value_heads": 2, "head_dim": 16},
    "mixtral": {**_SMALL, "num_key_value_heads": 2, "num_local_experts": 4},
    "phi3": {**_SMALL, "num_key_value_heads": 2, "pad_token_id": 0},
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_architectures(architecture: str, tmp_path: Path) -> None:
    """In a world of one process, where every layer is gathered all the same."""
    torch.manual_seed(3)
    config = AutoConfig.for_model(architecture, **ARCHITECTURES[architecture])
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    spec = ModelSpec(uri=f"file://{tmp_path}", quantization={"type": "nf4" if architecture == "phi3" else "none"})
    ids = torch.arange(20)[None] * 3

    def losses(sharded_weights: ShardedWeights | None, *, checkpointing: bool) -> list[torch.Tensor]:
        torch.manual_seed(5)
        model = load_base(tmp_path, spec, torch.float32, sharded_weights).train()
        adapted = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if sharded_weights is not None:
            sharded_weights.shard_embeddings_and_head(model, plain_head=False)
        torch.manual_seed(7)
        loss = adapted(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        return [loss.detach(), *(weight.grad for weight in adapted.parameters() if weight.grad is not None)]

    for checkpointing in (False, True):
        sharded_weights = ShardedWeights(alone(), lambda _: False)
        found, expected = (losses(one, checkpointing=checkpointing) for one in (sharded_weights, None))
        assert len(found) == len(expected) > 3
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
        sharded_weights.require_pass_complete()


def test_layers_are_taken_while_the_rest_is_still_in_the_files(tiny_model: Path) -> None:
    loaded: list[torch.nn.Module] = []
    taken: list[tuple[str, set[torch.nn.Module], list[torch.nn.Module]]] = []
    note = register_module_parameter_registration_hook(
        lambda module, _, weight: None if weight is None or weight.is_meta else loaded.append(module)
    )
    with note, on_each_layer_loaded(lambda name, layer: taken.append((name, set(layer.modules()), list(loaded)))):
        load_base(tiny_model, ModelSpec(uri=f"file://{tiny_model}"), torch.float32)

    (first, its_modules, before), (second, next_modules, _) = taken
    assert (first, second) == ("model.layers.0", "model.layers.1")
    # Seven linear layers and two norms; of the next layer the first weight is on its way.
    assert sum(module in its_modules for module in before) == 9
    assert sum(module in next_modules for module in before) <= 1


def _trainer(
    process_group: ProcessGroup,
    folder: Path,
    sharded_weights: ShardedWeights | None,
    stop_requested: Callable[[], bool] = lambda: False,
    **model: Any,
) -> StepTrainer:
    """Two steps of 8 equally long rows in passes of 4."""
    tiny, number = folder / "model", len(list(folder.glob(f"work-{process_group.world.rank}-*")))
    recipe = recipe_of(
        tiny,
        folder,
        folder,
        training={"maxSteps": 2, "batchSize": 8},
        lora={"dropout": "0.1"},
        model={"quantization": model, "sharding": "full" if sharded_weights else "none"},
        **TWO,
    )
    work = folder / f"work-{process_group.world.rank}-{number}"
    work.mkdir()
    rows = write_rows(
        (TokenRow(ids=tuple(range(5 + n, 5 + n + LENGTH)), trained=(True,) * LENGTH) for n in range(16)),
        work / "rows.arrow",
    )
    base = load_base(tiny, recipe.model, torch.float32, sharded_weights)
    trainer = build_trainer(
        recipe,
        base,
        load_tokenizer(tiny),
        rows,
        torch.float32,
        work,
        [],
        TrainerHooks(stop_requested=stop_requested),
        process_group=process_group,
        sharded_weights=sharded_weights,
    )
    trainer.micro_batches = MicroBatches(packed=True, max_tokens=4 * LENGTH, max_rows=8, pad_id=0)
    return trainer


def _weights(trainer: StepTrainer) -> dict[str, torch.Tensor]:
    return {name: part.detach().clone() for name, part in trainer.model.named_parameters() if part.requires_grad}


def _told_in_a_step(process_group: ProcessGroup, folder: Path) -> int:
    """Process 1 is told to go before the second pass of step 2; both leave, and save step 1."""
    asked = iter(range(100))

    def stop_requested() -> bool:
        return process_group.world.rank == 1 and trainer.state.global_step == 1 and next(asked) > 0

    trainer = _trainer(
        process_group, folder, ShardedWeights(process_group, lambda _: False), stop_requested, type="none"
    )
    trainer.micro_batches = MicroBatches(packed=True, max_tokens=2 * LENGTH, max_rows=8, pad_id=0)
    trainer.train_from(None)
    return trainer.saved_step


def _looks(process_group: ProcessGroup, folder: Path) -> dict[str, Any]:
    """All that is looked at, in one pair of processes: their start takes longer than the rest."""
    return {**_with_memory_that_runs_out(process_group, folder), "saved": _told_in_a_step(process_group, folder)}


def _with_memory_that_runs_out(process_group: ProcessGroup, folder: Path) -> dict[str, Any]:
    """Twice before the first layer, and once in the middle of a pass, in process 1 alone."""
    made, sizes = [], []
    for sharded_weights in (None, ShardedWeights(process_group, lambda _: False)):
        trainer = _trainer(process_group, folder, sharded_weights, type="fp4", doubleQuant=False)
        places = (trainer.model, trainer.model.get_base_model().model.layers[1].mlp)
        calls, full = [0, 0], ({1, 2}, {2}) if process_group.world.rank == 1 else (set[int](), set[int]())

        def look(
            number: int, _: Any, __: Any, calls: list[int] = calls, full: tuple[set[int], set[int]] = full
        ) -> None:
            calls[number] += 1
            if calls[number] in full[number]:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        for number, place in enumerate(places):
            place.register_forward_pre_hook(lambda *of, number=number, look=look: look(number, *of))
        trainer.train_from(None)
        made.append(_weights(trainer))
        sizes.append(base_bytes(trainer.model, sharded_weights))
    return {"whole": made[0], "sharded": made[1], "sizes": sizes, "passes": trainer.micro_batches.max_tokens}


def test_each_has_half_and_what_one_meets_all_do(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "model")

    seen = in_two_processes(_looks, tmp_path)

    for found in seen:
        assert difference(found["sharded"], found["whole"]) == 0.0
        assert difference(found["sharded"], seen[0]["sharded"]) == 0.0
        assert found["passes"] == LENGTH
        assert found["saved"] == 1
        whole, half = found["sizes"]
        # Each layer's bytes are filled up to a multiple of the processes.
        assert 0.5 * whole < half < 0.55 * whole


def test_no_memory_is_reserved_for_the_whole_model_while_it_is_loaded_layer_by_layer() -> None:
    """transformers' own function would look at the model, which is none here."""
    from transformers import modeling_utils

    from finetune_trainer.model.layerwise_loading import on_each_layer_loaded

    own = modeling_utils.caching_allocator_warmup
    with on_each_layer_loaded(lambda *_: None):
        modeling_utils.caching_allocator_warmup(None, {"weight": "cuda:0"}, None)
    assert modeling_utils.caching_allocator_warmup is own
    with pytest.raises(AttributeError):
        modeling_utils.caching_allocator_warmup(None, {"weight": "cuda:0"}, None)
