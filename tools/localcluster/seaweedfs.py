"""SeaweedFS, the S3 server of every test: with access keys and a read-only identity, and without automatic buckets.

One program is master, volume server, filer and S3 gateway. The first three listen on loopback, and S3 where its clients
are. The server counts as ready after a PUT and a GET of an object. It answers long before it can store one, and after a
crash it may answer 500 for seconds.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from localcluster.errors import ClusterError
from localcluster.records import S3, Keys
from localcluster.waiting import wait_for

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

REGION = "us-east-1"
LOOPBACK = "127.0.0.1"
GRPC_GAP = 10000
"""How far above each HTTP port it serves gRPC."""
ENVIRONMENT = {"GOMEMLIMIT": "256MiB"}
_PROBE_BUCKET = "localcluster-probe"


@dataclass(frozen=True)
class Ports:
    """The ports of the parts. The defaults are SeaweedFS's own, for a network that nobody shares."""

    s3: int = 8333
    s3_grpc: int = 18333
    master: int = 9333
    volume: int = 8080
    filer: int = 8888


def arguments(*, data: PurePath, config: PurePath, address: str, ports: Ports) -> list[str]:
    """Returns the command line after the program's name.

    Args:
        data: the folder of the data.
        config: the file with `identities`.
        ports: the ports of the parts.
        address: the address on which S3 listens.
    """
    return [
        "-logtostderr=true",
        "server",
        f"-dir={data}",
        f"-ip={LOOPBACK}",
        f"-ip.bind={LOOPBACK}",
        f"-master.port={ports.master}",
        f"-volume.port={ports.volume}",
        "-filer",
        f"-filer.port={ports.filer}",
        "-s3",
        f"-s3.port={ports.s3}",
        f"-s3.port.grpc={ports.s3_grpc}",
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


def identities(admin: Keys, reader: Keys, *others: Keys) -> str:
    """Returns the content of the configuration with the identities. All but the reader may do everything."""
    everything = _identity("admin", admin, "Admin", "Read", "Write", "List", "Tagging")
    identities = [everything, _identity("reader", reader, "Read", "List")]
    identities += [_identity(f"other-{number}", keys, "Admin") for number, keys in enumerate(others)]
    return json.dumps({"identities": identities})


def new_keys() -> Keys:
    """Returns new access keys for one identity."""
    return Keys(f"LC{secrets.token_hex(9).upper()}", secrets.token_hex(20))


def wait_ready(s3: S3, must_run: Callable[[], None] = lambda: None) -> None:
    """Waits until an object was written and read back from this machine.

    `must_run` is called before each attempt. It raises when the server has ended.
    """
    connection = client(s3)
    last = ""

    def works() -> bool:
        nonlocal last
        must_run()
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
    """Returns a boto3 client of this machine for one identity, by default the administrator."""
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


def _identity(name: str, keys: Keys, *actions: str) -> dict[str, object]:
    credentials = [{"accessKey": keys.access_key, "secretKey": keys.secret_key}]
    return {"name": name, "credentials": credentials, "actions": actions}
