"""The CustomResourceDefinitions, generated from the models in `spec`, `status` and `profile`.

A CRD has a structural schema, a subset of the JSON schema that pydantic writes: no references, no unions with null, no
`additionalProperties: false` (the server detects unknown fields itself). This module translates one into the other. A
schema that it cannot translate is an error here, not on a user's cluster.

Optional sections of the spec get the default `{}`, and the server fills in the defaults inside it. So `kubectl get -o
yaml` shows the values that are used, and a CEL rule can use a section without `has()`. A field that a profile may
supply has no default here: the server would fill it in, and hide what the user wrote. In the status
`observedGeneration` has the default -1, or kstatus would take a job that was never reconciled for a finished one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from finetune_operator.api import names
from finetune_operator.api.profile import PROFILE_SPEC
from finetune_operator.api.spec import FineTuneJobSpec, ProfileKind
from finetune_operator.api.status import FineTuneJobStatus
from finetune_operator.api.supplied import supplied_paths
from finetune_trainer.contract.scalar import DNS_LABEL
from finetune_trainer.contract.text import MAX_INTEGER

Schema = dict[str, Any]

_KEPT = (
    "description",
    "type",
    "format",
    "enum",
    "default",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
)
"""Keywords with the same meaning in both, in the order in which they are written."""

_DROPPED = ("title", "required", "properties", "items", "additionalProperties", "propertyNames")
"""Keywords that are translated separately, or have no counterpart. The server does not enforce `propertyNames`, so a
map whose keys are checked has a CEL rule."""

_NAME_RULE = {
    "rule": f"self.metadata.name.matches('{DNS_LABEL}') && self.metadata.name.size() <= {names.MAX_NAME}",
    "message": names.NAME_RULE,
    "fieldPath": ".metadata.name",
}


def custom_resource_definition() -> dict[str, Any]:
    """The whole CRD of FineTuneJobs. Every call returns the same."""
    version = {
        "subresources": {"status": {}},
        "additionalPrinterColumns": _printer_columns(),
        "schema": {"openAPIV3Schema": _root_schema()},
    }
    return _definition(
        names.KIND, names.PLURAL, names.SHORT_NAMES, scope="Namespaced", categories=names.CATEGORIES, version=version
    )


def profile_definitions() -> tuple[dict[str, Any], dict[str, Any]]:
    """The CRDs of FineTuneProfiles and of ClusterFineTuneProfiles. Every call returns the same."""
    return (
        _profile_definition(ProfileKind.NAMESPACED, names.PROFILE_PLURAL, ("ftp",), scope="Namespaced"),
        _profile_definition(ProfileKind.CLUSTER, names.CLUSTER_PROFILE_PLURAL, ("cftp",), scope="Cluster"),
    )


_OF_PROFILES = {
    ProfileKind.NAMESPACED: "Defaults and ceilings for the FineTuneJobs of a namespace.",
    ProfileKind.CLUSTER: "Defaults and ceilings for the FineTuneJobs of the cluster.",
}


def _profile_definition(kind: ProfileKind, plural: str, short: tuple[str, ...], *, scope: str) -> dict[str, Any]:
    annotation = names.DEFAULT_PROFILE_ANNOTATION.replace(".", "\\.")
    version = {
        "additionalPrinterColumns": [
            {"name": "Default", "type": "string", "jsonPath": f".metadata.annotations.{annotation}"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
        "schema": {
            "openAPIV3Schema": {
                "description": _OF_PROFILES[kind],
                "type": "object",
                "required": ["spec"],
                "properties": {
                    "apiVersion": {"description": f"{names.API_VERSION}.", "type": "string"},
                    "kind": {"description": f"{kind}.", "type": "string"},
                    "metadata": {"type": "object"},
                    "spec": profile_schema(),
                },
            }
        },
    }
    return _definition(str(kind), plural, short, scope=scope, categories=("ml",), version=version)


def profile_schema() -> Schema:
    """The structural schema of a profile's `.spec`. Only elements of lists have defaults there."""
    return structural_schema(PROFILE_SPEC, defaults=True)


def _definition(
    kind: str,
    plural: str,
    short_names: Sequence[str],
    *,
    scope: str,
    categories: Sequence[str],
    version: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{names.GROUP}",
            "labels": {
                "app.kubernetes.io/name": names.MANAGED_BY,
                "app.kubernetes.io/component": "crd",
            },
        },
        "spec": {
            "group": names.GROUP,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": list(short_names),
                "categories": list(categories),
            },
            "scope": scope,
            "versions": [{"name": names.VERSION, "served": True, "storage": True, **version}],
        },
    }


def spec_schema() -> Schema:
    """The structural schema of `.spec`, with every default but those of fields that a profile may supply."""
    schema = structural_schema(FineTuneJobSpec, defaults=True)
    for path in supplied_paths(FineTuneJobSpec):
        *sections, key = path.split(".")
        place = schema
        for name in sections:
            place = place["properties"][name]
        place["properties"][key].pop("default", None)
    return schema


def status_schema() -> Schema:
    """The structural schema of `.status`. With its defaults a new object counts as unfinished and fills its columns."""
    schema = structural_schema(FineTuneJobStatus, defaults=False)
    schema["properties"]["restarts"]["default"] = FineTuneJobStatus.model_fields["restarts"].default
    unseen = FineTuneJobStatus.model_fields["observed_generation"].default
    schema["properties"]["observedGeneration"]["default"] = unseen
    return {**schema, "default": {"observedGeneration": unseen}}


def _root_schema() -> Schema:
    return {
        "description": "One fine-tuning of one base model on one dataset, with a LoRA adapter as its result.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"description": f"{names.API_VERSION}.", "type": "string"},
            "kind": {"description": f"{names.KIND}.", "type": "string"},
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": spec_schema(),
            "status": status_schema(),
        },
        "x-kubernetes-validations": [_NAME_RULE],
    }


def _printer_columns() -> list[dict[str, Any]]:
    def column(name: str, path: str, kind: str = "string", *, wide: bool = False) -> dict[str, Any]:
        return {"name": name, "type": kind, "jsonPath": path} | ({"priority": 1} if wide else {})

    return [
        column("Status", ".status.phase"),
        column("Progress", ".status.progress.display"),
        column("Loss", ".status.progress.loss"),
        column("Restarts", ".status.restarts", "integer"),
        column("GPUs", ".status.gpus", "integer"),
        column("Age", ".metadata.creationTimestamp", "date"),
        column("ETA", ".status.progress.etaSeconds", "integer", wide=True),
        column("Reason", '.status.conditions[?(@.type=="Succeeded")].reason', wide=True),
        column("Model", ".spec.model.uri", wide=True),
        column("Output", ".status.output.uri", wide=True),
        column("Profile", ".status.profile.display", wide=True),
    ]


def structural_schema(model: type[BaseModel], *, defaults: bool) -> Schema:
    """A model's structural schema.

    Args:
        model: the model.
        defaults: whether the models' defaults go into the schema.

    Raises:
        ValueError: a structural schema cannot express the model.
    """
    raw = model.model_json_schema(mode="validation", by_alias=True)
    return _Translation(raw.get("$defs", {}), defaults=defaults).translate(raw, model.__name__)


class _Translation:
    """Translates a pydantic schema recursively; `path` is the field's path in messages."""

    def __init__(self, definitions: Mapping[str, Schema], *, defaults: bool) -> None:
        self._definitions = definitions
        self._defaults = defaults

    def translate(self, raw: Schema, path: str) -> Schema:
        source = self._resolve(raw, path)
        schema = {key: source[key] for key in _KEPT if key in source}
        if not self._defaults or schema.get("default", "") is None:
            schema.pop("default", None)
        if schema.get("type") == "integer":
            schema["format"] = "int64"
            if schema.get("maximum") == MAX_INTEGER:
                del schema["maximum"]  # the format says it already
        for key, value in source.items():
            if key.startswith("x-kubernetes-"):
                schema[key] = value
            elif key not in _KEPT and key not in _DROPPED:
                raise ValueError(f"{path}: a structural schema has no {key!r}")
        if "properties" in source:
            schema["properties"] = {
                name: self._property(name, value, required=name in source.get("required", ()), path=path)
                for name, value in source["properties"].items()
            }
            if source.get("required"):
                schema["required"] = source["required"]
        elif isinstance(source.get("additionalProperties"), dict):
            schema["additionalProperties"] = self.translate(source["additionalProperties"], f"{path}[]")
        if "items" in source:
            schema["items"] = self.translate(source["items"], f"{path}[]")
        return schema

    def _property(self, name: str, raw: Schema, *, required: bool, path: str) -> Schema:
        schema = self.translate(raw, f"{path}.{name}")
        made_by_factory = not required and "default" not in raw
        if made_by_factory and self._defaults:
            # The server fills in the defaults of the section's own fields.
            schema["default"] = [] if schema["type"] == "array" else {}
        return schema

    def _resolve(self, raw: Schema, path: str) -> Schema:
        """The schema with its reference resolved and its `or null` removed. Keywords beside these override."""
        beside = {key: value for key, value in raw.items() if key not in ("$ref", "anyOf", "$defs")}
        if "$ref" in raw:
            return self._resolve(self._definitions[raw["$ref"].rsplit("/", 1)[-1]], path) | beside
        if "anyOf" in raw:
            choices = [choice for choice in raw["anyOf"] if choice.get("type") != "null"]
            if len(choices) != 1:
                raise ValueError(f"{path}: a structural schema has no unions")
            return self._resolve(choices[0], path) | beside
        return beside
