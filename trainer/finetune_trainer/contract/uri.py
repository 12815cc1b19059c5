"""URIs of models, data and adapters.

Each use has one type with its pattern and message, and `parse_uri` is the only parser. A path may have neither `..` nor
control characters. A pydantic field of one of these types has the parsed `Uri` as its value, and the original text as
its JSON.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from finetune_trainer.contract.rule import Rule, literal, matches, matching
from finetune_trainer.contract.scalar import PLAIN
from finetune_trainer.contract.text import CONTROL


class Scheme(StrEnum):
    """The scheme of a URI: hf is a Hub repository, pvc a PersistentVolumeClaim."""

    HF = "hf"
    S3 = "s3"
    PVC = "pvc"
    FILE = "file"
    HTTPS = "https"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Uri:
    """A parsed URI.

    Attributes:
        scheme: the scheme.
        authority: the bucket (s3), the claim (pvc), the repository (hf: `org/name` of a model, `datasets/org/name` of a
            data set), the host with its port (https); empty for file.
        path: the key or the path, without a leading slash except for file (absolute).
        query: the query of https. It may hold a signature, so no text of the URI shows it.
        written: the original text of a pydantic field's value, which may end in `/`; None for other URIs.
    """

    scheme: Scheme
    authority: str
    path: str
    query: str = ""
    written: str | None = field(default=None, compare=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A string, so that the rules of a field's type check the text. `_Parsed` parses it after the rules."""
        return core_schema.str_schema()

    def __str__(self) -> str:
        if self.scheme is Scheme.FILE:
            return f"file://{self.path}"
        return f"{self.scheme}://{self.authority}" + (f"/{self.path}" if self.path else "")

    @property
    def url(self) -> str:
        """The whole URL of https, with its query."""
        return f"{self}?{self.query}" if self.query else str(self)

    def __repr__(self) -> str:
        return repr(str(self))

    def without_trailing_slash(self) -> "Uri":
        """The URI without trailing slashes: the name of an object instead of a prefix."""
        return Uri(scheme=self.scheme, authority=self.authority, path=self.path.rstrip("/"))

    def child(self, *parts: str) -> "Uri":
        """The URI with path segments appended."""
        path = "/".join([self.path.rstrip("/"), *parts] if self.path else parts)
        return Uri(scheme=self.scheme, authority=self.authority, path=path)


HUB_DATASETS = "datasets"
"""First segment of the URI of a Hub data set. The client's file system (HfFileSystem) has the same form."""
_BUCKET = "[a-z0-9]([a-z0-9.-]*[a-z0-9])?"
_CLAIM = "[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
_REPO = "[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*"


def parse_uri(text: str) -> Uri:
    """Parses a URI that its field's pattern has accepted.

    Raises:
        ValueError: the URI has an unknown scheme, `..` in its path, or control characters; the message has the text.
    """
    if CONTROL.search(text):
        raise ValueError(f"{text!r} must not hold control characters")
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in list(Scheme):
        raise ValueError(f"{text!r} is not a URI of hf://, s3://, pvc://, https:// or file://")
    if ".." in rest.split("/"):
        raise ValueError(f"{text!r} must not hold '..'")
    if scheme == Scheme.FILE:
        return Uri(scheme=Scheme.FILE, authority="", path=rest)
    if scheme == Scheme.HF:
        segments = rest.split("/")
        of_repository = 3 if segments[0] == HUB_DATASETS else 2
        authority, path = "/".join(segments[:of_repository]), "/".join(segments[of_repository:])
        return Uri(scheme=Scheme.HF, authority=authority, path=path)
    rest, _, query = rest.partition("?") if scheme == Scheme.HTTPS else (rest, "", "")
    authority, _, path = rest.partition("/")
    return Uri(scheme=Scheme(scheme), authority=authority, path=path, query=query)


def scheme_of(uri: Uri | None) -> Scheme | None:
    """The scheme of a URI; None when there is no URI."""
    return None if uri is None else uri.scheme


class _Parsed:
    """The last annotation of a type: it parses a text that has passed the rules before it into a `Uri`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        parsed = core_schema.no_info_after_validator_function(_parse_written, handler(source))
        text = core_schema.plain_serializer_function_ser_schema(_written, return_schema=core_schema.str_schema())
        return core_schema.no_info_before_validator_function(_written, parsed, serialization=text)


def _parse_written(text: str) -> Uri:
    return replace(parse_uri(text), written=text)


def _written(value: Any) -> Any:
    """The text of a `Uri`. Any other value is returned unchanged, and the schema of strings checks it."""
    return (value.written or str(value)) if isinstance(value, Uri) else value


_HTTPS_PATTERN = "^https://[A-Za-z0-9][-A-Za-z0-9.]*(:[0-9]{1,5})?/[^# ?]*[^# /?]([?][^# ]*)?$"
_HUB_DATASET_PATTERN = f"^hf://{HUB_DATASETS}/{_REPO}(/.*)?$"
_NO_CLIMBING = matching("://(.*/)?[.][.](/|$)", "must not hold '..': write the path without it", negated=True)

_BUCKET_NAME = matching(
    "^s3://([^/]{1,2}|[^/]{64,})(/|$)",
    "a bucket's name has 3 to 63 characters: write the name of a bucket after s3://",
    negated=True,
)

_HUB_DATASET: Rule[str] = Rule(
    message="data of the Hub is hf://datasets/org/name, hf://datasets/org/name/config, or the path of a file there; "
    "a revision is in dataset.revision",
    holds=lambda value: not value.startswith("hf://") or matches(_HUB_DATASET_PATTERN, value),
    cel=f"!self.startsWith('hf://') || self.matches({literal(_HUB_DATASET_PATTERN)})",
)

_NO_PLAIN_HTTP = matching("^http://", "http:// is not encrypted: use https://, or copy the file to s3://", negated=True)
_HTTPS: Rule[str] = Rule(
    message="data by https is https://host/path of one file, without user name, password and fragment",
    holds=lambda value: not value.startswith("https://") or matches(_HTTPS_PATTERN, value),
    cel=f"!self.startsWith('https://') || self.matches({literal(_HTTPS_PATTERN)})",
)

HubRevision = Annotated[str, Field(min_length=1, max_length=128), PLAIN]
"""Branch, tag or commit of a Hub repository."""
ModelUri = Annotated[
    Uri,
    Field(max_length=1024),
    matching(
        f"^(hf://{_REPO}|s3://{_BUCKET}/.+|pvc://{_CLAIM}/.+|file:///.+)$",
        "must be hf://org/name, s3://bucket/prefix or pvc://claim/path (file:///path in a local run)",
    ),
    _BUCKET_NAME,
    _NO_CLIMBING,
    PLAIN,
    _Parsed(),
]
DatasetUri = Annotated[
    Uri,
    Field(max_length=1024),
    matching(
        f"^(s3://{_BUCKET}/.+|hf://.+|pvc://{_CLAIM}/.+|https?://.+|file:///.+)$",
        "must be s3://bucket/key, hf://datasets/org/name, pvc://claim/path or https://host/path (file:///path in a "
        "local run)",
    ),
    _HUB_DATASET,
    _NO_PLAIN_HTTP,
    _HTTPS,
    _BUCKET_NAME,
    _NO_CLIMBING,
    PLAIN,
    _Parsed(),
]
CacheUri = Annotated[
    Uri,
    Field(max_length=1024),
    matching(
        f"^(pvc://{_CLAIM}(/.*)?|file:///.+)$",
        "must be pvc://claim or pvc://claim/path (file:///path in a local run)",
    ),
    _NO_CLIMBING,
    PLAIN,
    _Parsed(),
]
OutputUri = Annotated[
    Uri,
    Field(max_length=1024),
    matching(
        f"^(s3://{_BUCKET}(/.*)?|file:///.+)$",
        "must be s3://bucket/prefix (file:///path in a local run)",
    ),
    _BUCKET_NAME,
    _NO_CLIMBING,
    PLAIN,
    _Parsed(),
]
