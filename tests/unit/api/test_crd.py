"""The CRD as a document: what every field of it must have. How a server takes it is tests/deploy's matter."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from finetune_operator.api.crd import custom_resource_definition, spec_schema, status_schema, structural_schema
from finetune_operator.api.status import FineTuneJobStatus
from finetune_trainer.tracking.messages import TrackerKind

Schema = dict[str, Any]


def fields(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Every schema below this one, with its path."""
    for name, field in schema.get("properties", {}).items():
        yield f"{path}.{name}", field
        yield from fields(field, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield f"{path}[]", schema[key]
            yield from fields(schema[key], f"{path}[]")


SPEC = list(fields(spec_schema(), "spec"))
STATUS = list(fields(status_schema(), "status"))


@pytest.mark.parametrize("part", [SPEC, STATUS], ids=["spec", "status"])
def test_every_field_has_a_description(part: list[tuple[str, Schema]]) -> None:
    bare = [path for path, field in part if not path.endswith("[]") and not field.get("description", "").endswith(".")]
    assert bare == []


def test_every_string_list_and_map_of_the_spec_is_bounded() -> None:
    # Without bounds the server cannot bound the cost of CEL rules, and refuses the CRD.
    unbounded = []
    for path, field in SPEC:
        kind = field.get("type", "string")
        if kind == "string" and not {"maxLength", "enum", "format"} & set(field):
            unbounded.append(path)
        if kind == "array" and "maxItems" not in field:
            unbounded.append(path)
        if "additionalProperties" in field and "maxProperties" not in field:
            unbounded.append(path)
        if kind == "integer" and not {"minimum", "maximum"} <= set(field):
            unbounded.append(path)
    assert unbounded == []


def test_every_section_that_may_be_left_out_has_a_default_unless_its_absence_means_something() -> None:
    absent = {path for path, field in SPEC if "properties" in field and "default" not in field and "[]" not in path}
    assert absent == {
        "spec.model",
        "spec.model.tokenSecretRef",
        "spec.dataset",
        "spec.dataset.fields",
        "spec.dataset.validation",
        "spec.training.earlyStopping",
        "spec.evaluation.gate",
        "spec.profileRef",
        "spec.output",
        "spec.storage.secretRef",
        *(f"spec.tracking.{tracker}{part}" for tracker in TrackerKind for part in ("", ".secretRef")),
        "spec.scheduling.affinity",
        "spec.scheduling.topology",
    }


def test_the_schema_is_structural() -> None:
    for path, field in [*SPEC, *STATUS]:
        assert "type" in field or field.get("x-kubernetes-int-or-string"), path
        assert not {"$ref", "anyOf", "title", "const", "propertyNames", "pattern"} & set(field), path
        assert not isinstance(field.get("additionalProperties"), bool), path
        assert "x-kubernetes-preserve-unknown-fields" not in field, path


def test_numbers_are_whole() -> None:
    assert [path for path, field in [*SPEC, *STATUS] if field.get("type") == "number"] == []
    assert {field["format"] for _, field in [*SPEC, *STATUS] if field.get("type") == "integer"} == {"int64"}


def test_a_fresh_status_is_unfinished_and_fills_the_columns() -> None:
    assert {path: field["default"] for path, field in STATUS if "default" in field} == {
        "status.observedGeneration": -1,
        "status.restarts": 0,
    }
    assert status_schema()["default"] == {"observedGeneration": -1}
    assert FineTuneJobStatus().observed_generation == -1


def test_lists_that_are_merged_by_key() -> None:
    keyed = {
        path: field["x-kubernetes-list-map-keys"]
        for path, field in [*SPEC, *STATUS]
        if "x-kubernetes-list-map-keys" in field
    }
    assert keyed == {
        "spec.scheduling.env": ["name"],
        "spec.resources.claims": ["name"],
        "status.conditions": ["type"],
        "status.attempts": ["number"],
    }


def test_it_stays_small_enough_for_client_side_apply() -> None:
    # kubectl keeps the whole object in an annotation, which Kubernetes limits to 256 KiB: half of that.
    assert len(json.dumps(custom_resource_definition())) < 128 * 1024


def test_columns() -> None:
    columns = custom_resource_definition()["spec"]["versions"][0]["additionalPrinterColumns"]
    narrow = [column["name"] for column in columns if "priority" not in column]
    assert narrow == ["Status", "Progress", "Loss", "Restarts", "GPUs", "Age"]
    assert [column["name"] for column in columns if column.get("priority")] == [
        "ETA", "Reason", "Model", "Output", "Profile",
    ]  # fmt: skip


def test_columns_read_fields_that_exist() -> None:
    known = {f".{path}" for path, _ in [*SPEC, *STATUS]}
    for column in custom_resource_definition()["spec"]["versions"][0]["additionalPrinterColumns"]:
        path = column["jsonPath"].replace('[?(@.type=="Succeeded")]', "[]")
        assert path in known | {".metadata.creationTimestamp"}


class Union(BaseModel):
    value: int | str


class Patterned(BaseModel):
    value: Annotated[str, Field(pattern="^a$")]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Union, "Union.value: a structural schema has no unions"),
        (Patterned, "Patterned.value: a structural schema has no 'pattern'"),
    ],
)
def test_what_the_server_could_not_hold_is_an_error_here(model: type[BaseModel], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        structural_schema(model, defaults=True)
