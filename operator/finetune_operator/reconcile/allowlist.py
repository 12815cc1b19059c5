"""Names of environment variables and annotations that a job may add to its pods.

An allow-list, because nobody knows all dangerous names. A variable can name a file whose code a library runs
(OPENSSL_CONF, GCONV_PATH, NCCL_NET_PLUGIN), and an annotation can turn a sandbox off or a mesh on. The administrator
can extend both lists.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AllowList:
    """Names that are allowed. A name that ends in `*` allows every name with that prefix.

    Attributes:
        patterns: the names.
    """

    patterns: tuple[str, ...]

    def __contains__(self, name: str) -> bool:
        """Whether the name is allowed."""
        return any(name.startswith(one[:-1]) if one.endswith("*") else name == one for one in self.patterns)

    def plus(self, more: Iterable[str]) -> "AllowList":
        """The list with the administrator's additions."""
        return AllowList((*self.patterns, *more))


_PROXIES = "HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY http_proxy https_proxy no_proxy all_proxy"
_COMMUNICATION = """
NCCL_ALGO NCCL_BUFFSIZE NCCL_COMM_BLOCKING NCCL_CROSS_NIC NCCL_CUMEM_ENABLE NCCL_DEBUG NCCL_DEBUG_SUBSYS
NCCL_DMABUF_ENABLE NCCL_IB_* NCCL_MAX_* NCCL_MIN_* NCCL_NET NCCL_NET_GDR_* NCCL_NSOCKS_PERTHREAD NCCL_NTHREADS
NCCL_NVLS_ENABLE NCCL_P2P_* NCCL_PROTO NCCL_SHM_DISABLE NCCL_SOCKET_* NCCL_TIMEOUT GLOO_SOCKET_IFNAME
TORCH_NCCL_ASYNC_ERROR_HANDLING TORCH_NCCL_BLOCKING_WAIT FI_EFA_* FI_PROVIDER
"""
"""Settings of NCCL, gloo and libfabric, except those that name a file or a plugin."""
_TORCH = (
    "CUDA_LAUNCH_BLOCKING PYTORCH_ALLOC_CONF PYTORCH_CUDA_ALLOC_CONF TORCH_DISTRIBUTED_DEBUG TOKENIZERS_PARALLELISM"
)
_LOCALE = "TZ LANG LC_ALL"

ENVIRONMENT = AllowList(tuple(f"{_PROXIES} {_COMMUNICATION} {_TORCH} {_LOCALE}".split()))
"""Variables that a job may set by default."""

ANNOTATIONS = AllowList(
    ("cluster-autoscaler.kubernetes.io/safe-to-evict", "karpenter.sh/do-not-disrupt", "prometheus.io/*")
)
"""Annotations that a job may set by default."""
