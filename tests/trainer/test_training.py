"""What libraries do behind one's back: each guard against it, and what a run does when it cannot go on."""

import errno
import html
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BloomConfig, BloomForCausalLM

from finetune_trainer.contract.failure import ExitCode, FailureReason, TrainerError
from finetune_trainer.contract.progress import Stage
from finetune_trainer.contract.recipe import ModelSpec, Recipe
from finetune_trainer.contract.recipe.model import ComputeDtype
from finetune_trainer.contract.termination import Outcome
from finetune_trainer.model.load import compute_dtype, load_base
from finetune_trainer.train.build_trainer import build_trainer
from finetune_trainer.train.known_causes import known_causes
from finetune_trainer.train.token_dataset import write_rows
from finetune_trainer.train.trainer import StepTrainer
from trainer.running import QUESTIONS, LocalRun, folder_of, manifest_of, recipe_of
from trainer.tiny_model import VOCABULARY

pytestmark = pytest.mark.trainer
Runs = Callable[..., LocalRun]


def _base(folder: Path) -> Any:
    return load_base(folder, ModelSpec(uri=f"file://{folder}"), torch.float32)


def _trainer(recipe: Recipe, tiny_model: Path, tokenizer: Any, tmp_path: Path) -> StepTrainer:
    from finetune_trainer.data.tokenization.tokens import TokenRow

    rows = write_rows((TokenRow(ids=(1, 5, 6 + n), trained=(True,) * 3) for n in range(8)), tmp_path / "rows.arrow")
    return build_trainer(recipe, _base(tiny_model), tokenizer, rows, torch.float32, tmp_path, [])


def test_adapter_is_trained_and_saved_in_float32(tiny_model: Path, tokenizer: Any, tmp_path: Path) -> None:
    """SFTTrainer casts it to bfloat16, in which small updates are lost and a resumed run differs."""
    trainer = _trainer(recipe_of(tiny_model, tmp_path, tmp_path), tiny_model, tokenizer, tmp_path)

    trained = {name: weights.dtype for name, weights in trainer.model.named_parameters() if weights.requires_grad}

    assert len(trained) == 2 * 7 * 2
    assert set(trained.values()) == {torch.float32}


def test_evaluation_does_not_cost_the_gradients(tiny_model: Path) -> None:
    """bitsandbytes repacks 4-bit weights for a CPU kernel without a backward pass in the first evaluation."""
    model = _base(tiny_model)
    embedded = model.get_input_embeddings()(torch.arange(5, 12)[None]).detach().requires_grad_()

    def gradient() -> torch.Tensor:
        model.train()
        (found,) = torch.autograd.grad(model(inputs_embeds=embedded).logits.logsumexp(-1).sum(), embedded)
        assert isinstance(found, torch.Tensor)
        return found

    before = gradient()
    model.eval()
    with torch.no_grad():
        model(inputs_embeds=embedded)

    assert torch.equal(gradient(), before)
    assert not any(part.support_avx512bf16_for_cpu for part in model.modules() if isinstance(part, Linear4bit))


def test_products_are_float32_on_a_cpu() -> None:
    assert not torch.cuda.is_available()
    assert compute_dtype(ComputeDtype.AUTO) is torch.float32
    assert compute_dtype(ComputeDtype.FLOAT16) is torch.float32
    assert compute_dtype(ComputeDtype.BFLOAT16) is torch.bfloat16


def test_base_is_quantised_as_asked_with_the_products_number_type(tiny_model: Path) -> None:
    layers = [part for part in _base(tiny_model).modules() if isinstance(part, Linear4bit)]

    assert len(layers) == 14
    for layer in layers:
        assert layer.weight.quant_state.quant_type == "nf4"
        assert layer.weight.quant_state.nested
        assert layer.compute_dtype is torch.float32


def test_loss_falls(local_run: Runs) -> None:
    run = local_run(QUESTIONS, training={"maxSteps": 30, "learningRate": "1e-2"})

    run()

    losses = [progress.loss for progress in run.seen if progress.loss is not None]
    assert losses[-1] < 0.7 * losses[0]


def test_diverging_loss_ends_the_run_with_its_step(local_run: Runs) -> None:
    run = local_run(QUESTIONS, training={"maxSteps": 20, "learningRate": "1e30", "maxGradNorm": "0"})

    with pytest.raises(TrainerError, match=r"the loss is (nan|inf) at step \d+") as caught:
        run()

    assert caught.value.reason is FailureReason.LOSS_DIVERGED
    assert not (run.folder / "out").exists()


def test_stop_flag_ends_the_run_at_the_next_step_and_no_adapter_is_put(local_run: Runs) -> None:
    run = local_run(QUESTIONS, training={"maxSteps": 20})
    run.on_progress = lambda progress: run.stop.set() if progress.step == 3 else None

    with pytest.raises(TrainerError, match=r"stopped after step 3 of 20") as caught:
        run()

    assert caught.value.reason is FailureReason.PREEMPTED
    assert not list((run.folder / "out").rglob("manifest.json"))


def test_stop_flag_that_comes_early_ends_the_run_before_the_first_step(local_run: Runs) -> None:
    run = local_run(QUESTIONS)
    run.on_progress = lambda progress: run.stop.set() if progress.stage is Stage.LOADING else None

    with pytest.raises(TrainerError) as caught:
        run()

    assert caught.value.reason is FailureReason.PREEMPTED
    assert all(progress.stage is not Stage.TRAINING for progress in run.seen)


def test_stop_flag_ends_the_reading_of_the_data(local_run: Runs) -> None:
    run = local_run([{"text": "The quick brown fox jumps over the lazy dog. " * 4}] * 30_000)
    run.on_progress = lambda progress: run.stop.set() if progress.bytes_downloaded else None

    with pytest.raises(TrainerError, match="before the first step") as caught:
        run()

    assert caught.value.reason is FailureReason.PREEMPTED
    read = run.seen[-1].bytes_downloaded
    assert read is not None
    assert read < (run.folder / "train.jsonl").stat().st_size


def test_stop_flag_after_the_last_step_lets_the_adapter_be_put(local_run: Runs) -> None:
    run = local_run(QUESTIONS)
    run.on_progress = lambda progress: run.stop.set() if progress.stage is Stage.SAVING else None

    assert folder_of(run()).is_dir()


def test_progress_goes_through_all_stages_with_rising_steps(local_run: Runs) -> None:
    run = local_run(QUESTIONS, training={"maxSteps": 3})

    run()

    stages = list(dict.fromkeys(progress.stage for progress in run.seen))
    assert stages == [
        Stage.STARTING, Stage.FETCHING, Stage.LOADING, Stage.TRAINING, Stage.SAVING, Stage.UPLOADING, Stage.FINISHED,
    ]  # fmt: skip
    steps = [progress.step for progress in run.seen if progress.step is not None]
    assert steps == sorted(steps)
    last = run.seen[-1]
    assert (last.step, last.total_steps, last.percent, last.eta_seconds) == (3, 3, 100, 0)
    assert last.loss is not None
    assert last.bytes_uploaded == sum(file.stat().st_size for file in folder_of_last(run).rglob("*") if file.is_file())


def test_last_loss_is_reported_however_seldom_losses_are_logged(local_run: Runs) -> None:
    often, seldom = local_run(QUESTIONS), local_run(QUESTIONS, training={"loggingSteps": 50})

    expected = often().output.metrics["loss"]

    assert expected == [progress.loss for progress in often.seen if progress.loss is not None][-1]
    assert seldom.changed(output={"onExisting": "Replace"})().output.metrics["loss"] == expected


def folder_of_last(run: LocalRun) -> Path:
    """The only adapter's folder of a run."""
    (config,) = (run.folder / "out").rglob("adapter_config.json")
    return config.parent


def test_rows_without_a_token_to_train_are_an_error_that_counts_them(local_run: Runs) -> None:
    long = "Question: What is the capital of France, and how do I reset my password? Answer:"
    run = local_run([{"prompt": long, "completion": " a"}] * 3, dataset={"maxLength": 16})

    with pytest.raises(TrainerError, match=r"3 of 3 rows .*maxLength is 16 tokens") as caught:
        run()

    assert caught.value.reason is FailureReason.DATASET_INVALID


def _damage_cut_short(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])


def _damage_a_weight_is_missing(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _damage_other_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 256}))


def _damage_unknown_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "oracle", "architectures": ["Oracle"]}))


def _damage_heads(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_attention_heads": 3}))


def _damage_number_as_text(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": "64"}))


def _damage_activation(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "nope"}))


def _damage_kind_of_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "Nope"}, "added_tokens": []}')


def _damage_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


@pytest.mark.parametrize(
    "damage",
    [
        _damage_cut_short,
        _damage_a_weight_is_missing,
        _damage_other_shape,
        _damage_unknown_architecture,
        _damage_tokenizer,
        _damage_kind_of_tokenizer,
        _damage_heads,
        _damage_number_as_text,
        _damage_activation,
    ],
)
def test_damaged_model_is_the_models_fault(
    damage: Callable[[Path], None], local_run: Runs, tiny_model: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_model, damaged)
    damage(damaged)

    with pytest.raises(TrainerError) as caught:
        local_run(QUESTIONS, model={"uri": f"file://{damaged}"})()

    assert caught.value.reason is FailureReason.MODEL_INVALID


@pytest.fixture(scope="module")
def bloom(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Bloom: an architecture without SDPA, whose layers are not named as Llama's."""
    folder = tmp_path_factory.mktemp("bloom")
    config = BloomConfig(vocab_size=VOCABULARY, hidden_size=64, n_layer=2, n_head=4)
    BloomForCausalLM(config).save_pretrained(folder)
    for file in tiny_model.glob("*token*"):
        shutil.copy(file, folder)
    return folder


def test_architecture_without_sdpa_trains_with_auto(bloom: Path, local_run: Runs) -> None:
    result = local_run(QUESTIONS, model={"uri": f"file://{bloom}"})()

    assert result.outcome is Outcome.SUCCEEDED


def test_sdpa_is_refused_where_the_architecture_has_none(bloom: Path, local_run: Runs) -> None:
    with pytest.raises(TrainerError, match=r"^spec\.model\.attention: sdpa: .*bloom") as caught:
        local_run(QUESTIONS, model={"uri": f"file://{bloom}", "attention": "sdpa"})()

    assert caught.value.reason is FailureReason.NOT_SUPPORTED


FULL_GPU = [
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    torch.AcceleratorError("CUDA error: out of memory", 2),
]
FULL_HOST = [
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
]
FAILING_GPU = [
    RuntimeError("No CUDA GPUs are available"),
    RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    RuntimeError("NCCL error in: ProcessGroupNCCL.cpp:78, unhandled system error"),
    torch.AcceleratorError("CUDA error: device-side assert triggered", 710),
]


@pytest.mark.parametrize("error", [*FULL_GPU, *FULL_HOST, *FAILING_GPU], ids=str)
def test_the_machines_faults_while_loading_are_not_the_models(
    error: Exception, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU here: the library's call fails as it does on one."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fail)
    spec = ModelSpec.model_validate({"uri": f"file://{tiny_model}"})

    with pytest.raises((TrainerError, RuntimeError)) as caught, known_causes():
        load_base(tiny_model, spec, torch.float32)

    if error in FAILING_GPU:
        assert caught.value is error, "an internal error, which is tried again"
        return
    assert isinstance(caught.value, TrainerError)
    full_gpu = error in FULL_GPU
    assert caught.value.reason is (FailureReason.GPU_OUT_OF_MEMORY if full_gpu else FailureReason.HOST_OUT_OF_MEMORY)
    assert "memory" in caught.value.message or "ALLOC_FAILED" in caught.value.message
    assert caught.value.exit_code == (ExitCode.GPU_OUT_OF_MEMORY if full_gpu else ExitCode.HOST_OUT_OF_MEMORY)


def test_rows_longer_than_the_models_positions_are_refused(local_run: Runs, tiny_model: Path, tmp_path: Path) -> None:
    short = tmp_path / "short"
    shutil.copytree(tiny_model, short)
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}))
    model, long = {"uri": f"file://{short}"}, [{"text": "The quick brown fox. " * 30}] * 8

    with pytest.raises(TrainerError, match=r"^spec\.dataset\.maxLength: 2048: .* 64 positions") as caught:
        local_run(long, model=model)()

    assert caught.value.reason is FailureReason.INVALID_SPEC
    assert local_run(QUESTIONS, model=model)().outcome is Outcome.SUCCEEDED, "its rows are short enough"
    assert local_run(long, model=model, dataset={"maxLength": 64})().outcome is Outcome.SUCCEEDED


def test_token_without_an_embedding_is_the_models_fault(
    local_run: Runs, tiny_model: Path, tokenizer: Any, tmp_path: Path
) -> None:
    larger = tmp_path / "larger"
    shutil.copytree(tiny_model, larger)
    other = type(tokenizer).from_pretrained(larger)
    other.add_tokens(["<|im_end|>"], special_tokens=True)
    other.save_pretrained(larger)

    with pytest.raises(TrainerError, match=f"token id {VOCABULARY}, .* {VOCABULARY} ids only") as caught:
        local_run([{"text": "hello <|im_end|> you"}] * 8, model={"uri": f"file://{larger}"})()

    assert caught.value.reason is FailureReason.MODEL_INVALID


def test_quantised_repository_is_refused_with_the_remedy(local_run: Runs, tiny_model: Path, tmp_path: Path) -> None:
    quantised = tmp_path / "quantised"
    shutil.copytree(tiny_model, quantised)
    config = json.loads((quantised / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (quantised / "config.json").write_text(json.dumps(config))

    with pytest.raises(TrainerError, match=r"^spec\.model\.quantization: .*bitsandbytes.*unquantised") as caught:
        local_run(QUESTIONS, model={"uri": f"file://{quantised}"})()

    assert caught.value.reason is FailureReason.NOT_SUPPORTED


def test_full_disk_and_full_gpu_have_their_reasons() -> None:
    with pytest.raises(TrainerError) as caught, known_causes():
        Path("/dev/full").write_text("x")
    assert caught.value.reason is FailureReason.DISK_FULL
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC

    said = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.1 GiB"
    with pytest.raises(TrainerError, match=r"^CUDA out of memory") as caught, known_causes():
        raise torch.OutOfMemoryError(said)
    assert caught.value.reason is FailureReason.GPU_OUT_OF_MEMORY
    assert "2.00 GiB" in caught.value.message


def test_artefact_holds_nothing_of_this_process(local_run: Runs, tiny_model: Path) -> None:
    run = local_run(QUESTIONS)
    places = [str(tiny_model), str(run.folder)]
    served = run.folder / "served" / "base"
    served.parent.mkdir()
    served.symlink_to(tiny_model)
    run = run.changed(model={"uri": f"file://{served}"})

    result = run()

    folder = folder_of(result)
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "loss.svg",
        "report.html", "runs", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    for path in (path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for of_the_user in (str(served), str(run.recipe.dataset.uri), str(run.recipe.output.uri)):
            content = content.replace(str(of_the_user).encode(), b"")
        assert not [place for place in places if place.encode() in content], path.name
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(served)
    assert config["target_modules"] == sorted(config["target_modules"])
    tokenizer_config = json.loads((folder / "tokenizer_config.json").read_text())
    assert not {"is_local", "local_files_only", "name_or_path"} & tokenizer_config.keys()
    card = (folder / "README.md").read_text()
    assert f'from_pretrained("{served}")' in card
    assert "None" not in card
    assert {weights.dtype for weights in load_file(folder / "adapter_model.safetensors").values()} == {torch.float32}


def test_record_tells_how_the_training_went(local_run: Runs) -> None:
    run = local_run(QUESTIONS, training={"maxSteps": 6, "loggingSteps": 2}, dataset={"maxLength": 48})

    result = run()

    folder, manifest = folder_of(result), manifest_of(result)
    losses = manifest.losses
    assert (losses.entries, losses.last_eval_loss) == (3, None)
    assert losses.first_loss is not None
    assert losses.last_loss is not None
    assert losses.last_loss < losses.first_loss, "it learns"
    assert losses.lowest_loss == losses.last_loss
    card, report = (folder / "README.md").read_text(), (folder / "report.html").read_text()
    assert f"| loss of the first log | {losses.first_loss:.6g} |" in card
    assert "were longer than dataset.maxLength (48 tokens)" in card
    chart = re.search(r'data-chart="([^"]*)"', report)
    assert chart is not None
    (drawn,) = json.loads(html.unescape(chart[1]))["series"]
    assert [step for step, _ in drawn["points"]] == [2, 4, 6]
    assert drawn["points"][-1][1] == losses.last_loss
    for told in ("Tokens per second", "Gradient norm", "Learning rate", "peak memory", "Rows by length"):
        assert told in report
    (events,) = (folder / "runs" / "tiny-1").iterdir()
    assert events.read_bytes().count(b"train/loss") == 3


def test_adapter_loads_in_peft_and_does_what_was_trained(local_run: Runs, tiny_model: Path, tokenizer: Any) -> None:
    from peft import PeftModel

    rows = [{"prompt": "Question: what is it? Answer:", "completion": " nice"}] * 16
    run = local_run(rows, training={"maxSteps": 40, "learningRate": "1e-2"}, lora={"rank": 8, "alpha": 16})
    folder = folder_of(run())

    tuned = PeftModel.from_pretrained(_base(tiny_model), folder)

    asked = tokenizer(rows[0]["prompt"], return_tensors="pt", return_token_type_ids=False)
    answer = tuned.generate(**asked, max_new_tokens=8, do_sample=False, pad_token_id=0)[0, asked["input_ids"].size(1) :]
    assert tokenizer.decode(answer) == " nice</s>", "it says what it was taught and stops"
