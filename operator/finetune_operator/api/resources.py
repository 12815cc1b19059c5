"""What a training pod asks for."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from finetune_operator.api.named_list import NAMED_LIST, distinct_names
from finetune_operator.api.quantity import CPU_LIMIT, Cores, Memory, Quantity
from finetune_trainer.contract.rule import Rule, Ruled, matching
from finetune_trainer.contract.scalar import DnsLabel, ObjectName


class ResourceClaim(Ruled):
    """A ResourceClaim of the pod, for dynamic resource allocation."""

    rules: ClassVar = (
        Rule(
            cel="has(self.resourceClaimName) != has(self.resourceClaimTemplateName)",
            holds=lambda item: (item.resource_claim_name is None) is not (item.resource_claim_template_name is None),
            message="a claim has either resourceClaimName or resourceClaimTemplateName: give one of them",
        ),
    )

    name: DnsLabel = Field(description="Name of the claim within the pod. Example: gpu.")
    resource_claim_name: ObjectName | None = Field(
        None, description="ResourceClaim of this namespace, shared by all pods. Default: none. Example: shared-gpu."
    )
    resource_claim_template_name: ObjectName | None = Field(
        None,
        description="ResourceClaimTemplate of this namespace: each pod gets a claim of its own. Default: none. "
        "Example: one-h100.",
    )
    gpus: bool = Field(
        default=False,
        description="Whether this claim brings the pod's GPUs. Then gpuResource is not requested. Default: false.",
    )


class PreflightResources(Ruled):
    """What the preflight pod asks for."""

    rules = (CPU_LIMIT,)

    cpu: Cores = Field("100m", description="CPU request, in cores. Default: 100m. Example: 500m.")
    cpu_limit: Cores | None = Field(
        None,
        description='CPU limit, in cores. A ResourceQuota on limits.cpu demands one. Default: none. Example: "1".',
    )
    memory: Memory = Field(
        "1Gi",
        description="Memory limit. The request is 128Mi, or the limit if that is less. Default: 1Gi. Example: 2Gi.",
    )


class Resources(Ruled):
    """What one training pod asks for."""

    rules = (CPU_LIMIT,)

    gpus: int = Field(
        1,
        ge=0,
        le=16,
        description="GPUs of one pod. Each has a process of its own, and they share every optimizer step. Each "
        "process has the whole model, unless model.sharding divides it. With model.deviceMap one "
        "process uses all GPUs. 0 trains on the CPU. Default: 1.",
    )
    gpu_resource: Annotated[
        str,
        Field(max_length=128),
        matching("^[a-z0-9.-]+/[a-zA-Z0-9._-]+$", "must be an extended resource such as nvidia.com/gpu"),
    ] = Field("nvidia.com/gpu", description="Extended resource that stands for a GPU. Default: nvidia.com/gpu.")
    gpu_memory: Quantity | None = Field(
        None,
        description="Memory of one GPU. Preflight refuses a training that cannot fit. Default: taken from "
        "well-known node labels in scheduling (nvidia.com/gpu.memory, nvidia.com/gpu.product, "
        "cloud.google.com/gke-accelerator, karpenter.k8s.aws/instance-gpu-memory), otherwise unknown. "
        "Example: 24Gi.",
    )
    nodes: int = Field(
        1,
        ge=1,
        le=64,
        description="Pods that train together and share every optimizer step, each on its own node with `gpus` "
        "GPUs. Kubernetes starts each pod as soon as it fits. Default: 1.",
    )
    cpu: Cores = Field(
        "1", description='CPU request of the training pod, in cores, above 0. Default: "1". Example: "4".'
    )
    cpu_limit: Cores | None = Field(
        None,
        description="CPU limit of the training pod, in cores. A ResourceQuota on limits.cpu demands one. Default: "
        'none. Example: "8".',
    )
    memory: Memory | None = Field(
        None,
        description="Memory request and limit of the training pod, at least 64Mi. Default: a request of 4Gi and no "
        "limit. Example: 32Gi.",
    )
    ephemeral_storage: Quantity | None = Field(
        None,
        description="Disk for model, data and checkpoints: request and limit. Default: none. Example: 50Gi.",
    )
    shared_memory: Quantity = Field("1Gi", description="Size of /dev/shm. Default: 1Gi.")
    claims: Annotated[list[ResourceClaim], Field(max_length=8), AfterValidator(distinct_names("claims"))] | None = (
        Field(
            None,
            description="ResourceClaims of the training pods, for dynamic resource allocation. Default: none. "
            "Example: [{name: gpu, resourceClaimTemplateName: one-h100, gpus: true}].",
            json_schema_extra=NAMED_LIST,
        )
    )
