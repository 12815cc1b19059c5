"""The operator's process, outside of a pod but with the environment and the token that its Deployment gives it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from deploy.rendering import ROOT, Manifest
from deploy.server import Server
from localcluster.ports import choose

PACKAGES = ("operator", "trainer")
"""The folders of a checkout that the operator's process imports from."""

_METRICS_PORTS = 1000
"""How far the metrics' port is from the server's: outside of pods, operators share an address."""


@contextmanager
def operator(
    server: Server, deployment: Manifest, folder: Path, *, port: int = 18080, code: Path = ROOT
) -> Iterator[tuple["subprocess.Popen[bytes]", str, Path]]:
    """The process, the address of its HTTP server, and the file with its log.

    Args:
        server: the cluster.
        deployment: has the environment and the account.
        folder: for kubeconfig and log; made if it is not there.
        port: the first one to try; operators that start together need different ones.
        code: the checkout whose operator runs; this one by default.
    """
    namespace, pod = deployment["metadata"]["namespace"], deployment["spec"]["template"]["spec"]
    folder.mkdir(exist_ok=True)
    kubeconfig_of(server, pod["serviceAccountName"], namespace, folder / "kubeconfig")
    port = choose("127.0.0.1", port)
    [container] = pod["containers"]
    environment = {item["name"]: item["value"] for item in container["env"] if "value" in item} | {
        "POD_NAMESPACE": namespace,
        "POD_NAME": f"{deployment['metadata']['name']}-0",
        "KUBECONFIG": str(folder / "kubeconfig"),
        "FINETUNE_HTTP_HOST": "127.0.0.1",
        "FINETUNE_HTTP_PORT": str(port),
        "FINETUNE_METRICS_PORT": str(choose("127.0.0.1", port + _METRICS_PORTS)),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(str(code / part) for part in PACKAGES),
    }
    log = folder / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen([sys.executable, "-m", "finetune_operator"], env=environment, stderr=stream)
        try:
            yield process, f"http://127.0.0.1:{port}", log
        except Exception as error:
            error.add_note(log.read_text()[-4000:])
            raise
        finally:
            process.kill()
            process.wait()


def kubeconfig_of(server: Server, account: str, namespace: str, path: Path) -> None:
    """Writes a kubeconfig with a token of a ServiceAccount."""
    kubeconfig = yaml.safe_load(server.kubeconfig.read_text())
    token = server.kubectl("create", "token", account, f"--namespace={namespace}").strip()
    for user in kubeconfig["users"]:
        user["user"] = {"token": token}
    path.write_text(json.dumps(kubeconfig))
