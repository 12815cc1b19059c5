"""What the API server refuses, `parse_spec` refuses, at the same field, and the other way round.

The server applies the CRD's schema and CEL, `parse_spec` the models. If they disagreed, a YAML would be taken by the
cluster that the operator then cannot read, or pass `finetune validate` and be refused by the cluster. Left out: what
only a server can say (immutability) and null, which kubectl takes out. test_words tries every bound and every rule.
"""

from typing import Any

import pytest

from deploy.server import ABSENT, Server, job
from finetune_operator.api.finetunejob import SpecError, parse_spec

pytestmark = pytest.mark.cluster

TOLERATION = "scheduling.tolerations"
NODES = "scheduling.affinity"


def requirement(operator: str, *values: str) -> dict[str, Any]:
    return {NODES: {"requiredNodeLabels": [{"key": "gpu", "operator": operator, "values": list(values)}]}}


TAKEN: list[dict[str, Any]] = [
    {},
    {"model.uri": "s3://models/base/llama"},
    {"model.uri": "pvc://claim/llama"},
    {"model.revision": "main"},
    {"model.uri": "s3://bucket/..a/b"},
    {"model.cache": "pvc://claim"},
    {"model.uri": "s3://models/base", "model.cache": "pvc://claim/some/where"},
    {"dataset": {"uris": ["s3://data/a.jsonl", "pvc://claim/b.jsonl"]}},
    {"dataset.validation": {"fraction": "0.5"}},
    {"dataset.validation": {"uri": "s3://data/val.jsonl"}},
    {"dataset": {"uri": "hf://datasets/org/name", "revision": "refs/convert/parquet", "split": "train_sft"}},
    {"dataset": {"uri": "hf://datasets/org/name/config", "validation": {"split": "test"}}},
    {"dataset": {"uris": ["s3://data/a.jsonl", "hf://datasets/org/name/*.jsonl"], "revision": "v1"}},
    {"dataset.validation": {"uri": "hf://datasets/org/name", "split": "test"}},
    {"dataset.sha256": "0" * 64},
    {"dataset.sha256": "A" * 64},
    {"dataset": {"uri": "https://host:8443/a/train.jsonl.gz?download=1", "sha256": "0" * 64}},
    {"dataset.validation": {"uri": "https://host/val.jsonl", "sha256": "0" * 64}},
    {"dataset.fields": {"prompt": "question"}},
    {"dataset.chatTemplate": "llama-2"},
    {"dataset.chatTemplate": "{% for m in messages %}{{ m.content }}{% endfor %}"},
    {"lora": {"rank": 1024, "alpha": 1, "dropout": "0.999", "targetModules": ["q_proj", "v_proj"]}},
    {"training": {"epochs": 1, "learningRate": "1E-5", "warmup": "100", "batchSize": 12, "microBatchSize": 4}},
    {"training": {"scheduler": "cosine_with_restarts", "restarts": 2}},
    {"training": {"minLearningRate": "1e-5", "loraPlusRatio": "16"}},
    {"training": {"minLearningRate": "1e-5", "scheduler": "cosine"}},
    # What a profile may supply is judged when the profiles are known.
    {"training": {"restarts": 2}},
    {"model.attention": "varlen"},
    {"resources.cpuLimit": "500m"},
    {"lora": {"variant": "dora", "modulesToSave": ["lm_head"], "targetModules": ["q_proj"]}},
    {"lora": {"initialAdapterUri": "hf://org/first", "initialAdapterRevision": "v1.0"}},
    {"profileRef": {"name": "team"}},
    {"profileRef": {"kind": "ClusterFineTuneProfile", "name": "llama2-2023"}, "training": {"epochs": 1}},
    {"training": {"maxSteps": 1, "weightDecay": "0", "maxGradNorm": "0", "neftuneAlpha": "5"}},
    {"training.earlyStopping": {}, "dataset.validation": {"fraction": "0.1"}, "evaluation": {"everySteps": 10}},
    {
        "dataset.validation": {"fraction": "0.1"},
        "evaluation": {"everySteps": 10, "gate": {"maxPerplexity": "8"}, "samplePrompts": ["hello"]},
    },
    {"evaluation": {"samplePrompts": ["hello"]}},
    {"checkpoint": {"everyMinutes": 10, "uri": "s3://scratch/checkpoints"}},
    {"storage": {"endpoint": "http://minio.storage:9000", "region": "eu-west-1", "secretRef": {"name": "keys"}}},
    {"resources": {"cpu": 4, "memory": "16Gi", "ephemeralStorage": "1.5Ti", "sharedMemory": 0, "gpus": 0}},
    {"scheduling.nodeSelector": {"gpu": "h100", "example.com/zone": ""}},
    {TOLERATION: [{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoSchedule"}]},
    {TOLERATION: [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]},
    requirement("In", "a"),
    requirement("Gt", "40000"),
    requirement("Exists"),
    {"scheduling.labels": {"team": "support", "app.kubernetes.io/part-of": "bot"}},
    {"scheduling.annotations": {"example.com/note": "any text, at length"}},
    {"scheduling.env": [{"name": "NCCL_DEBUG", "value": "WARN"}, {"name": "FINETUNE_EXTRA"}]},
    {"scheduling.serviceAccountName": "trainer.eu"},
    {"retention.ttlSecondsAfterFinished": 0, "retry": {"limit": 0, "backoffSeconds": 0}},
    {"managedBy": "finetune.dev/operator", "runToken": "2", "suspend": True, "preflight": {"enabled": False}},
]

REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("spec.model", {"model": ABSENT}),
    ("spec.model.uri", {"model.uri": ABSENT}),
    ("spec.model.uri", {"model.uri": "hf://llama"}),
    ("spec.model.uri", {"model.uri": "HF://org/llama"}),
    ("spec.model.uri", {"model.uri": "s3://Bucket/llama"}),
    ("spec.model.uri", {"model.uri": "s3://models/a/../b"}),
    ("spec.model.uri", {"model.uri": "pvc://claim/.."}),
    ("spec.model.uri", {"model.uri": "hf://org/name\n"}),
    ("spec.model.uri", {"model.uri": "hf://org/" + "a" * 1024}),
    ("spec.model.revision", {"model.uri": "s3://models/a", "model.revision": "main"}),
    ("spec.model.revision", {"model.revision": ""}),
    ("spec.model.cache", {"model.cache": "s3://models/cache"}),
    ("spec.model.cache", {"model.cache": "pvc://claim/../cache"}),
    ("spec.model.cache", {"model.uri": "pvc://claim/llama", "model.cache": "pvc://claim/cache"}),
    ("spec.model.quantization.type", {"model.quantization": {"type": "nf8"}}),
    ("spec.model.tokenSecretRef.name", {"model.tokenSecretRef": {"name": "Hub_Token"}}),
    ("spec.model.trustRemoteCode", {"model.trustRemoteCode": "perhaps"}),
    ("spec.dataset.uri", {"dataset.uri": "hf://org/data"}),
    ("spec.dataset.uri", {"dataset.uri": "hf://datasets/data"}),
    ("spec.dataset.uri", {"dataset.uri": "hf://datasets/org/data@v1"}),
    ("spec.dataset.revision", {"dataset.revision": "main"}),
    ("spec.dataset.split", {"dataset": {"uris": ["s3://data/a"], "split": "train"}}),
    ("spec.dataset.split", {"dataset": {"uri": "hf://datasets/org/name", "split": "train[:10%]"}}),
    ("spec.dataset.validation.split", {"dataset.validation": {"split": "test"}}),
    ("spec.dataset.validation.split", {"dataset.validation": {"uri": "s3://data/val", "split": "test"}}),
    ("spec.dataset.validation.split", {"dataset": {"uri": "hf://datasets/org/name", "validation": {"split": "train"}}}),
    ("spec.dataset.validation", {"dataset.validation": {"uri": "s3://data/val", "fraction": "0.1"}}),
    ("spec.dataset", {"dataset.uris": ["s3://data/a"]}),
    ("spec.dataset", {"dataset": {}}),
    ("spec.dataset.uris", {"dataset": {"uris": []}}),
    ("spec.dataset.uris", {"dataset": {"uris": ["s3://data/a"] * 65}}),
    ("spec.dataset.uris[1]", {"dataset": {"uris": ["s3://data/a", "gs://data/b"]}}),
    ("spec.dataset.uris", {"dataset": {"uris": ["s3://data/a", "https://data/b"]}}),
    ("spec.dataset.chatTemplate", {"dataset.chatTemplate": "llama2"}),
    ("spec.dataset.chatTemplate", {"dataset.chatTemplate": "llama-2\n"}),
    ("spec.dataset.maxLength", {"dataset.maxLength": 8}),
    ("spec.dataset.validation", {"dataset.validation": {}}),
    ("spec.dataset.validation.fraction", {"dataset.validation": {"fraction": "0.6"}}),
    ("spec.dataset.validation.fraction", {"dataset.validation": {"fraction": "0"}}),
    ("spec.dataset.sha256", {"dataset.sha256": "g" * 64}),
    ("spec.dataset.sha256", {"dataset.uri": "https://host/train.jsonl"}),
    ("spec.dataset.uri", {"dataset": {"uri": "http://host/train.jsonl", "sha256": "0" * 64}}),
    ("spec.dataset.uri", {"dataset": {"uri": "https://user:secret@host/train.jsonl", "sha256": "0" * 64}}),
    ("spec.dataset.validation.sha256", {"dataset.validation": {"uri": "https://host/val.jsonl"}}),
    ("spec.dataset.fields.prompt", {"dataset.fields": {"prompt": ""}}),
    ("spec.lora.initialAdapterRevision", {"lora": {"initialAdapterRevision": "main"}}),
    (
        "spec.lora.initialAdapterRevision",
        {"lora": {"initialAdapterUri": "pvc://claim/a", "initialAdapterRevision": "main"}},
    ),
    ("spec.training.minLearningRate", {"training": {"minLearningRate": "1e-5", "scheduler": "linear"}}),
    ("spec.training.loraPlusRatio", {"training": {"loraPlusRatio": "0"}}),
    ("spec.lora.rank", {"lora.rank": 0}),
    ("spec.lora.rank", {"lora.rank": 1.5}),
    ("spec.lora.dropout", {"lora.dropout": "1"}),
    ("spec.lora.dropout", {"lora.dropout": 0}),
    ("spec.lora.dropout", {"lora.dropout": "0.1\n"}),
    ("spec.lora.targetModules", {"lora.targetModules": ["all-linear", "q_proj"]}),
    ("spec.lora.targetModules", {"lora.targetModules": []}),
    ("spec.training", {"training": {"epochs": 1, "maxSteps": 1}}),
    ("spec.training.learningRate", {"training.learningRate": 0.0002}),
    ("spec.training.learningRate", {"training.learningRate": "0"}),
    ("spec.training.learningRate", {"training.learningRate": "0e5"}),
    ("spec.training.learningRate", {"training.learningRate": "-1e-4"}),
    ("spec.training.warmup", {"training.warmup": "1e400"}),
    ("spec.training.warmup", {"training.warmup": ".5"}),
    ("spec.training.scheduler", {"training.scheduler": "cosin"}),
    ("spec.training.seed", {"training.seed": -1}),
    ("spec.training.microBatchSize", {"training": {"batchSize": 16, "microBatchSize": 5}}),
    ("spec.training.restarts", {"training": {"restarts": 2, "scheduler": "linear"}}),
    ("spec.lora.variant", {"model.quantization": {"type": "int8"}, "lora": {"variant": "dora"}}),
    ("spec.lora.modulesToSave", {"lora": {"targetModules": ["q_proj"], "modulesToSave": ["norm", "q_proj"]}}),
    ("spec.training.earlyStopping", {"training.earlyStopping": {}}),
    ("spec.training.earlyStopping", {"training.earlyStopping": {}, "dataset.validation": {"fraction": "0.1"}}),
    ("spec.evaluation.everySteps", {"evaluation.everySteps": 10}),
    ("spec.evaluation.gate", {"evaluation.gate": {"maxPerplexity": "8"}}),
    ("spec.evaluation.gate", {"evaluation.gate": {}}),
    ("spec.evaluation.gate.maxPerplexity", {"evaluation.gate": {"maxPerplexity": "1"}}),
    ("spec.evaluation.samplePrompts", {"evaluation.samplePrompts": []}),
    ("spec.evaluation.gate.maxPerplexity", {"evaluation.gate": {"maxPerplexity": "low"}}),
    ("spec.checkpoint.everySteps", {"checkpoint.everySteps": 0}),
    ("spec.checkpoint.uri", {"checkpoint.uri": "pvc://claim/checkpoints"}),
    ("spec.output.uri", {"output.uri": "s3://models/../adapters"}),
    ("spec.output.onExisting", {"output.onExisting": "reuse"}),
    ("spec.storage.endpoint", {"storage.endpoint": "minio:9000"}),
    ("spec.storage.endpoint", {"storage.endpoint": "http://minio:9000/path"}),
    ("spec.storage.region", {"storage.region": "EU West"}),
    ("spec.storage.secretRef.name", {"storage.secretRef": {}}),
    ("spec.profile", {"profile": "llama2-2023"}),
    ("spec.profileRef.name", {"profileRef": {"kind": "FineTuneProfile"}}),
    ("spec.profileRef.kind", {"profileRef": {"kind": "Profile", "name": "team"}}),
    ("spec.resources.gpus", {"resources.gpus": 17}),
    ("spec.resources.gpuResource", {"resources.gpuResource": "gpu"}),
    ("spec.resources.memory", {"resources.memory": "16GB"}),
    ("spec.resources.memory", {"resources.memory": -1}),
    ("spec.resources.memory", {"resources.memory": 1.5}),
    ("spec.resources.memory", {"resources.memory": "1" * 25}),
    ("spec.scheduling.queueName", {"scheduling.queueName": "team_a"}),
    ("spec.scheduling.nodeSelector", {"scheduling.nodeSelector": {"a b": "c"}}),
    ("spec.scheduling.nodeSelector", {"scheduling.nodeSelector": {"a" * 64: "c"}}),
    ("spec.scheduling.nodeSelector", {"scheduling.nodeSelector": {"gpu": "a b"}}),
    ("spec.scheduling.tolerations[0]", {TOLERATION: [{}]}),
    ("spec.scheduling.tolerations[0]", {TOLERATION: [{"key": "a", "operator": "Exists", "value": "b"}]}),
    ("spec.scheduling.tolerations[0]", {TOLERATION: [{"key": "a", "tolerationSeconds": 5}]}),
    ("spec.scheduling.affinity.requiredNodeLabels", {NODES: {"requiredNodeLabels": []}}),
    ("spec.scheduling.affinity.requiredNodeLabels[0]", requirement("In")),
    ("spec.scheduling.affinity.requiredNodeLabels[0]", requirement("Exists", "a")),
    ("spec.scheduling.affinity.requiredNodeLabels[0]", requirement("Lt", "a")),
    ("spec.scheduling.labels", {"scheduling.labels": {"finetune.dev/role": "train"}}),
    ("spec.scheduling.labels", {"scheduling.labels": {"kustomize.toolkit.fluxcd.io/name": "x"}}),
    ("spec.scheduling.annotations", {"scheduling.annotations": {"argocd.argoproj.io/tracking-id": "x"}}),
    ("spec.scheduling.annotations", {"scheduling.annotations": {f"k{n}": "" for n in range(33)}}),
    ("spec.scheduling.env[0].name", {"scheduling.env": [{"name": "1A"}]}),
    ("spec.scheduling.env[0].name", {"scheduling.env": [{"name": "LD_PRELOAD", "value": "x"}]}),
    ("spec.scheduling.env[0].name", {"scheduling.env": [{"name": "AWS_ACCESS_KEY_ID", "value": "x"}]}),
    ("spec.scheduling.env", {"scheduling.env": [{"name": "A"}, {"name": "A"}]}),
    ("spec.scheduling.imagePullSecrets[0].name", {"scheduling.imagePullSecrets": [{"name": ""}]}),
    ("spec.retry.limit", {"retry.limit": 101}),
    ("spec.runToken", {"runToken": ""}),
    ("spec.stallTimeoutSeconds", {"stallTimeoutSeconds": 5}),
    ("spec.managedBy", {"managedBy": "a" * 64}),
    ("spec.podTemplate", {"podTemplate": {"spec": {"hostNetwork": True}}}),
    ("spec.lora.r", {"lora": {"r": 8}}),
]


@pytest.mark.parametrize("changes", TAKEN, ids=lambda changes: ",".join(changes) or "minimal")
def test_both_take(installed: Server, changes: dict[str, Any]) -> None:
    parse_spec(job(changes)["spec"], own_values=True)
    assert installed.refusal(job(changes)) == ""


@pytest.mark.parametrize(("path", "changes"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_both_refuse_at_the_same_field(installed: Server, path: str, changes: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as refused:
        parse_spec(job(changes)["spec"], own_values=True)
    assert [problem.path for problem in refused.value.problems if problem.path.startswith(path)]
    assert path in installed.refusal(job(changes))
