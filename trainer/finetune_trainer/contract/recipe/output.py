"""The sections `output` and `storage`: the place of the adapter, and the access to object storage."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_trainer.contract.rule import matching
from finetune_trainer.contract.scalar import PLAIN, PLAIN_LINES, ObjectName
from finetune_trainer.contract.uri import OutputUri
from finetune_trainer.contract.wire import Wire


class OnExisting(StrEnum):
    """The response when the adapter of this run exists already."""

    REUSE = "Reuse"
    FAIL = "Fail"
    REPLACE = "Replace"


class Merged(StrEnum):
    """Whether the merged model, base model and adapter in one, is written as well."""

    NONE = "none"
    BF16 = "bf16"


class DeletionPolicy(StrEnum):
    """What happens to the adapter when the job is deleted."""

    RETAIN = "Retain"


class OutputSpec(Wire):
    """The place of the adapter."""

    uri: OutputUri = Field(
        description="Prefix for the adapter, which goes to NAME/FINGERPRINT/ATTEMPT-WRITER/ below it. Example: "
        "s3://models/adapters."
    )
    on_existing: OnExisting = Field(
        OnExisting.REUSE,
        description="When an adapter of the same run (same fingerprint) exists: Reuse it without training, Fail, or "
        "Replace it. Default: Reuse.",
    )
    merged: Merged = Field(
        Merged.NONE,
        description="Also write the whole model with the adapter in it, as ATTEMPT-WRITER-merged/: none, or bf16. "
        "bf16 takes 2 bytes per weight on the pod's disk and in the output. Default: none.",
    )
    deletion_policy: DeletionPolicy = Field(
        DeletionPolicy.RETAIN,
        description="What happens to the adapter when the job is deleted: Retain keeps it. Default: Retain.",
    )


class AddressingStyle(StrEnum):
    """Where a request's URL has the bucket: in the path, or in the host name (virtual)."""

    AUTO = "auto"
    PATH = "path"
    VIRTUAL = "virtual"


class Checksums(StrEnum):
    """When requests have the SDK's checksums."""

    WHEN_SUPPORTED = "whenSupported"
    WHEN_REQUIRED = "whenRequired"


class SecretRef(Wire):
    """A Secret in the job's namespace. The Secret is mounted; the operator never reads it."""

    name: ObjectName = Field(description="Name of the Secret. Example: s3-credentials.")


class StorageSpec(Wire):
    """The access to object storage. Without a Secret the pod's own identity is used.

    The section may be changed at any time. A change takes effect from the next attempt on.
    """

    secret_ref: SecretRef | None = Field(
        None,
        description="Secret of this namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and "
        "AWS_SESSION_TOKEN for temporary keys). Default: the pod's own identity (IRSA, workload "
        "identity).",
    )
    endpoint: (
        Annotated[
            str,
            Field(max_length=512),
            matching(
                "^https?://[^/ ]+$",
                "must be http://host[:port] or https://host[:port], without a path",
            ),
            matching(
                "@",
                "must not hold a user or password: put the keys into a Secret, and name it in storage.secretRef",
                negated=True,
            ),
            PLAIN,
        ]
        | None
    ) = Field(
        None,
        description="URL of an S3-compatible server. Default: AWS. Example: https://minio.storage:9000.",
    )
    region: (
        Annotated[
            str,
            Field(max_length=64),
            matching("^[a-z0-9-]+$", "must be a region name such as eu-west-1"),
        ]
        | None
    ) = Field(None, description="Region of the buckets. Default: us-east-1. Example: eu-west-1.")
    addressing_style: AddressingStyle = Field(
        AddressingStyle.AUTO,
        description="Where the bucket is in the URL: path, virtual (in the host name) or auto (path when endpoint "
        "is set). Default: auto.",
    )
    checksums: Checksums = Field(
        Checksums.WHEN_SUPPORTED,
        description="When requests have checksums: whenSupported, or whenRequired for older S3-compatible servers. "
        "Default: whenSupported.",
    )
    ca_bundle: Annotated[str, Field(min_length=1, max_length=32_768), PLAIN_LINES] | None = Field(
        None,
        description="PEM certificates that verify the endpoint's certificate. Default: the system's.",
    )
