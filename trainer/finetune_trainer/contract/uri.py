"""The places that models, data and adapters come from and go to.

One pattern and one message per use; `parse_uri` is the only reader. A path may not climb (`..`) nor hold
control characters.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_trainer.contract.rule import matching
from finetune_trainer.contract.scalar import PLAIN
from finetune_trainer.contract.text import CONTROL


class Scheme(StrEnum):
    """Where a URI points."""

    HF = "hf"
    S3 = "s3"
    PVC = "pvc"
    FILE = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Uri:
    """A parsed URI.

    Attributes:
        scheme: where it points.
        authority: the bucket (s3), the claim (pvc), `org/name` (hf); empty for file.
        path: the key or the path, without a leading slash except for file (absolute).
    """

    scheme: Scheme
    authority: str
    path: str

    def __str__(self) -> str:
        if self.scheme is Scheme.FILE:
            return f"file://{self.path}"
        return f"{self.scheme}://{self.authority}" + (f"/{self.path}" if self.path else "")

    def child(self, *parts: str) -> "Uri":
        """This place extended by path segments."""
        path = "/".join([self.path.rstrip("/"), *parts] if self.path else parts)
        return Uri(scheme=self.scheme, authority=self.authority, path=path)


_BUCKET = "[a-z0-9]([a-z0-9.-]*[a-z0-9])?"
_CLAIM = "[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
_REPO = "[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*"


def parse_uri(text: str) -> Uri:
    """Parses a URI that its field's pattern has accepted.

    Raises:
        ValueError: on an unknown scheme, a path that climbs, or control characters; the message names the text.
    """
    if CONTROL.search(text):
        raise ValueError(f"{text!r} must not hold control characters")
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in list(Scheme):
        raise ValueError(f"{text!r} is not a URI of hf://, s3://, pvc:// or file://")
    if ".." in rest.split("/"):
        raise ValueError(f"{text!r} must not hold '..'")
    if scheme == Scheme.FILE:
        return Uri(scheme=Scheme.FILE, authority="", path=rest)
    if scheme == Scheme.HF:
        return Uri(scheme=Scheme.HF, authority=rest, path="")
    authority, _, path = rest.partition("/")
    return Uri(scheme=Scheme(scheme), authority=authority, path=path)


def scheme_of(text: str | None) -> Scheme | None:
    """The scheme of a URI; None when there is no URI."""
    return None if text is None else parse_uri(text).scheme


_NO_CLIMBING = matching("://(.*/)?[.][.](/|$)", "must not hold '..': write the path without it", negated=True)

_BUCKET_NAME = matching(
    "^s3://([^/]{1,2}|[^/]{64,})(/|$)",
    "a bucket's name has 3 to 63 characters: write the name of a bucket after s3://",
    negated=True,
)

HubRevision = Annotated[str, PLAIN, Field(min_length=1, max_length=128)]
"""Branch, tag or commit of a Hub repository."""
ModelUri = Annotated[
    str,
    matching(
        f"^(hf://{_REPO}|s3://{_BUCKET}/.+|pvc://{_CLAIM}/.+|file:///.+)$",
        "must be hf://org/name, s3://bucket/prefix or pvc://claim/path (file:///path in a local run)",
    ),
    _BUCKET_NAME,
    _NO_CLIMBING,
    PLAIN,
    Field(max_length=1024),
]
DatasetUri = Annotated[
    str,
    matching(
        f"^(s3://{_BUCKET}/.+|pvc://{_CLAIM}/.+|file:///.+)$",
        "must be s3://bucket/key or pvc://claim/path (file:///path in a local run)",
    ),
    _BUCKET_NAME,
    _NO_CLIMBING,
    PLAIN,
    Field(max_length=1024),
]
CacheUri = Annotated[
    str,
    matching(
        f"^(pvc://{_CLAIM}(/.*)?|file:///.+)$",
        "must be pvc://claim or pvc://claim/path (file:///path in a local run)",
    ),
    _NO_CLIMBING,
    PLAIN,
    Field(max_length=1024),
]
OutputUri = Annotated[
    str,
    matching(
        f"^(s3://{_BUCKET}(/.*)?|file:///.+)$",
        "must be s3://bucket/prefix (file:///path in a local run)",
    ),
    _BUCKET_NAME,
    _NO_CLIMBING,
    PLAIN,
    Field(max_length=1024),
]
