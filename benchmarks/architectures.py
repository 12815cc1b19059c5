"""Measures every architecture of tests/trainer/architectures.py, and writes docs/models.md. Nothing needs a GPU.

OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 python benchmarks/architectures.py RESULTS.jsonl [--only mixtral gpt2] [--page]

Results are added to the file. What is in it already is not measured again, so an interrupted measurement goes on. With
--page the page is written from the file.
"""

import argparse
import json
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

# In the place of this script's own folder, whose trainer.py would hide tests/trainer.
_ROOT = Path(__file__).resolve().parents[1]
sys.path[:1] = [str(_ROOT), str(_ROOT / "tools"), str(_ROOT / "tests")]

from finetune_trainer.runtime.log import libraries_quiet  # noqa: E402
from trainer.architecture_checks import measure  # noqa: E402
from trainer.architectures import ARCHITECTURES  # noqa: E402
from trainer.tiny_model import make_tiny_model  # noqa: E402

PAGE = _ROOT / "docs" / "models.md"
_HEAD = """# Models

<!-- Generated, see docs/testing.md. -->

This table says which architectures train. An architecture is the `model_type` in a model's config.json. Each was
measured with a tiny random model, unquantised and on a CPU, with the defaults of a job. "Trained" means:

- the loss is the same whether rows are packed, padded, or alone in a pass;
- every part of the adapter learns;
- PEFT loads the adapter, and its logits are those after training;
- the merged model (`output.merged`) loads without PEFT, and says the same within the rounding to bfloat16.

"Refused" means that preflight refuses the model by its config.json, before a GPU is requested. An architecture that is
not in the table may train; nothing is known of it.

Which layers `all-linear` adapts is in [adapters.md](adapters.md#which-layers-get-an-adapter). How much memory a model
takes is in [resources-and-gpus.md](resources-and-gpus.md).

| model_type | verdict | rows are packed | layers with an adapter | linear layers without one |
|---|---|---|---|---|
"""


def results(file: Path) -> dict[str, dict[str, Any]]:
    """Returns the results in the file by architecture."""
    if not file.exists():
        return {}
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {line["model_type"]: line for line in lines}


def measured(model_type: str, folder: Path, tiny_model: Path) -> dict[str, Any]:
    """Returns the result of one architecture; an error is a result too."""
    try:
        with libraries_quiet():
            found = measure(ARCHITECTURES[model_type], folder / model_type, tiny_model)
    except Exception as error:  # noqa: BLE001 (whatever a library raises is the architecture's result)
        traceback.print_exc(limit=-3)
        return {"model_type": model_type, "faults": [f"{type(error).__name__}: {str(error)[:200]}"]}
    return {"model_type": model_type, **asdict(found), "faults": found.faults()}


def rows(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yields the table's rows: what trains first, and by name."""
    for name, result in sorted(found.items(), key=lambda item: (item[1].get("refusal") is not None, item[0])):
        if result.get("refusal") is not None:
            yield f"| `{name}` | refused | | | |"
        elif not result["faults"]:
            adapted, plain = (", ".join(f"`{part}`" for part in result[key]) for key in ("adapted", "plain"))
            verdict = "trained" if result["merged_error"] is not None else "trained; `output.merged` refused"
            yield f"| `{name}` | {verdict} | {'yes' if result['packs'] else 'no'} | {adapted} | {plain or 'none'} |"
        else:
            yield f"| `{name}` | fails | | | |"


def main() -> None:
    """Measures, prints each fault, and writes the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--only", nargs="*", default=list(ARCHITECTURES))
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    known = results(options.results)
    with tempfile.TemporaryDirectory() as work, options.results.open("a", encoding="utf-8") as file:
        make_tiny_model(Path(work) / "tiny")
        for model_type in options.only:
            if model_type not in known:
                known[model_type] = measured(model_type, Path(work), Path(work) / "tiny")
                print(json.dumps(known[model_type]), file=file, flush=True)
            print(model_type, "; ".join(known[model_type]["faults"]) or known[model_type].get("refusal") or "trained")
    if options.page:
        PAGE.write_text(_HEAD + "".join(f"{row}\n" for row in rows(known)), encoding="utf-8")


if __name__ == "__main__":
    main()
