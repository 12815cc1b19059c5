"""Fake GPUs: capacity in the node's status. The scheduler looks at nothing else.

The kubelet's heartbeats keep the capacity, but its restart removes it. `levers.return_node` sets it again.
"""

from __future__ import annotations

import json

from localcluster.kubectl import Kubectl

RESOURCE = "nvidia.com/gpu"


def set_gpus(kubectl: Kubectl, node: str, count: int, *, resource: str = RESOURCE) -> None:
    """Sets the node's number of GPUs. 0 removes them."""
    key = resource.replace("~", "~0").replace("/", "~1")
    patch = [
        {"op": "add", "path": f"/status/{field}/{key}", "value": str(count)} for field in ("capacity", "allocatable")
    ]
    kubectl("patch", "node", node, "--subresource=status", "--type=json", "-p", json.dumps(patch))
