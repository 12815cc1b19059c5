"""Where the adapter goes, and how the object storage is reached."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_trainer.contract.uri import OutputUri
from finetune_trainer.contract.wire import Matching, ObjectName, Wire


class OnExisting(StrEnum):
    """What happens when this very run's adapter is there already."""

    REUSE = "Reuse"
    FAIL = "Fail"
    REPLACE = "Replace"


class Merged(StrEnum):
    """Whether the whole model with the adapter merged in is written as well."""

    NONE = "none"
    BF16 = "bf16"


class DeletionPolicy(StrEnum):
    """What happens to the adapter when the job is deleted."""

    RETAIN = "Retain"


class OutputSpec(Wire):
    """Where the adapter goes."""

    uri: OutputUri = Field(
        description="Prefix under which the adapter is put, as NAME/FINGERPRINT/ATTEMPT-WRITER/. "
        "Example: s3://models/adapters."
    )
    on_existing: OnExisting = Field(
        OnExisting.REUSE,
        description="When an adapter of the same run (same fingerprint) is there: Reuse it without training, Fail, or "
        "Replace it. Default: Reuse.",
    )
    merged: Merged = Field(
        Merged.NONE,
        description="Write the whole model with the adapter in it too, as ATTEMPT-WRITER-merged/: none, or bf16 for "
        "2 bytes a weight on the pod's disk and in the output. Default: none.",
    )
    deletion_policy: DeletionPolicy = Field(
        DeletionPolicy.RETAIN,
        description="What happens to the adapter when the job is deleted. Default: Retain.",
    )


class AddressingStyle(StrEnum):
    """How the bucket stands in the URL."""

    AUTO = "auto"
    PATH = "path"
    VIRTUAL = "virtual"


class Checksums(StrEnum):
    """When requests carry the SDK's checksums."""

    WHEN_SUPPORTED = "whenSupported"
    WHEN_REQUIRED = "whenRequired"


class SecretRef(Wire):
    """A Secret in the job's namespace; it is mounted, never read by the operator."""

    name: ObjectName = Field(description="Name of the Secret. Example: s3-credentials.")


class StorageSpec(Wire):
    """How object storage is reached; without a secret the pod's own identity is used."""

    secret_ref: SecretRef | None = Field(
        None,
        description="Secret of this namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN if "
        "temporary). Default: the pod's identity (IRSA, workload identity).",
    )
    endpoint: (
        Annotated[
            str,
            Matching(
                "^https?://[^/ ]+$",
                "must be http://host[:port] or https://host[:port], without a path",
            ),
            Field(max_length=512),
        ]
        | None
    ) = Field(
        None,
        description="URL of an S3-compatible server. Default: AWS. Example: https://minio.storage:9000.",
    )
    region: (
        Annotated[
            str,
            Matching("^[a-z0-9-]+$", "must be a region name such as eu-west-1"),
            Field(max_length=64),
        ]
        | None
    ) = Field(None, description="Region of the buckets. Default: us-east-1. Example: eu-west-1.")
    addressing_style: AddressingStyle = Field(
        AddressingStyle.AUTO,
        description="Bucket in the path or in the host name: path, virtual or auto (path when endpoint is set). "
        "Default: auto.",
    )
    checksums: Checksums = Field(
        Checksums.WHEN_SUPPORTED,
        description="When requests carry checksums: whenSupported, or whenRequired for older S3-compatible servers. "
        "Default: whenSupported.",
    )
    ca_bundle: Annotated[str, Field(min_length=1, max_length=65_536)] | None = Field(
        None,
        description="PEM certificates that the endpoint's certificate is checked with. Default: the system's.",
    )
