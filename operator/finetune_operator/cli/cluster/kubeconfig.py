"""Connects to the cluster of a kubeconfig, as kubectl finds it."""

import difflib
import os
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import ConfigException, list_kube_config_contexts, load_kube_config

from finetune_operator.cli.cluster.client import Cluster
from finetune_operator.cli.errors import CommandError, Exit
from finetune_trainer.contract.version import __version__

_DEFAULT = "~/.kube/config"


def connect(*, namespace: str | None = None, context: str | None = None, kubeconfig: str | None = None) -> Cluster:
    """A client for the cluster of the context. It has sent nothing yet.

    Args:
        namespace: the namespace to use; None for that of the context.
        context: name of a context; None for the current one.
        kubeconfig: the file; None for KUBECONFIG, which may name several, or ~/.kube/config.

    Raises:
        CommandError: there is no kubeconfig or no such context, or its credentials cannot be had.
    """
    files = kubeconfig or os.environ.get("KUBECONFIG") or _DEFAULT
    if not any(Path(file).expanduser().is_file() for file in files.split(os.pathsep) if file):
        raise CommandError(f"no kubeconfig: {files} is not there; name one with --kubeconfig or KUBECONFIG", Exit.USAGE)
    configuration = Configuration()
    configuration.retries = False  # the client would ask again in silence; a user should hear it
    try:
        contexts, current = list_kube_config_contexts(files)
        active = _context(contexts, current, context, files)
        load_kube_config(files, context=active["name"], client_configuration=configuration, persist_config=False)
    except (ConfigException, OSError, yaml.YAMLError, ValueError, TypeError, KeyError) as error:
        raise CommandError(f"the kubeconfig {files} cannot be used: {' '.join(str(error).split())}") from None
    client = ApiClient(configuration)
    client.user_agent = f"kubectl-finetune/{__version__}"
    return Cluster(
        client,
        namespace=namespace or active["context"].get("namespace") or "default",
        context=active["name"],
        server=configuration.host,
    )


def _context(contexts: list[dict[str, Any]], current: object, wanted: str | None, files: str) -> dict[str, Any]:
    """The context of that name, or the current one.

    Raises:
        CommandError: there is none.
    """
    by_name = {str(item["name"]): item for item in contexts}
    if wanted is None and isinstance(current, dict):
        wanted = str(current["name"])
    if wanted in by_name:
        return by_name[wanted]
    near = difflib.get_close_matches(wanted or "", by_name) or sorted(by_name)
    raise CommandError(
        f"the kubeconfig {files} has no context {wanted}; it has {', '.join(near[:10]) or 'none'}", Exit.USAGE
    )
