"""Endpoints that would turn the trainer into a way to read instance metadata."""

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.storage.endpoint import check_endpoint


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://169.254.169.254",
        "http://169.254.170.2:80",
        "http://2852039166",
        "http://0xa9fea9fe",
        "http://[fe80::1]",
        "http://[::ffff:169.254.169.254]",
        "http://[::169.254.169.254]",
        "http://[64:ff9b::a9fe:a9fe]",
        "http://[64:ff9b:1::a9fe:a9fe]",
        "http://[2002:a9fe:a9fe::1]",
        "http://[::ffff:168.63.129.16]",
        "http://[64:ff9b::100.100.100.200]",
        "http://[fd00:ec2::254]",
        "http://metadata.google.internal",
        "http://METADATA",
        "http://100.100.100.200",
        "http://168.63.129.16",
        "http://0.0.0.0",
        "http://224.0.0.1",
        "http://user:secret@minio:9000",
        "http://minio:port",
        "ftp://minio",
    ],
)
def test_refused(endpoint: str) -> None:
    with pytest.raises(TrainerError, match=r"storage\.endpoint") as raised:
        check_endpoint(endpoint)
    assert raised.value.reason is FailureReason.INVALID_SPEC
    assert "secret" not in raised.value.message.replace("secretRef", "")


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:9000",
        "https://10.0.0.5",
        "http://minio.invalid:9000",
        "http://[::1]:9000",
        "http://[64:ff9b::8.8.8.8]",
    ],
)
def test_accepted(endpoint: str) -> None:
    check_endpoint(endpoint)
