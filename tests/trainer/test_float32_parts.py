"""What is trained is float32 and what flows between the layers is not, also with products in half precision."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_trainer.model.float32_parts import answer_in_the_inputs_type
from finetune_trainer.model.load import load_base
from finetune_trainer.train.build_trainer import build_trainer
from finetune_trainer.train.trainer import StepTrainer
from trainer.running import QUESTIONS, recipe_of

pytestmark = pytest.mark.trainer


def _trainer(base: Path, tokenizer: Any, folder: Path, dtype: torch.dtype, weights: str, **lora: Any) -> StepTrainer:
    """A trainer whose products are in `dtype`. A CPU never gets float16 from a recipe, a GPU may."""
    from datasets import Dataset

    texts = [tokenizer(row["prompt"] + row["completion"])["input_ids"] for row in QUESTIONS]
    rows = Dataset.from_list([{"input_ids": ids, "labels": ids} for ids in texts])
    model = {"quantization": {"type": weights}}
    recipe = recipe_of(base, Path("/data"), Path("/output"), model=model, lora=lora, training={"maxSteps": 1})
    arguments = torch.float32 if dtype is torch.float16 else dtype
    return build_trainer(recipe, load_base(base, recipe.model, dtype), tokenizer, rows, arguments, folder, [])


@pytest.fixture(scope="module")
def biased(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose attention has biases, as Qwen2's."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = shutil.copytree(tiny_model, tmp_path_factory.mktemp("biased") / "model")
    LlamaForCausalLM(LlamaConfig.from_pretrained(folder, attention_bias=True)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("weights", "bias", "dtype"),
    [
        ("nf4", "all", torch.bfloat16),
        ("nf4", "all", torch.float16),
        ("int8", "lora_only", torch.bfloat16),  # bitsandbytes has no backward pass for float16 and int8 on a CPU
    ],
    ids=str,
)
def test_a_trained_bias_has_a_float32_gradient(
    weights: str, bias: str, dtype: torch.dtype, biased: Path, tokenizer: Any, tmp_path: Path
) -> None:
    """A gradient in float16 would end the training: GradScaler does not unscale it."""
    model = _trainer(biased, tokenizer, tmp_path, dtype, weights, bias=bias, targetModules=["q_proj"]).model
    ids = torch.tensor([tokenizer(QUESTIONS[3]["prompt"])["input_ids"]])
    optimizer = torch.optim.SGD([part for part in model.parameters() if part.requires_grad], lr=1e-5)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    before = {name: part.detach().clone() for name, part in model.named_parameters() if name.endswith(".bias")}

    with torch.autocast("cpu", dtype):
        loss = model(input_ids=ids).logits.float().logsumexp(-1).mean()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    optimizer.step()

    trained = {name: part for name, part in model.named_parameters() if name in before and part.requires_grad}
    assert trained
    assert {part.dtype for part in trained.values()} == {torch.float32}
    assert {part.grad.dtype for part in trained.values() if part.grad is not None} == {torch.float32}
    name = next(name for name in trained if "q_proj" in name)
    assert not torch.equal(trained[name], before[name]), "a step of 1e-5 is lost in half precision"


def test_a_bias_outside_the_product_changes_no_answer_but_its_rounding(
    biased: Path, tokenizer: Any, tmp_path: Path
) -> None:
    ids = torch.tensor([tokenizer(QUESTIONS[3]["prompt"])["input_ids"]])

    def answer(dtype: torch.dtype, bias: str) -> torch.Tensor:
        model = _trainer(biased, tokenizer, tmp_path, dtype, "nf4", bias=bias, targetModules=["q_proj"]).model
        for name, part in model.named_parameters():
            if name.endswith(("_proj.bias", "base_layer.bias")):
                part.data.fill_(0.25)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            logits: torch.Tensor = model.eval()(input_ids=ids).logits
        return logits.float()

    exact = answer(torch.float32, "none")
    assert torch.equal(answer(torch.float32, "all"), exact)
    inside = (answer(torch.bfloat16, "none") - exact).abs().mean()
    outside = (answer(torch.bfloat16, "all") - exact).abs().mean()
    assert 0 < outside < 1.2 * inside < 0.2 * exact.abs().mean()


@pytest.mark.parametrize(
    "names", [["embed_tokens"], ["norm"], ["input_layernorm"], ["embed_tokens", "lm_head"]], ids=str
)
def test_a_module_that_is_trained_whole_leaves_the_hidden_states_in_the_compute_type(
    names: list[str], tiny_model: Path, tokenizer: Any, tmp_path: Path
) -> None:
    """Otherwise all later layers compute in float32, without the attention for packed rows."""
    ids = torch.tensor([tokenizer(QUESTIONS[3]["prompt"])["input_ids"]])

    def run(lora: dict[str, Any]) -> tuple[set[torch.dtype], int, Any]:
        model = _trainer(tiny_model, tokenizer, tmp_path, torch.bfloat16, "nf4", **lora).model
        own = {part.untyped_storage().data_ptr() for part in model.parameters()}
        kept: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage  # held, so that no other tensor gets its address
            return tensor

        saving = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with saving, torch.autocast("cpu", torch.bfloat16):
            output = model.base_model.model.model(input_ids=ids, output_hidden_states=True)
        size = sum(storage.nbytes() for storage in kept.values())
        return {state.dtype for state in output.hidden_states}, size, model

    kinds, size, model = run({"modulesToSave": names})
    assert kinds == {torch.bfloat16}
    trained = [part for name, part in model.named_parameters() if "modules_to_save" in name]
    assert {part.dtype for part in trained} == {torch.float32}
    _, without, _ = run({})
    assert size < 1.15 * without, "the estimate counts activations in the compute type"


def test_a_norm_answers_in_the_type_of_its_input_on_a_gpu_too() -> None:
    """torch's fake tensors follow the rules of a GPU without one: autocast for CUDA computes norms in float32."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    before = torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        with FakeTensorMode():
            norm = torch.nn.LayerNorm(8, device="cuda", dtype=torch.bfloat16)
            hidden = torch.empty(2, 8, device="cuda", dtype=torch.bfloat16)
            assert norm(hidden).dtype is torch.float32, "then this guard is needed no more"
            answer_in_the_inputs_type(torch.nn.Sequential(norm))
            assert norm(hidden).dtype is torch.bfloat16
            assert norm(hidden.float()).dtype is torch.float32
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_dtype("cuda", before)
