"""What unit tests share: one real S3 server for all of them."""

from collections.abc import Iterator

import pytest

import s3server


@pytest.fixture(scope="session")
def s3() -> Iterator[s3server.S3Server]:
    """A running S3 server; tests keep apart by their keys' prefixes."""
    with s3server.running() as server:
        yield server
