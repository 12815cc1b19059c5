"""Specs made from the CRD's schema: valid specs that have every field, and specs that break one bound.

Specs that break a bound are generated. A spec that breaks a rule cannot be derived from the rule's expression, so it is
written here under the rule's message. A rule without an entry fails the test that counts the rules.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deploy.server import MINIMAL, job
from finetune_operator.api.crd import spec_schema

Spec = dict[str, Any]
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """A spec that breaks one bound or rule.

    Attributes:
        path: the field's path, as Kubernetes writes it.
        words: text that every reader's error must have.
        spec: the spec.
    """

    path: str
    words: str
    spec: Spec

    def __str__(self) -> str:
        return f"{self.path}: {self.words}"[:120]


def _toleration(**changes: str) -> Spec:
    return {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoExecute", **changes}


FULL: tuple[Spec, ...] = (
    {
        "model": {
            "uri": "hf://org/base",
            "revision": "main",
            "tokenSecretRef": {"name": "hub", "key": "token"},
            "cache": "pvc://models/cache",
            "trustRemoteCode": False,
            "quantization": {"type": "nf4", "doubleQuant": True, "computeDtype": "bfloat16"},
            "attention": "sdpa",
            "deviceMap": "none",
            "sharding": "full",
        },
        "dataset": {
            "uri": "s3://data/train.jsonl",
            "format": "jsonl",
            "schema": "messages",
            "fields": {"messages": "turns", "role": "from", "content": "value", "system": "preamble"},
            "ignoredColumns": ["rejected"],
            "chatTemplate": "llama-2",
            "loss": "assistant",
            "maxLength": 512,
            "packing": "enabled",
            "validation": {"fraction": "0.05"},
            "sha256": "0" * 64,
            "limits": {"maxLineBytes": 4096, "maxRows": 10, "maxBytes": 1000, "maxCompressionRatio": 20},
        },
        "lora": {
            "rank": 8,
            "alpha": 16,
            "dropout": "0.1",
            "targetModules": ["q_proj", "v_proj"],
            "bias": "none",
            "variant": "rslora",
            "modulesToSave": ["lm_head"],
            "initialAdapterUri": "hf://org/first",
            "initialAdapterRevision": "v1",
        },
        "training": {
            "epochs": 2,
            "learningRate": "2e-4",
            "scheduler": "cosine",
            "minLearningRate": "1e-5",
            "loraPlusRatio": "16",
            "warmup": "0.03",
            "batchSize": 16,
            "microBatchSize": 4,
            "optimizer": "adamw_torch",
            "weightDecay": "0.01",
            "maxGradNorm": "1",
            "neftuneAlpha": "5",
            "gradientCheckpointing": "auto",
            "seed": 1,
            "loggingSteps": 5,
            "earlyStopping": {"patience": 2, "minImprovement": "0.01"},
        },
        "evaluation": {
            "everySteps": 10,
            "gate": {"minLossImprovement": "0.1", "maxPerplexity": "8"},
            "samplePrompts": ["hello"],
        },
        "checkpoint": {"everySteps": 10, "everyMinutes": 5, "keep": 3, "uri": "s3://scratch/checkpoints"},
        "output": {"uri": "s3://models/adapters", "onExisting": "Fail", "merged": "bf16", "deletionPolicy": "Retain"},
        "storage": {
            "secretRef": {"name": "keys"},
            "endpoint": "https://minio.storage:9000",
            "region": "eu-west-1",
            "addressingStyle": "path",
            "checksums": "whenRequired",
            "caBundle": "-----BEGIN CERTIFICATE-----\n",
        },
        "tracking": {
            "mlflow": {"uri": "https://mlflow.ml:5000/base", "experiment": "support", "secretRef": {"name": "mlflow"}}
        },
        "profileRef": {"kind": "ClusterFineTuneProfile", "name": "llama2-2023"},
        "resources": {
            "gpus": 2,
            "gpuResource": "nvidia.com/gpu",
            "gpuMemory": "24Gi",
            "nodes": 2,
            "cpu": "500m",
            "cpuLimit": "2",
            "memory": "16Gi",
            "ephemeralStorage": "1.5Ti",
            "sharedMemory": 0,
            "claims": [{"name": "gpu", "resourceClaimTemplateName": "one-h100", "gpus": True}],
        },
        "scheduling": {
            "queueName": "team-a",
            "workloadPriorityClassName": "high",
            "topology": {"required": "cloud.provider.com/topology-rack"},
            "priorityClassName": "batch",
            "nodeSelector": {"gpu": "h100"},
            "tolerations": [_toleration() | {"tolerationSeconds": 5}],
            "affinity": {"requiredNodeLabels": [{"key": "gpu", "operator": "In", "values": ["a"]}]},
            "runtimeClassName": "nvidia",
            "serviceAccountName": "trainer",
            "imagePullSecrets": [{"name": "registry"}],
            "labels": {"team": "support"},
            "annotations": {"example.com/note": "any text"},
            "env": [{"name": "NCCL_DEBUG", "value": "WARN"}],
        },
        "preflight": {
            "enabled": False,
            "scheduling": "none",
            "queueName": "checks",
            "resources": {"cpu": "1", "cpuLimit": "2", "memory": "2Gi"},
        },
        "retry": {"limit": 1, "backoffSeconds": 5},
        "retention": {"ttlSecondsAfterFinished": 60},
        "suspend": True,
        "runToken": "again",
        "startDeadlineSeconds": 60,
        "activeDeadlineSeconds": 3600,
        "stallTimeoutSeconds": 600,
        "managedBy": "finetune.dev/operator",
    },
    {
        "model": {"uri": "s3://models/base"},
        "dataset": {
            "uris": ["s3://data/a.jsonl", "pvc://claim/b.jsonl"],
            "schema": "alpaca",
            "fields": {"instruction": "task", "input": "context", "output": "response"},
            "validation": {"uri": "s3://data/val.jsonl", "sha256": "0" * 64},
        },
        "lora": {"initialAdapterUri": "s3://models/first"},
        "training": {"maxSteps": 5, "scheduler": "cosine_with_restarts", "restarts": 2},
        "tracking": {
            "wandb": {"uri": "https://wandb.ml", "experiment": "team/support", "secretRef": {"name": "wandb"}}
        },
        "output": {"uri": "s3://models/adapters"},
    },
    {
        "model": {"uri": "pvc://models/base"},
        "dataset": {
            "uri": "pvc://data/train.csv",
            "schema": "promptCompletion",
            "fields": {"prompt": "question", "completion": "answer"},
        },
        "output": {"uri": "s3://models"},
        "tracking": {
            "trackio": {"uri": "https://trackio.ml", "experiment": "support", "secretRef": {"name": "trackio"}}
        },
        "profileRef": {"name": "team"},
    },
    {
        "model": {"uri": "hf://org/base"},
        "dataset": {
            "uri": "hf://datasets/org/name",
            "revision": "refs/convert/parquet",
            "split": "train_sft",
            "schema": "text",
            "fields": {"text": "body"},
            "validation": {"split": "test_sft"},
        },
        "output": {"uri": "s3://models"},
        "resources": {"claims": [{"name": "nic", "resourceClaimName": "shared-nic"}]},
        "scheduling": {"topology": {"preferred": "cloud.provider.com/topology-block"}},
    },
    {
        "method": "dpo",
        "model": {"uri": "hf://org/base"},
        "dataset": {
            "uri": "s3://data/pairs.jsonl",
            "schema": "preference",
            "fields": {"prompt": "question", "chosen": "better", "rejected": "worse"},
            "validation": {"fraction": "0.1"},
        },
        "dpo": {"beta": "0.2", "lossType": "sigmoid", "labelSmoothing": "0.1", "sftWeight": "1", "referenceFree": True},
        "training": {"earlyStopping": {"metric": "accuracy"}},
        "evaluation": {"everySteps": 10, "gate": {"minAccuracy": "0.7"}},
        "output": {"uri": "s3://models"},
    },
)
"""Valid specs; every field of the schema is in at least one."""


def places(schema: Mapping[str, Any], path: str = "spec") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields every schema with its path. `[]` means an element of a list and `{}` a value of a map."""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from places(field, f"{path}.{name}")
    if "items" in schema:
        yield from places(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from places(schema["additionalProperties"], f"{path}{{}}")


PLACES = dict(places(spec_schema()))


def found(spec: Spec, place: str) -> Path | None:
    """Returns the keys of the first field with that path in a spec, or None when the spec has none."""
    keys: list[str | int] = []
    value: Any = spec
    for part in place.replace("[]", ".[]").replace("{}", ".{}").split(".")[1:]:
        key: str | int = 0 if part == "[]" else next(iter(value), "") if part == "{}" else part
        if not (isinstance(value, list) and value) and not (isinstance(value, dict) and key in value):
            return None
        value = value[key]  # type: ignore[index] # a number for a list, a name for a section
        keys.append(key)
    return tuple(keys)


def at(place: str) -> tuple[Spec, Path]:
    """Returns a valid spec that has the field, and the field's keys."""
    for spec in FULL:
        if (path := found(spec, place)) is not None:
            return copy.deepcopy(spec), path
    raise AssertionError(f"{place}: no spec of FULL has it")


def written(path: Path) -> str:
    """Returns keys as a path, as Kubernetes writes it."""
    return "spec" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)


def value_of(spec: Spec, path: Path) -> Any:
    """Returns the value at a path."""
    value: Any = spec
    for key in path:
        value = value[key]
    return value


def changed(place: str, value: Any) -> tuple[Spec, str]:
    """Returns a spec with another value of a field, and the field's path."""
    spec, path = at(place)
    value_of(spec, path[:-1])[path[-1]] = value
    return spec, written(path)


_WRONG: dict[str, Any] = {"string": 7, "integer": "x", "boolean": "yes", "array": "x", "object": "x"}
_TYPE_OF = {int: "integer", str: "string"}


def bounds() -> Iterator[Break]:
    """Yields for each bound of the schema a spec that breaks it."""
    for place, schema in PLACES.items():
        if place == "spec":
            continue
        for value, words in _breaking(place, schema):
            spec, path = changed(place, value)
            yield Break(path=path, words=words, spec=spec)
        yield from _missing(place, schema)


def _breaking(place: str, schema: Mapping[str, Any]) -> Iterator[tuple[Any, str]]:
    if (kind := schema.get("type")) is not None:
        wrong = _WRONG[kind]
        yield wrong, f'must be of type {kind}: "{_TYPE_OF[type(wrong)]}"'
    if "enum" in schema:
        listed = ", ".join(f'"{value}"' for value in schema["enum"])
        yield "nonsense", f"supported values: {listed}"
    if "minimum" in schema:
        yield schema["minimum"] - 1, f"should be greater than or equal to {schema['minimum']}"
    if "maximum" in schema:
        yield schema["maximum"] + 1, f"should be less than or equal to {schema['maximum']}"
    if "minLength" in schema:
        yield "", f"should be at least {schema['minLength']} chars long"
    if "maxLength" in schema:
        yield "1" * (schema["maxLength"] + 1), f"may not be more than {schema['maxLength']} bytes"
    if "minItems" in schema:
        yield [], f"should have at least {schema['minItems']} items"
    if "maxItems" in schema:
        spec, path = at(place)
        element = value_of(spec, path)[0]
        elements = (
            {**element, "name": f"N{index}"} if schema.get("x-kubernetes-list-type") == "map" else element
            for index in range(schema["maxItems"] + 1)
        )
        yield list(elements), f"must have at most {schema['maxItems']} items"
    if "maxProperties" in schema:
        entries = {f"key{index}": "a" for index in range(schema["maxProperties"] + 1)}
        yield entries, f"must have at most {schema['maxProperties']} items"


def _missing(place: str, schema: Mapping[str, Any]) -> Iterator[Break]:
    """Yields specs without a required field, and one with an unknown field."""
    if "properties" not in schema:
        return
    for name in schema.get("required", ()):
        spec, path = at(place)
        del value_of(spec, path)[name]
        yield Break(path=written((*path, name)), words="Required value", spec=spec)
    spec, path = at(place)
    value_of(spec, path)["nonsense"] = 1
    unknown = written((*path, "nonsense"))
    yield Break(path=unknown, words=f'unknown field "{unknown}"', spec=spec)


_ONE_LINE = "\u202e"
_LINES = "\x1b[0m"

VALUES: dict[str, tuple[Any, ...]] = {
    "must be one line without control": (_ONE_LINE,),
    "must not hold control": (_LINES,),
    "must be hf://": ("nonsense://x",),
    "must be s3://": ("nonsense://x",),
    "data of the Hub is": ("hf://org/data", "hf://datasets/data", "hf://datasets/org/data@v1"),
    "must be the name of one split": ("train[:10%]",),
    "must be pvc://": ("nonsense://x",),
    "must not hold '..'": ("s3://bucket/a/../b", "pvc://claim/../b"),
    "a bucket's name has": ("s3://ab/c",),
    "must be one of llama-2": ("llama2",),
    "must be 64 hexadecimal": ("A", "sha256:" + "0" * 57),
    "http:// is not encrypted": ("http://host/train.jsonl",),
    "data by https is": ("https://host", "https://user:password@host/a", "https://host/a/", "https://host/a#b"),
    "must be a non-negative decimal": ("-1",),
    "must be a decimal": ("x",),
    "must be http://": ("minio:9000",),
    "must be https://host[:port] of a Trackio": ("hf://org/runs",),
    "must be a project": ("a/b/c", "a b"),
    "must not hold a user or password": ("https://user:secret@minio",),
    "must be a region": ("EU West",),
    "must be an extended": ("gpu",),
    "must be a Kubernetes quantity of cores": (0, "0", "-1"),
    "must be a Kubernetes quantity of at least": ("63Mi", "65536Ki1"),
    "must be a Kubernetes quantity, ": ("16GB", "1_0", -1),
    "must be a Secret's key": ("a b",),
    "must be the name of an object": ("Hub_Token",),
    "must consist of": ("team.a",),
    "must be a label's key": ("a b",),
    "must be a label's value": ("a b",),
    "keys must be those of labels": ({"a b": "c"},),
    "keys of this operator": ({"finetune.dev/role": "train"},),
    "must be an environment variable's name": ("1A",),
    "keys go into storage.secretRef": ("AWS_REGION",),
    "the Hub's token goes into": ("HF_TOKEN",),
    "resources.gpus sets it": ("CUDA_VISIBLE_DEVICES",),
    "resources.nodes sets it": ("FINETUNE_NODES",),
    "no field sets it": ("LD_PRELOAD",),
    'must be a decimal in quotes above "0" and at most "1"': ("1.5",),
    "cpuLimit must be at least": ({"cpu": "2500m", "cpuLimit": 2},),
    "a claim has either": (
        {"name": "gpu"},
        {"name": "gpu", "resourceClaimName": "nic", "resourceClaimTemplateName": "one-h100"},
    ),
    "a topology is either": ({}, {"required": "example.com/rack", "preferred": "example.com/rack"}),
    "must be the key of a node label": ("a b",),
    "must be the name of a Kueue object": ("team_a",),
    "a toleration without key": ({"operator": "Equal"},),
    "a toleration with operator Exists": (_toleration(operator="Exists"),),
    "tolerationSeconds needs": (_toleration(effect="NoSchedule") | {"tolerationSeconds": 5},),
    "In and NotIn need": ({"key": "gpu", "operator": "In"},),
    "Exists and DoesNotExist take": ({"key": "gpu", "operator": "Exists", "values": ["a"]},),
    "Gt and Lt need": ({"key": "gpu", "operator": "Gt", "values": ["a"]},),
}
"""What breaks a rule of one value, by what its message holds: what is added to the
valid text, for the two of plain text."""


def values() -> Iterator[Break]:
    """Yields for each rule about one value a spec that breaks it."""
    for place, schema in PLACES.items():
        if place == "spec":
            continue
        for rule in schema.get("x-kubernetes-validations", ()):
            message = rule["message"]
            entry = next((entry for words, entry in VALUES.items() if words in message), None)
            assert entry is not None, f"no value breaks: {place}: {message}"
            for value in entry:
                if value in (_ONE_LINE, _LINES):
                    spec, path = at(place)
                    before = value_of(spec, path)
                    text = "s3://models/base" if str(before).startswith("hf://") else before
                    if place == "spec.model.uri":
                        spec, path = copy.deepcopy(FULL[1]), ("model", "uri")
                    if place == "spec.lora.initialAdapterUri":
                        spec, path = copy.deepcopy(FULL[1]), ("lora", "initialAdapterUri")
                    text = "{{ messages }}" if place == "spec.dataset.chatTemplate" else text
                    value_of(spec, path[:-1])[path[-1]] = text + value
                    yield Break(path=written(path), words=message, spec=spec)
                elif "/../" in str(value) and ("pvc://" in str(value)) != ("pvc://" in str(value_of(*at(place)))):
                    continue  # a field has its own schemes
                else:
                    spec, where = changed(place, value)
                    yield Break(path=where, words=message, spec=spec)


OVER_SEVERAL: tuple[Mapping[str, Any], ...] = (
    {"tracking": {"mlflow": {"uri": "http://mlflow.ml"}, "wandb": {}}},
    {"model.uri": "s3://models/base", "model.revision": "main"},
    {"model.uri": "pvc://claim/base", "model.cache": "pvc://claim/cache"},
    {"model.attention": "varlen", "dataset.packing": "disabled"},
    {"model.deviceMap": "auto", "resources.gpus": 0},
    {"model.deviceMap": "auto", "resources.nodes": 2},
    {"model.sharding": "full", "model.deviceMap": "auto"},
    {"model.sharding": "full", "resources.gpus": 1, "resources.nodes": 1},
    {"model.sharding": "full", "resources.gpus": 2, "model.quantization.type": "int8"},
    {"model.sharding": "full", "resources.gpus": 2, "lora.variant": "dora"},
    {"dataset.uris": ["s3://data/a"]},
    {"dataset": {"maxLength": 512}},
    {"dataset.uri": "https://host/train.jsonl"},
    {"dataset": {"uris": ["https://host/train.jsonl"]}},
    {"dataset.validation": {"uri": "https://host/val.jsonl"}},
    {"dataset.validation": {"fraction": "0.1", "sha256": "0" * 64}},
    {"dataset.revision": "main"},
    {"dataset.split": "train"},
    {"dataset.validation": {"split": "test"}},
    {"dataset": {"uri": "hf://datasets/org/name", "validation": {"split": "train"}}},
    {"dataset.fields": {"text": "a", "prompt": "b"}},
    *(
        {"dataset.fields": {part: "a"}, "dataset.schema": schema}
        for part, schema in {
            "text": "messages",
            "prompt": "text",
            "completion": "alpaca",
            "messages": "text",
            "role": "alpaca",
            "content": "alpaca",
            "instruction": "text",
            "input": "messages",
            "output": "sharegpt",
            "system": "promptCompletion",
        }.items()
    ),
    {"dataset.fields": {"chosen": "a"}},
    {"dataset.fields": {"rejected": "a"}},
    {"dataset.fields": {"completion": "a"}, "method": "dpo"},
    {"dpo.beta": "0.2"},
    {"method": "dpo", "dpo.lossType": "ipo", "dpo.labelSmoothing": "0.1"},
    {"method": "dpo", "dataset.schema": "messages"},
    {"dataset.schema": "preference"},
    {"method": "dpo", "dataset.loss": "all"},
    {"evaluation.gate": {"minAccuracy": "0.7"}, "dataset.validation": {"fraction": "0.1"}},
    {"method": "dpo", "evaluation.gate": {"maxPerplexity": "8"}, "dataset.validation": {"fraction": "0.1"}},
    {"dataset.chatTemplate": "llama-2", "dataset.schema": "text"},
    {"dataset.loss": "completion", "dataset.schema": "text"},
    {"dataset.validation": {}},
    {"dataset.validation": {"fraction": "0.1", "uri": "s3://data/val"}},
    {"lora.targetModules": ["all-linear", "q_proj"]},
    {"lora.variant": "dora", "model.quantization.type": "int8"},
    {"lora.modulesToSave": ["q_proj"], "lora.targetModules": ["q_proj"]},
    {"lora.initialAdapterRevision": "main", "lora.initialAdapterUri": "s3://models/first"},
    {"lora.initialAdapterRevision": "main", "lora.initialAdapterUri": MINIMAL["spec"]["model"]["uri"]},
    {"training.epochs": 1, "training.maxSteps": 1},
    {"training.batchSize": 16, "training.microBatchSize": 5},
    {"training.restarts": 2, "training.scheduler": "linear"},
    {"training.minLearningRate": "1e-5", "training.scheduler": "linear"},
    {"training.minLearningRate": "2e-4", "training.learningRate": "2e-4"},
    {"training.earlyStopping": {}, "dataset.validation": {"fraction": "0.1"}},
    {
        "training.earlyStopping": {"metric": "accuracy"},
        "dataset.validation": {"fraction": "0.1"},
        "evaluation": {"everySteps": 10},
    },
    {"evaluation.everySteps": 10},
    {"evaluation.gate": {"maxPerplexity": "8"}},
    {"evaluation.gate": {}, "dataset.validation": {"fraction": "0.1"}},
    {"model.uri": "file:///models/base"},
    {"model.cache": "file:///cache"},
    {"dataset.uri": "file:///data.jsonl"},
    {"dataset": {"uris": ["s3://data/a", "file:///data.jsonl"]}},
    {"dataset.validation": {"uri": "file:///val.jsonl"}},
    {"lora.initialAdapterUri": "file:///first"},
    {"checkpoint.uri": "file:///checkpoints"},
    {"output.uri": "file:///adapters"},
)
"""Changes of the minimal spec that break rules over several fields."""


def over_several() -> Iterator[Spec]:
    """Returns specs that break rules over several fields."""
    for changes in OVER_SEVERAL:
        yield job(changes)["spec"]


def rules_over_several() -> set[tuple[str, str]]:
    """Returns each rule over several fields by path and message.

    Rules that compare the old object with the new one are left out, because only the server checks them.
    """
    return {
        (f"spec{rule.get('fieldPath', '')}", rule["message"])
        for rule in PLACES["spec"]["x-kubernetes-validations"]
        if "oldSelf" not in rule["rule"]
    }
