"""Measures every architecture of tests/trainer/architectures.py, and writes docs/models.md. Nothing needs a GPU.

OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 python benchmarks/architectures.py RESULTS.jsonl [--only mixtral gpt2]
    [--quantization none nf4 int8] [--page]

Results are added to the file. What is in it already is not measured again, so an interrupted measurement goes on. With
--page the page is written from the file. Memory is estimated for the models of tests/trainer/published_models.py.
"""

import argparse
import json
import sys
import tempfile
import traceback
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

# In the place of this script's own folder, whose trainer.py would hide tests/trainer.
_ROOT = Path(__file__).resolve().parents[1]
sys.path[:1] = [str(_ROOT), str(_ROOT / "tools"), str(_ROOT / "tests")]

from finetune_trainer.contract.recipe import Recipe  # noqa: E402
from finetune_trainer.memory.activations import MicroBatchShape  # noqa: E402
from finetune_trainer.memory.estimate import GIB, TrainingSetup, estimate  # noqa: E402
from finetune_trainer.model.vllm import (  # noqa: E402
    VERSION,
    Support,
    language_model_of,
    lora_support,
    needs_expert_switch,
)
from finetune_trainer.runtime.log import libraries_quiet  # noqa: E402
from trainer.architecture_checks import measure  # noqa: E402
from trainer.architectures import ARCHITECTURES  # noqa: E402
from trainer.published_models import MODELS, Published, shape_of  # noqa: E402
from trainer.tiny_model import make_tiny_model  # noqa: E402

PAGE = _ROOT / "docs" / "models.md"
_HEAD = """# Models

<!-- Generated, see docs/testing.md. -->

Which architectures train, on which GPU, and whether vLLM loads the adapter.

- [What was measured](#what-was-measured)
- [GPU memory](#gpu-memory)
- [Layers with an adapter](#layers-with-an-adapter)

## What was measured

An architecture is the `model_type` in a model's config.json. Each was measured with a tiny random model on a CPU, with
the defaults of a job. "Trained" means:

- the loss is the same whether rows are packed, padded, or alone in a pass;
- every part of the adapter learns;
- a training that goes on from a checkpoint ends with the same weights;
- PEFT loads the adapter, and its logits are those after training;
- the merged model (`output.merged`) loads without PEFT, and says the same within the rounding to bfloat16.

The column "quantisation" names the values of `model.quantization.type` with which all of this was measured. The others
are possible, but for those that preflight refuses by name. Where `int8` is missing, the merged model differed by more
than the bound, because int8 layers also round what goes into them, or bitsandbytes has no such layer on a CPU (models
with latent attention, as DeepSeek V3).

"Refused" means that preflight refuses the model by its config.json, before a GPU is requested. For a model that is not
in the table, and that transformers has, preflight warns that nobody has measured it.

The column "vLLM" is what the sources of vLLM VLLM_VERSION say. KServe and AIBrix serve with vLLM.

- "yes" and "backend": it loads the adapter, with a class of its own or with its Transformers backend;
- "switch": it loads an adapter of experts with `--enable-mixed-moe-lora-format`, and `is_3d_lora_weight: true` where
  the adapter is named;
- "language model": it must be told to serve the language model alone, with `--hf-overrides`. Preflight says how;
- "no": serve the merged model.

| model_type | verdict | quantisation | rows are packed | experts adapted | vLLM |
|---|---|---|---|---|---|
"""
_MEMORY = """
## GPU memory

The least memory in GiB that a training with the defaults takes: nf4, rank 16, all linear layers, one row of 2,048
tokens a pass. It is an estimate ([resources-and-gpus.md](resources-and-gpus.md#will-it-fit)), and the GPU is the
smallest common one that has as much. The sizes are those of the repository's config.json.

The experts of a mixture are not quantised, and adapted experts are computed anew in every pass. The last columns are
for a job that adapts the other layers only (`lora.targetModules` with the names of the attention's layers).

| model | architecture | GiB | GPU | GiB without experts | GPU |
|---|---|---|---|---|---|
"""
_LAYERS = """
## Layers with an adapter

What `all-linear` adapts ([adapters.md](adapters.md#which-layers-get-an-adapter)).

| model_type | layers with an adapter | linear layers without one |
|---|---|---|
"""
_GPUS = (16, 24, 40, 48, 80, 96, 141, 180)
"""GB of common GPUs: T4, L4, A100, L40S, H100, RTX PRO 6000, H200, B200."""
_USABLE = 0.96
"""Share of a GPU's memory that a process gets."""
_EXPERTS = ("gate_up_proj", "experts")


def results(file: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Returns the newest result in the file of each architecture and quantisation."""
    if not file.exists():
        return {}
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {(line["model_type"], line.get("quantization", "none")): line for line in lines}


def measured(model_type: str, quantization: str, folder: Path, tiny_model: Path) -> dict[str, Any]:
    """Returns the result of one architecture; an error is a result too."""
    named = {"model_type": model_type, "quantization": quantization}
    try:
        with libraries_quiet():
            found = measure(ARCHITECTURES[model_type], folder / model_type, tiny_model, quantization)
    except Exception as error:  # noqa: BLE001 (whatever a library raises is the architecture's result)
        traceback.print_exc(limit=-3)
        return {**named, "faults": [f"{type(error).__name__}: {str(error)[:200]}"]}
    return {**named, **asdict(found), "faults": found.faults()}


def page(found: dict[tuple[str, str], dict[str, Any]]) -> str:
    """Returns the page."""
    families: dict[str, dict[str, dict[str, Any]]] = {}
    for (name, quantization), result in found.items():
        families.setdefault(name, {})[quantization] = result
    ordered = sorted(families.items(), key=lambda item: (_plain(item[1]).get("refusal") is not None, item[0]))
    verdicts = "".join(f"{_verdict(name, family)}\n" for name, family in ordered)
    memory = "".join(f"{_memory(model)}\n" for model in MODELS)
    layers = "".join(f"{_layers(name, family)}\n" for name, family in ordered if "adapted" in _plain(family))
    head = _HEAD.replace("VLLM_VERSION", VERSION)
    return head + verdicts + _MEMORY + memory + _LAYERS + layers


def _plain(family: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return family.get("none") or next(iter(family.values()))


def _verdict(name: str, family: dict[str, dict[str, Any]]) -> str:
    result = _plain(family)
    if result.get("refusal") is not None:
        return f"| `{name}` | refused | | | | |"
    if result["faults"]:
        return f"| `{name}` | fails | | | | |"
    verdict = "trained" if result["merged_error"] is not None else "trained; `output.merged` refused"
    kinds = ", ".join(kind for kind in ("none", "nf4", "int8") if kind in family and not family[kind]["faults"])
    experts = any(part in _EXPERTS for part in result["adapted"]) and _is_mixture(name)
    return (
        f"| `{name}` | {verdict} | {kinds} | {'yes' if result['packs'] else 'no'} | {'yes' if experts else ''} "
        f"| {_vllm(name, experts=experts)} |"
    )


def _is_mixture(name: str) -> bool:
    config = str(ARCHITECTURES[name].arguments())
    return "expert" in config or "moe" in config


def _vllm(name: str, *, experts: bool) -> str:
    from transformers.models.auto import modeling_auto as auto

    architecture = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name]
    support = lora_support(architecture)
    if support is Support.NO:
        return "no"
    said = ["yes"] if support is Support.OWN_CLASS else ["backend"]
    if experts and needs_expert_switch(architecture):
        said.append("switch")
    if language_model_of(name) is not None:
        said.append("language model")
    return ", ".join(said)


def _memory(model: Published) -> str:
    shape = shape_of(model)
    sections = {
        "model": {"uri": "hf://of/this"},
        "dataset": {"uri": "s3://bucket/data"},
        "output": {"uri": "s3://bucket/output"},
    }
    whole = Recipe.model_validate({"job": {"name": "page"}, **sections})
    micro_batch = MicroBatchShape(tokens=2048, span=2048, gradient_checkpointing=True)
    columns: list[str] = []
    without = {"lora": {"targetModules": ["q_proj", "k_proj", "v_proj", "o_proj"]}}
    for recipe in (whole, Recipe.model_validate({"job": {"name": "page"}, **sections, **without})):
        if recipe is not whole and not shape.experts:
            columns += ["", ""]
            continue
        gib = estimate(shape, TrainingSetup.of(recipe, cuda=True), micro_batch).total / GIB
        gpu = next((f"{size} GB" for size in _GPUS if gib <= _USABLE * size), "several")
        columns += [f"{gib:.1f}", gpu]
    return f"| {model.repository} | `{model.model_type}` | {' | '.join(columns)} |"


def _layers(name: str, family: dict[str, dict[str, Any]]) -> str:
    result = _plain(family)
    adapted, plain = (", ".join(f"`{part}`" for part in result[key]) for key in ("adapted", "plain"))
    return f"| `{name}` | {adapted} | {plain or 'none'} |"


def main() -> None:
    """Measures, prints each fault, and writes the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--only", nargs="*", default=list(ARCHITECTURES))
    parser.add_argument("--quantization", nargs="*", default=["none"], choices=["none", "nf4", "int8"])
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    known = results(options.results)
    with tempfile.TemporaryDirectory() as work, options.results.open("a", encoding="utf-8") as file:
        make_tiny_model(Path(work) / "tiny")
        for quantization, model_type in product(options.quantization, options.only):
            key = (model_type, quantization)
            if key not in known:
                known[key] = measured(*key, Path(work), Path(work) / "tiny")
                print(json.dumps(known[key]), file=file, flush=True)
            print(*key, "; ".join(known[key]["faults"]) or known[key].get("refusal") or "trained")
    if options.page:
        PAGE.write_text(page(known), encoding="utf-8")


if __name__ == "__main__":
    main()
