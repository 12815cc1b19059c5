"""A client of the S3 server beside a cluster, from this machine."""

from typing import Any

from localcluster import S3


def s3_client(s3: S3) -> Any:
    """A client with all rights, from this machine."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=s3.endpoint,
        region_name=s3.region,
        aws_access_key_id=s3.admin.access_key,
        aws_secret_access_key=s3.admin.secret_key,
        # Over half a minute: a port-forward that drops takes seconds to come back on a busy machine. The mode
        # "standard" would give up before, by its quota: the threads of one upload share 50 attempts.
        config=Config(s3={"addressing_style": "path"}, retries={"mode": "legacy", "total_max_attempts": 8}),
    )


def keys_under(client: Any, bucket: str, prefix: str) -> list[str]:
    """Keys of all objects under a prefix."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]
