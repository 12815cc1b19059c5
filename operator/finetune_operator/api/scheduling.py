"""Where the pods run, and what a user may add to them.

The spec has no pod template. Only these fields reach a pod, and each is checked here as the API server checks it in a
pod. Otherwise a pod that cannot be created would fail the job long after its YAML was accepted.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from finetune_operator.api.kueue import QueueName, Topology
from finetune_operator.api.named_list import NAMED_LIST, distinct_names
from finetune_trainer.contract.rule import Rule, Ruled, literal, matches, matching
from finetune_trainer.contract.scalar import PLAIN_LINES, QUALIFIED_NAME, ObjectName
from finetune_trainer.contract.wire import Wire

_NUMBER = "^-?[0-9]{1,18}$"
_VALUE = "^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
_FOREIGN = (
    "^(finetune[.]dev|([a-z0-9-]+[.])?argoproj[.]io|([a-z0-9-]+[.])*fluxcd[.]io|([a-z0-9-]+[.])?helm[.]sh|"
    "kubectl[.]kubernetes[.]io|batch[.]kubernetes[.]io|kueue[.]x-k8s[.]io)/|"
    "^(app[.]kubernetes[.]io/(instance|managed-by)|job-name|controller-uid)$"
)
"""Keys by which this operator, the Job controller, Kueue or a GitOps tool recognises its own objects. On a pod they
would make the tool prune it (tektoncd/pipeline#3202)."""

LabelKey = Annotated[
    str,
    Field(max_length=317),
    matching(QUALIFIED_NAME, "must be a label's key, for example gpu or example.com/gpu"),
]
LabelValue = Annotated[
    str,
    Field(max_length=63),
    matching(_VALUE, "must be a label's value: at most 63 letters, digits, '-', '_' and '.'"),
]
AnnotationValue = Annotated[str, Field(max_length=1024), PLAIN_LINES]
"""Short, because the recipe is an annotation too, and Kubernetes limits all annotations together to 262,144 bytes."""


def _keys(pattern: str, message: str, *, negated: bool = False) -> Rule[Mapping[str, Any]]:
    """A rule for a map whose keys match a pattern or, negated, do not. The server itself does not check keys."""
    return Rule(
        message=message,
        holds=lambda value: all(matches(pattern, key) is not negated for key in value),
        cel=f"self.all(key, {'!' if negated else ''}key.matches({literal(pattern)}))",
    )


_LABEL_KEYS = _keys(QUALIFIED_NAME, "keys must be those of labels, for example gpu or example.com/gpu")
_OWN_KEYS = _keys(
    _FOREIGN,
    "keys of this operator, of Kubernetes' Jobs, Kueue, Argo CD, Flux and Helm are refused: remove them",
    negated=True,
)


class TolerationOperator(StrEnum):
    """How a toleration's value is compared."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """Which effect of a taint is tolerated."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(Ruled):
    """A toleration, as in a pod."""

    key: LabelKey | None = Field(None, description="Taint key. Default: every key. Example: nvidia.com/gpu.")
    operator: TolerationOperator = Field(TolerationOperator.EQUAL, description="Exists or Equal. Default: Equal.")
    value: LabelValue | None = Field(None, description="Taint value, for Equal. Example: present.")
    effect: TaintEffect | None = Field(None, description="Taint effect. Default: every effect. Example: NoSchedule.")
    toleration_seconds: int | None = Field(
        None,
        ge=0,
        le=2_592_000,
        description="Seconds a NoExecute taint is tolerated. Default: for ever. Example: 300.",
    )

    rules: ClassVar = (
        Rule(
            cel="has(self.key) || self.operator == 'Exists'",
            holds=lambda item: item.key is not None or item.operator is TolerationOperator.EXISTS,
            message="a toleration without key needs operator Exists: add one of them",
        ),
        Rule(
            cel="!has(self.value) || self.operator == 'Equal'",
            holds=lambda item: item.value is None or item.operator is TolerationOperator.EQUAL,
            message="a toleration with operator Exists has no value: remove it",
        ),
        Rule(
            cel="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            holds=lambda item: item.toleration_seconds is None or item.effect is TaintEffect.NO_EXECUTE,
            message="tolerationSeconds needs effect NoExecute: set it, or remove tolerationSeconds",
        ),
    )


class NodeSelectorOperator(StrEnum):
    """How a node label is compared."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
    GT = "Gt"
    LT = "Lt"


class NodeRequirement(Ruled):
    """One requirement on a node's labels."""

    key: LabelKey = Field(description="Node label. Example: nvidia.com/gpu.memory.")
    operator: NodeSelectorOperator = Field(description="In, NotIn, Exists, DoesNotExist, Gt or Lt. Example: Gt.")
    values: Annotated[list[LabelValue], Field(max_length=32)] = Field(
        default_factory=list, description='Values to compare with. Default: none. Example: ["40000"].'
    )

    rules: ClassVar = (
        Rule(
            cel="!(self.operator in ['In', 'NotIn']) || self.values.size() > 0",
            holds=lambda item: item.operator not in ("In", "NotIn") or len(item.values) > 0,
            message="In and NotIn need at least one value: add it",
        ),
        Rule(
            cel="!(self.operator in ['Exists', 'DoesNotExist']) || self.values.size() == 0",
            holds=lambda item: item.operator not in ("Exists", "DoesNotExist") or not item.values,
            message="Exists and DoesNotExist take no values: remove them",
        ),
        Rule(
            cel=f"!(self.operator in ['Gt', 'Lt']) || "
            f"(self.values.size() == 1 && self.values.all(value, value.matches('{_NUMBER}')))",
            holds=lambda item: (
                item.operator not in ("Gt", "Lt") or (len(item.values) == 1 and matches(_NUMBER, item.values[0]))
            ),
            message='Gt and Lt need one whole number, for example ["40000"]',
        ),
    )


class Affinity(Wire):
    """Required node affinity, the part of a pod's affinity that training needs."""

    required_node_labels: Annotated[list[NodeRequirement], Field(min_length=1, max_length=16)] = Field(
        description="Requirements; a node must meet all of them. Example: [{key: nvidia.com/gpu.memory, operator: "
        "Gt, values: ['40000']}]."
    )


class LocalObject(Wire):
    """An object of the job's namespace."""

    name: ObjectName = Field(description="Name of the object. Example: registry-credentials.")


def _reserved(beginnings: str, instead: str) -> Rule[str]:
    return matching(f"^({beginnings})", f"this variable belongs to the trainer: {instead}", negated=True)


class EnvVar(Wire):
    """One environment variable. Its value is in the spec, never in a Secret."""

    name: Annotated[
        str,
        Field(max_length=128),
        matching("^[A-Za-z_][A-Za-z0-9_]*$", "must be an environment variable's name: letters, digits and '_'"),
        _reserved(
            "AWS_|FINETUNE_STORAGE",
            "keys go into storage.secretRef, the rest into storage.endpoint, storage.region and storage.caBundle",
        ),
        _reserved(
            "HF_|HUGGING|TRANSFORMERS_|SSL_CERT_|FINETUNE_HUB",
            "the Hub's token goes into model.tokenSecretRef; a mirror and its certificates are the administrator's "
            "(Helm: hub.endpoint, hub.caBundle)",
        ),
        _reserved("CUDA_VISIBLE|NVIDIA_", "resources.gpus sets it"),
        _reserved("FINETUNE_(NODES|MASTER)|JOB_COMPLETION", "resources.nodes sets it"),
        _reserved(
            "KUBEFLOW_|KUBERNETES_|PYTHON|LD_|FINETUNE_(RECIPE|WORK|TERMINATION|POD|NODE_NAME|ALLOW)|(PATH|HOME|TMPDIR|USER)$",
            "no field sets it, remove it",
        ),
    ] = Field(description="Name, one that the administrator allows (docs/security.md). Example: NCCL_DEBUG.")
    value: Annotated[str, Field(max_length=1024), PLAIN_LINES] = Field(
        "", description="Value. Default: empty. Example: WARN."
    )


class Scheduling(Wire):
    """Where the pods run, and what is added to them."""

    queue_name: QueueName | None = Field(
        None,
        description="Kueue LocalQueue of this namespace in which the training waits for quota (docs/kueue.md). "
        "Default: none. Example: team-a.",
    )
    workload_priority_class_name: QueueName | None = Field(
        None,
        description="Kueue WorkloadPriorityClass: the training's place in the queue, and whom it may preempt. "
        "Default: none. Example: high.",
    )
    topology: Topology | None = Field(
        None, description="How close to each other the training pods run, by a Kueue Topology. Default: none."
    )
    priority_class_name: ObjectName | None = Field(
        None, description="PriorityClass of the training pods. Default: none. Example: batch-low."
    )
    node_selector: Annotated[dict[str, LabelValue], Field(max_length=32), _LABEL_KEYS] | None = Field(
        None, description="Node labels that the training pods need. Default: none. Example: {gpu: h100}."
    )
    tolerations: Annotated[list[Toleration], Field(max_length=32)] | None = Field(
        None,
        description="Taints that the training pods tolerate. Default: none. "
        "Example: [{key: nvidia.com/gpu, operator: Exists}].",
    )
    affinity: Affinity | None = Field(None, description="Node affinity of the training pods. Default: none.")
    runtime_class_name: ObjectName | None = Field(
        None, description="RuntimeClass of the training pods. Default: none. Example: nvidia."
    )
    service_account_name: ObjectName | None = Field(
        None,
        description="ServiceAccount of the pods, for IRSA or workload identity. The operator's administrator must "
        "allow it. Default: default. Example: trainer.",
    )
    image_pull_secrets: Annotated[list[LocalObject], Field(max_length=8)] | None = Field(
        None,
        description="Secrets of this namespace with registry credentials. Default: none. "
        "Example: [{name: registry-credentials}].",
    )
    labels: Annotated[dict[str, LabelValue], Field(max_length=32), _LABEL_KEYS, _OWN_KEYS] | None = Field(
        None,
        description="Labels added to the pods; those of the operator and of GitOps tools are refused. Default: none. "
        "Example: {team: support}.",
    )
    annotations: Annotated[dict[str, AnnotationValue], Field(max_length=32), _LABEL_KEYS, _OWN_KEYS] | None = Field(
        None,
        description="Annotations added to the pods, with names that the administrator allows (docs/security.md). "
        "Default: none. Example: {karpenter.sh/do-not-disrupt: 'true'}.",
    )
    env: Annotated[list[EnvVar], Field(max_length=32), AfterValidator(distinct_names("env"))] | None = Field(
        None,
        description="Environment variables added to the containers of preflight and training. Default: none. "
        "Example: [{name: HTTPS_PROXY, value: 'http://proxy:3128'}].",
        json_schema_extra=NAMED_LIST,
    )
