"""Kueue's part of the spec: queues, priority and topology, and the keys by which a Job tells Kueue of them.

Kueue manages a child Job that carries its queue label, because it does not know the Job's owner: it suspends the Job,
keeps a Workload object for it, and lets it run when there is quota.
"""

from typing import Annotated, ClassVar

from pydantic import Field

from finetune_trainer.contract.rule import Rule, Ruled, matching
from finetune_trainer.contract.scalar import DNS_SUBDOMAIN, QUALIFIED_NAME

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
MAX_TIME_LABEL = "kueue.x-k8s.io/max-exec-time-seconds"
REQUIRED_TOPOLOGY = "kueue.x-k8s.io/podset-required-topology"
PREFERRED_TOPOLOGY = "kueue.x-k8s.io/podset-preferred-topology"
JOB_UID_LABEL = "kueue.x-k8s.io/job-uid"
"""On a Workload: the UID of its Job."""

QueueName = Annotated[
    str,
    Field(max_length=63),
    matching(
        DNS_SUBDOMAIN,
        "must be the name of a Kueue object: at most 63 lower-case letters, digits, '-' and '.'",
    ),
]
"""Name of a LocalQueue or of a WorkloadPriorityClass. It becomes a label's value, hence its length."""

NodeLabel = Annotated[
    str,
    Field(max_length=317),
    matching(
        QUALIFIED_NAME,
        "must be the key of a node label, for example cloud.provider.com/topology-rack",
    ),
]


class Topology(Ruled):
    """How close to each other the pods of a training run, by the levels of a Kueue Topology."""

    rules: ClassVar = (
        Rule(
            cel="has(self.required) != has(self.preferred)",
            holds=lambda item: (item.required is None) is not (item.preferred is None),
            message="a topology is either required or preferred: give one of them",
        ),
    )

    required: NodeLabel | None = Field(
        None,
        description="Node label of the level within which all pods must run. Default: none. "
        "Example: cloud.provider.com/topology-rack.",
    )
    preferred: NodeLabel | None = Field(
        None,
        description="Node label of the level within which the pods run if they fit. Default: none. "
        "Example: cloud.provider.com/topology-block.",
    )
