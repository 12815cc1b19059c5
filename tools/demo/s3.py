"""A client on this machine for the cluster's S3 server."""

from typing import Any

from localcluster import S3


def s3_client(s3: S3) -> Any:
    """Returns a client of the administrator's identity."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=s3.endpoint,
        region_name=s3.region,
        aws_access_key_id=s3.admin.access_key,
        aws_secret_access_key=s3.admin.secret_key,
        # Retries of over half a minute: on a busy machine, a port-forward needs seconds to start again. The mode
        # "standard" gives up earlier, because all threads of one upload share a quota of 50 attempts.
        config=Config(s3={"addressing_style": "path"}, retries={"mode": "legacy", "total_max_attempts": 8}),
    )


def keys_under(client: Any, bucket: str, prefix: str) -> list[str]:
    """Returns the keys of all objects under a prefix."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]
