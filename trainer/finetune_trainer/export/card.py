"""The model card: README.md of the adapter's folder, with the front matter that the Hub reads.

Names of objects, models and licences come from outside. `code` shows them so that they are not parsed as Markdown or
HTML, and the front matter has them as JSON strings.
"""

import json
import re
from collections.abc import Mapping

from finetune_trainer.contract.history import LossSummary
from finetune_trainer.contract.recipe import Method
from finetune_trainer.contract.text import printable
from finetune_trainer.contract.uri import Scheme
from finetune_trainer.data.templates.builtin import template_label
from finetune_trainer.export.base_model import loading_code
from finetune_trainer.export.facts import RunFacts

CHART_NAME = "loss.svg"
_MOST_OBJECTS = 20
_ELSEWHERE = (
    "The whole recipe and the checksums of all files are in `manifest.json` beside this folder, the curves in "
    "`report.html`, and for TensorBoard in `runs`."
)
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")
_HYPERPARAMETERS = ("dataset.maxLength", "dataset.packing", "dataset.loss")


def model_card(facts: RunFacts) -> str:
    """The card's text."""
    name, base = facts.recipe.job.name, facts.base_model
    revision = f" at commit {code(facts.base_revision)}" if facts.base_revision else ""
    trusting = facts.recipe.model.trust_remote_code
    code_to_load = loading_code(base, "path/of/this/folder", facts.base_revision, remote_code=trusting)
    licence = (
        code(facts.base_licence)
        if facts.base_licence
        else "not named by its card; look it up before you pass the adapter on"
    )
    sections = [
        _front_matter(facts),
        f"# {name}",
        f"A LoRA adapter for {code(base)}{revision}. Licence of the base model: {licence}.",
        *_warnings(facts),
        f"![training loss over steps]({CHART_NAME})" if facts.history else "",
        "## Load it",
        f"```python\n{code_to_load}\n```",
        "## Figures",
        _table(_figures(facts)),
        "## Adapter and quantisation",
        _table(_adapter(facts)),
        "## Training",
        _table(_training(facts)),
        "## Data",
        *_data(facts),
        "## Versions",
        _table({name: code(version) for name, version in facts.versions.items()}),
        _ELSEWHERE,
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def code(text: str) -> str:
    """The text as one line of code, in a table cell too, whatever its characters mean in Markdown or HTML.

    A backtick would end a code span, and a pipe the cell around it. Then the text is HTML, with a reference for every
    punctuation mark of ASCII.
    """
    line = printable(" ".join(text.split())) or " "
    if not re.search("[`|]", line):
        return f"`{line}`"
    return f"<code>{_PUNCTUATION.sub(lambda found: f'&#{ord(found[0])};', line)}</code>"


def _yaml(text: str) -> str:
    """The text as a JSON string, which is YAML too: it is never a number, a list, or the end of the front matter."""
    return json.dumps(printable(text), ensure_ascii=False)


def _front_matter(facts: RunFacts) -> str:
    lines = ["library_name: peft", "pipeline_tag: text-generation", f"tags: [lora, {facts.recipe.method}]"]
    # The Hub refuses a card whose base_model is none of its own.
    if facts.recipe.model.uri.scheme is Scheme.HF:
        lines.insert(0, f"base_model: {_yaml(facts.base_model)}")
    if facts.base_licence:
        lines.append(f"license: {_yaml(facts.base_licence)}")
    return "\n".join(["---", *lines, "---"])


def _warnings(facts: RunFacts) -> list[str]:
    return ["\n".join(f"> **Note:** {warning}" for warning in facts.warnings)] if facts.warnings else []


def _figures(facts: RunFacts) -> dict[str, str]:
    loss = LossSummary.of(facts.history)
    rows = {name: f"{value:.6g}" for name, value in sorted(facts.metrics.items())}
    if loss.first_loss is not None and loss.lowest_loss is not None:
        rows["loss of the first log"] = f"{loss.first_loss:.6g}"
        rows["lowest loss"] = f"{loss.lowest_loss:.6g} (step {loss.lowest_loss_step})"
    if loss.last_eval_loss is not None and loss.lowest_eval_loss is not None:
        rows["validation loss"] = f"{loss.last_eval_loss:.6g}"
        rows["lowest validation loss"] = f"{loss.lowest_eval_loss:.6g} (step {loss.lowest_eval_loss_step})"
    rows["trained tokens a pass over the data"] = f"{facts.counts.trained_tokens:,}"
    return rows


def _adapter(facts: RunFacts) -> dict[str, str]:
    return {
        **_settings(facts, "lora."),
        "layers": code(", ".join(facts.target_modules)),
        **(
            {"linear layers without an adapter": code(", ".join(facts.modules_without_adapter))}
            if facts.modules_without_adapter
            else {}
        ),
        **_settings(facts, "model.quantization."),
    }


def _training(facts: RunFacts) -> dict[str, str]:
    chosen = facts.recipe.dataset.chat_template
    template = (
        {"chat template": f"{template_label(chosen)}, in `chat_template.jinja`: load the tokenizer from this folder"}
        if chosen is not None
        else {}
    )
    return {
        **_settings(facts, "training."),
        **(_settings(facts, "dpo.") if facts.recipe.method is Method.DPO else {}),
        **{name: value for name, value in _settings(facts, "dataset.").items() if name in _HYPERPARAMETERS},
        **template,
        "trained on": code(facts.device),
    }


def _settings(facts: RunFacts, section: str) -> dict[str, str]:
    return {name: code(value) for name, value in facts.settings.items() if name.startswith(section)}


def _data(facts: RunFacts) -> list[str]:
    counts = facts.counts
    rows = {
        "rows trained": f"{counts.rows:,}",
        **({"rows kept out for validation": f"{counts.validation:,}"} if counts.validation else {}),
        **({"validation rows left out, trained too": f"{counts.trained_too:,}"} if counts.trained_too else {}),
        "rows cut at maxLength": f"{counts.truncated:,}",
        "rows left out": f"{counts.dropped:,}",
        "duplicate rows": f"{counts.duplicates:,}",
        "tokens": f"{counts.tokens:,}",
        "tokens that count in the loss": f"{counts.trained_tokens:,}",
    }
    objects = [
        f"- {code(item.uri)}, {item.size:,} bytes"
        + (f", sha256 {code(item.sha256)}" if item.sha256 else f", etag {code(item.etag)}" if item.etag else "")
        for item in facts.dataset[:_MOST_OBJECTS]
    ]
    if len(facts.dataset) > _MOST_OBJECTS:
        objects.append(f"- and {len(facts.dataset) - _MOST_OBJECTS} more, all in `manifest.json`")
    return [_table(rows), "\n".join(objects)]


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
