"""Fields that name places: read as text, held parsed, written as the text that was read."""

import json

import pytest
from pydantic import ValidationError

from finetune_trainer.contract.recipe.dataset import DatasetSpec
from finetune_trainer.contract.recipe.model import ModelSpec
from finetune_trainer.contract.recipe.output import OutputSpec
from finetune_trainer.contract.uri import Scheme, Uri, parse_uri


@pytest.mark.parametrize(
    ("text", "scheme", "authority", "path"),
    [
        ("s3://bucket", Scheme.S3, "bucket", ""),
        ("s3://bucket/", Scheme.S3, "bucket", ""),
        ("s3://bucket/a/b/", Scheme.S3, "bucket", "a/b/"),
        ("file:///a/b", Scheme.FILE, "", "/a/b"),
    ],
)
def test_a_place_is_parsed_and_written_as_it_was_read(text: str, scheme: Scheme, authority: str, path: str) -> None:
    spec = OutputSpec.model_validate_json(json.dumps({"uri": text}))
    assert (spec.uri.scheme, spec.uri.authority, spec.uri.path) == (scheme, authority, path)
    assert spec.uri == parse_uri(text)
    assert spec.to_dict()["uri"] == text
    assert json.loads(spec.to_json())["uri"] == text
    assert OutputSpec.model_validate(spec.model_dump()) == spec
    assert OutputSpec.model_validate({"uri": spec.uri}).to_dict()["uri"] == text


def test_every_place_of_a_list_is_parsed() -> None:
    spec = DatasetSpec.model_validate({"uris": ["s3://data/b", "pvc://claim/x"]})
    assert spec.uris == [parse_uri("s3://data/b"), parse_uri("pvc://claim/x")]
    assert spec.to_dict()["uris"] == ["s3://data/b", "pvc://claim/x"]


@pytest.mark.parametrize("value", ["s3://bucket/../x", "http://a/b", "hf://one", 3, None, {"scheme": "s3"}])
def test_what_is_no_place_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        ModelSpec.model_validate({"uri": value})


def test_the_schema_is_that_of_a_string_with_its_rules() -> None:
    schema = ModelSpec.model_json_schema()["properties"]["uri"]
    assert (schema["type"], schema["maxLength"]) == ("string", 1024)
    messages = [rule["message"] for rule in schema["x-kubernetes-validations"]]
    assert messages[0].startswith("must be hf://org/name")
    assert any("'..'" in message for message in messages)


def test_a_place_shows_as_its_text() -> None:
    assert repr(parse_uri("hf://org/name")) == "'hf://org/name'"
    assert str(Uri(scheme=Scheme.S3, authority="bucket", path="a/").without_trailing_slash()) == "s3://bucket/a"
