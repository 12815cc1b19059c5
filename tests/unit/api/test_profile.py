"""Profiles give defaults: what the user writes wins, and nobody behind the spec knows of them."""

from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.crd import spec_schema
from finetune_operator.api.finetunejob import SpecError, parse_spec
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_trainer.contract.fingerprint import fingerprint
from finetune_trainer.contract.profile import SETTINGS, Profile
from finetune_trainer.contract.recipe import JobIdentity

MINIMAL: dict[str, Any] = {
    "model": {"uri": "hf://meta-llama/Llama-2-7b-chat-hf"},
    "dataset": {"uri": "s3://data/support/train.jsonl"},
    "output": {"uri": "s3://models/adapters"},
}
OF_2023 = SETTINGS[Profile.LLAMA2_2023]
DOCUMENT = (Path(__file__).parents[3] / "docs/training.md").read_text(encoding="utf-8")


def _spec(**sections: Any) -> FineTuneJobSpec:
    merged = {name: {**MINIMAL.get(name, {}), **section} for name, section in sections.items()}
    return parse_spec({**MINIMAL, **merged, "profile": "llama2-2023"})


def _value(spec: FineTuneJobSpec, path: str) -> Any:
    value: Any = spec.to_dict()
    for key in path.split("."):
        value = value[key]
    return value


def _name(spec: FineTuneJobSpec) -> str:
    return fingerprint(spec.recipe(JobIdentity(name="a")), [], [])


@pytest.mark.parametrize("path", OF_2023)
def test_setting_holds_where_the_job_says_nothing(path: str) -> None:
    assert _value(_spec(), path) == OF_2023[path]


@pytest.mark.parametrize("path", OF_2023)
def test_setting_is_in_the_documentation(path: str) -> None:
    value = OF_2023[path]
    text = ", ".join(value) if isinstance(value, list) else str(value).lower() if isinstance(value, bool) else value
    assert f"| `{path}` | {text}" in DOCUMENT


def test_what_the_user_writes_wins_even_when_it_is_the_usual_default() -> None:
    spec = _spec(
        model={"quantization": {"type": "fp4", "doubleQuant": True}},
        lora={"rank": 16, "dropout": "0", "targetModules": ["all-linear"]},
        training={"loggingSteps": 1},
    )

    assert (spec.model.quantization.type, spec.model.quantization.double_quant) == ("fp4", True)
    assert spec.model.quantization.compute_dtype == "float16"
    assert (spec.lora.rank, spec.lora.dropout, spec.lora.target_modules) == (16, "0", ["all-linear"])
    assert (spec.lora.alpha, spec.training.logging_steps, spec.training.max_steps) == (16, 1, 500)


def test_length_gives_way_to_epochs_and_micro_batch_to_another_batch() -> None:
    spec = _spec(training={"epochs": 2, "batchSize": 6})

    assert (spec.training.epochs, spec.training.max_steps) == (2, None)
    assert (spec.training.batch_size, spec.training.micro_batch_size) == (6, None)
    assert _spec(training={"batchSize": 16}).training.micro_batch_size == 4


def test_settings_written_out_are_the_same_run() -> None:
    written: dict[str, Any] = {name: dict(section) for name, section in MINIMAL.items()}
    for path, value in OF_2023.items():
        *sections, key = path.split(".")
        place = written
        for name in sections:
            place = place.setdefault(name, {})
        place[key] = value

    out = parse_spec(written)
    assert out.recipe(JobIdentity(name="a")) == _spec().recipe(JobIdentity(name="a"))
    assert _name(out) == _name(_spec()) != _name(parse_spec(MINIMAL))


def test_a_parsed_spec_is_parsed_again_to_the_same() -> None:
    for spec in (_spec(), _spec(training={"epochs": 2, "batchSize": 6}), _spec(lora={"rank": 8})):
        assert parse_spec(spec.to_dict()) == spec


def test_what_the_server_fills_in_hides_no_setting() -> None:
    """The spec as the API server would store it: with every default of the schema."""
    stored = _with_defaults(spec_schema(), {**MINIMAL, "profile": "llama2-2023"})
    assert stored["training"]["seed"] == 42

    assert parse_spec(stored) == _spec()
    assert _with_defaults(spec_schema(), MINIMAL)["lora"] == {"variant": "lora", "bias": "none"}


@pytest.mark.parametrize("raw", [{"profile": "llama3"}, {"profile": ["none"]}, {"lora": 3, "profile": "llama2-2023"}])
def test_what_is_no_profile_or_no_section_is_refused_by_name(raw: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=f"spec.{next(iter(raw))}"):
        parse_spec(MINIMAL | raw)


def _with_defaults(schema: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    filled = dict(value)
    for name, field in schema["properties"].items():
        if name not in filled and "default" in field:
            filled[name] = field["default"]
        if name in filled and "properties" in field:
            filled[name] = _with_defaults(field, filled[name])
    return filled
