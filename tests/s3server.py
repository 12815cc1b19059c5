"""A real S3 server (SeaweedFS) for tests, with access keys and a read-only identity, and without automatic buckets.

It counts as ready after a PUT and a GET of an object, because it answers long before it can store one. It is ended with
SIGKILL, because after SIGTERM it needs half a minute.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from finetune_trainer.contract.recipe.output import StorageSpec
from finetune_trainer.storage.credentials import Credentials
from localcluster import seaweedfs
from localcluster.records import Keys

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET = "data"
_READY_SECONDS = 60


@dataclass(frozen=True)
class S3Server:
    """A running server with one bucket, `data`."""

    endpoint: str
    admin: Keys
    reader: Keys
    process: "subprocess.Popen[bytes]"
    config: Path

    @property
    def spec(self) -> StorageSpec:
        return StorageSpec(endpoint=self.endpoint)

    def client(self, keys: Keys | None = None) -> "S3Client":
        """Returns a plain boto3 client, by default the administrator's, for preparing and inspecting objects."""
        keys = keys or self.admin
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=seaweedfs.REGION,
            aws_access_key_id=keys.access_key,
            aws_secret_access_key=keys.secret_key,
            config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, read_timeout=20),
        )

    def put(self, key: str, content: bytes, bucket: str = BUCKET) -> None:
        self.client().put_object(Bucket=bucket, Key=key, Body=content)

    def get(self, key: str, bucket: str = BUCKET) -> bytes:
        return self.client().get_object(Bucket=bucket, Key=key)["Body"].read()

    def keys(self, prefix: str = "", bucket: str = BUCKET) -> list[str]:
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def let_in(self, *others: Keys) -> None:
        """Accepts these keys, those of the administrator and of the reader, and no others. Returns when this holds."""
        before = json.loads(self.config.read_text())["identities"]
        self.config.write_text(seaweedfs.identities(self.admin, self.reader, *others))
        self.process.send_signal(signal.SIGHUP)
        was = {item["accessKey"] for identity in before for item in identity["credentials"]}
        gone = was - {keys.access_key for keys in (self.admin, self.reader, *others)}
        _wait(lambda: all(map(self._lets_in, others)) and not any(self._lets_in(Keys(key, "")) for key in gone))

    def _lets_in(self, keys: Keys) -> bool:
        try:
            self.client(keys).list_buckets()
        except ClientError as error:
            return error.response["Error"]["Code"] != "InvalidAccessKeyId"
        return True

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def mount(directory: Path, keys: Keys) -> Credentials:
    """Writes the keys to a folder as Kubernetes mounts a Secret."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "AWS_ACCESS_KEY_ID").write_text(keys.access_key)
    (directory / "AWS_SECRET_ACCESS_KEY").write_text(keys.secret_key + "\n")
    return Credentials(directory)


@contextmanager
def running() -> Iterator[S3Server]:
    """Runs a server. At the end, kills it and removes its data."""
    root = Path(tempfile.mkdtemp(prefix="s3-"))
    try:
        server = _start(root)
        try:
            _wait_ready(server, root / "log")
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _start(root: Path) -> S3Server:
    admin, reader = seaweedfs.new_keys(), seaweedfs.new_keys()
    config = root / "s3.json"
    config.write_text(seaweedfs.identities(admin, reader))
    (root / "data").mkdir()
    (root / "tmp").mkdir()
    master, volume, filer, s3 = _free_ports(4)
    ports = seaweedfs.Ports(s3=s3, s3_grpc=s3 + seaweedfs.GRPC_GAP, master=master, volume=volume, filer=filer)
    weed = Path(sysconfig.get_path("scripts")) / "weed"
    told = seaweedfs.arguments(data=root / "data", config=config, address=seaweedfs.LOOPBACK, ports=ports)
    environment = {**os.environ, **seaweedfs.ENVIRONMENT, "TMPDIR": str(root / "tmp")}
    with (root / "log").open("wb") as log:
        process = subprocess.Popen([str(weed), *told], stdout=log, stderr=log, env=environment, start_new_session=True)
    return S3Server(f"http://{seaweedfs.LOOPBACK}:{s3}", admin, reader, process, config)


def _wait(test: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not test():
        if time.monotonic() > deadline:
            raise RuntimeError("the S3 server did not take up its new keys")
        time.sleep(0.05)


def _wait_ready(server: S3Server, log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            if BUCKET not in [item["Name"] for item in server.client().list_buckets()["Buckets"]]:
                server.client().create_bucket(Bucket=BUCKET)
            server.put("ready", b"ready")
            if server.get("ready") == b"ready":
                server.client().delete_object(Bucket=BUCKET, Key="ready")
                return
        except (BotoCoreError, ClientError) as error:
            if server.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the S3 server does not start: {error}\n{log.read_text()[-2000:]}") from error
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    """Returns ports that are free, with free ports 10000 above them for gRPC."""
    ports: list[int] = []
    for port in range(20000 + secrets.randbelow(20000), 50000):
        if len(ports) < count and _is_free(port) and _is_free(port + seaweedfs.GRPC_GAP):
            ports.append(port)
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((seaweedfs.LOOPBACK, port))
        except OSError:
            return False
    return True
