"""The text of a first YAML, with remarks for somebody who has never seen one."""

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Starter:
    """What a first YAML says. None leaves a setting to its default."""

    name: str
    model: str
    data: str
    to: str
    endpoint: str | None = None
    secret: str | None = None
    gpus: int = 1
    epochs: int | None = None
    rank: int | None = None


def starter_yaml(starter: Starter) -> str:
    """The YAML. Texts are quoted, so that none of them changes what the file says."""
    lines = [
        "apiVersion: finetune.dev/v1alpha1",
        "kind: FineTuneJob",
        "metadata:",
        f"  name: {_quoted(starter.name)}",
        "spec:",
        "  model:",
        f"    uri: {_quoted(starter.model)}",
        "  dataset:",
        f"    uri: {_quoted(starter.data)}",
    ]
    lines += _section("lora", rank=starter.rank)
    lines += _section("training", epochs=starter.epochs)
    lines += ["  output:", f"    uri: {_quoted(starter.to)}"]
    if starter.endpoint or starter.secret:
        lines.append("  storage:")
        lines += [f"    endpoint: {_quoted(starter.endpoint)}"] if starter.endpoint else []
        lines += [f"    secretRef: {{name: {_quoted(starter.secret)}}}"] if starter.secret else []
    lines += _section("resources", gpus=starter.gpus)
    lines += ["  # every other field has a default: kubectl explain ftj.spec --recursive"]
    return "\n".join(lines) + "\n"


def _section(name: str, **fields: int | None) -> list[str]:
    given = {field: value for field, value in fields.items() if value is not None}
    return [f"  {name}:", *(f"    {field}: {value}" for field, value in given.items())] if given else []


def _quoted(text: str) -> str:
    """A text in double quotes, which YAML reads as JSON does."""
    return json.dumps(text)
