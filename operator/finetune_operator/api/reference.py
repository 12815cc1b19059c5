"""References as Markdown: the fields, made from the CRD, and the failures, made from the contract's table."""

from collections.abc import Iterator
from typing import Any

from finetune_operator.api import names
from finetune_trainer.contract.failure import FAILURES, ExitCode, FailureClass, FailureReason

Schema = dict[str, Any]

_HEAD = f"""# Fields of a {names.KIND}

Generated from the models by `scripts/generate`; `kubectl explain ftj --recursive` says the same. A field without a
default may be left out, unless it is marked as required.
"""

_FAILURES_HEAD = """# Failures

Generated from the contract by `scripts/generate`.

Every failed attempt and every failed job has one of these reasons. It stands in `status.failure.reason`, in
`status.attempts[].reason`, in the conditions `Succeeded`, `Ready` and `Stalled`, and in the events. The strings are
part of the API: scripts and alerts may match them. `status.failure.message` has the facts and the remedy.

`python -m finetune_trainer`, its `preflight`, and `finetune` end with the exit code of the reason; 0 is success. A
reason without an exit code is one that only the operator can see.

What follows a failed attempt:

- **Fail**: the job fails. Another attempt would end the same way.
- **Retry**: another attempt after a pause, counted against `retry.limit` (3). The pause is `retry.backoffSeconds` (10),
  doubled with each counted failure, at most an hour.
- **RetryUncounted**: another attempt after the first pause. It is not the job's fault and is not counted.
"""


def failure_reference() -> str:
    """Markdown with one row for each reason, in the order of the contract's table."""
    head = ["| reason | exit code | what follows | meaning | remedy |", "|---|---|---|---|---|"]
    rows = [_failure_row(reason, failure) for reason, failure in FAILURES.items()]
    usage = f"Exit code {ExitCode.USAGE} is a command line that is wrong, or a package that is not installed."
    return "\n".join([_FAILURES_HEAD, *head, *rows, "", usage, ""])


def _failure_row(reason: FailureReason, failure: FailureClass) -> str:
    code = "" if failure.exit_code is None else str(int(failure.exit_code))
    return f"| `{reason}` | {code} | {failure.policy} | {failure.meaning} | {failure.remedy} |"


def field_reference(crd: dict[str, Any]) -> str:
    """Markdown with one table for each section of `spec` and `status`, in the order of the schema."""
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    sections = [section for part in ("spec", "status") for section in _sections(part, schema["properties"][part])]
    return "\n".join([_HEAD, *sections])


def _sections(path: str, schema: Schema) -> Iterator[str]:
    lines = [f"## {path}", "", schema["description"], "", "| field | type | default | meaning |", "|---|---|---|---|"]
    required = schema.get("required", ())
    lines += [_row(name, field, required=name in required) for name, field in schema["properties"].items()]
    if rules := schema.get("x-kubernetes-validations", ()):
        lines += ["", *(f"- {_rule(path, rule)}." for rule in rules)]
    yield "\n".join([*lines, ""])
    for name, field in schema["properties"].items():
        inner, suffix = (field["items"], "[]") if field.get("type") == "array" else (field, "")
        if "properties" in inner:
            yield from _sections(f"{path}.{name}{suffix}", inner)


def _rule(path: str, rule: dict[str, str]) -> str:
    return f"`{path}{rule.get('fieldPath', '')}`: {rule['message']}"


def _row(name: str, schema: Schema, *, required: bool) -> str:
    default = "required" if required else _default(schema)
    description = schema["description"].replace("|", "\\|").replace("\n", " ")
    return f"| `{name}` | {_type(schema)} | {default} | {description} |"


def _default(schema: Schema) -> str:
    """The default, shown as YAML would have it; a section shows its own in its own table."""
    default = schema.get("default")
    if default is None or default == {}:
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`"


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return " \\| ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity"
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"map to {_type(schema['additionalProperties'])}"
    bounds = [str(schema.get(key, "")) for key in ("minimum", "maximum")]
    spread = f" {bounds[0]}…{bounds[1]}" if any(bounds) else ""
    return ("time" if schema.get("format") == "date-time" else str(schema["type"])) + spread
