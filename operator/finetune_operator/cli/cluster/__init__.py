"""The cluster of the user's kubeconfig, with the user's own rights and nothing else."""

from finetune_operator.cli.cluster.client import Cluster
from finetune_operator.cli.cluster.failures import ClusterError
from finetune_operator.cli.errors import CommandError, Exit

__all__ = ["Cluster", "ClusterError", "connect"]


def connect(*, namespace: str | None = None, context: str | None = None, kubeconfig: str | None = None) -> Cluster:
    """A client for the cluster of a context; see `kubeconfig.connect`.

    Raises:
        CommandError: there is no usable kubeconfig, or the Kubernetes client is not installed.
    """
    try:
        from finetune_operator.cli.cluster import kubeconfig as kubeconfigs
    except ModuleNotFoundError as error:
        missing = (error.name or "kubernetes").split(".")[0]
        said = f"{missing} is not installed: pip install '.[cli]' in a checkout of finetune-operator"
        raise CommandError(said, Exit.USAGE) from None
    return kubeconfigs.connect(namespace=namespace, context=context, kubeconfig=kubeconfig)
