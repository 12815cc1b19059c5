"""`kubectl finetune watch`: follows a job to its end."""

from finetune_operator.cli.cluster import connect
from finetune_operator.cli.options import Context, Kubeconfig, Name, Namespace, Timeout
from finetune_operator.cli.waiting import Deadline, await_end, report_end


def watch(
    name: Name,
    *,
    timeout: Timeout = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> int:
    """Follow a job to its end: bar, loss, time left, what it waits for. Ctrl-C leaves the job as it is."""
    deadline = Deadline(timeout)
    cluster = connect(namespace=namespace, context=context, kubeconfig=kubeconfig)
    return report_end(await_end(cluster, name, deadline))
