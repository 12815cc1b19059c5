"""A real Kubernetes cluster on one Linux machine without Docker, for tests, demo and benchmarks.

    from localcluster import Target, levers, up, down

    cluster = up(nodes=2, gpus=1)      # idempotent; seconds once the programs are built
    levers.kill_container(cluster, "default", "some-pod")
    down()                             # leaves nothing, and checks it

Tests that must also run on the cluster of KUBECONFIG use `Target.current()`.
"""

from localcluster import levers
from localcluster.audit import AuditLog, Write
from localcluster.cluster import LocalCluster, down, find, up
from localcluster.errors import ClusterError, UnsupportedError
from localcluster.kubectl import Kubectl
from localcluster.leftovers import leftovers
from localcluster.records import S3, Keys, Node
from localcluster.target import Target

__all__ = [
    "S3",
    "AuditLog",
    "ClusterError",
    "Keys",
    "Kubectl",
    "LocalCluster",
    "Node",
    "Target",
    "UnsupportedError",
    "Write",
    "down",
    "find",
    "leftovers",
    "levers",
    "up",
]
