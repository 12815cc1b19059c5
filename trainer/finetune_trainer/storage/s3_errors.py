"""Maps failures of the S3 client to reasons: error codes of the server, and exceptions of the client.

A message gives the operation, the endpoint, the identity without its secret, and the server's answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectionError,  # noqa: A004 (botocore's name)
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
    TokenRetrievalError,
)
from s3transfer.exceptions import RetriesExceededError, S3DownloadFailedError, S3UploadFailedError
from urllib3.exceptions import HTTPError as Urllib3Error
from urllib3.exceptions import NameResolutionError, NewConnectionError, ProtocolError
from urllib3.exceptions import TimeoutError as Urllib3TimeoutError

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.text import printable
from finetune_trainer.storage.base import ObjectNotFoundError, ObjectReplacedError

_WRAPPERS = (Boto3Error, RetriesExceededError, S3DownloadFailedError, S3UploadFailedError)
FAILURES_OF_S3 = (BotoCoreError, ClientError, Urllib3Error, *_WRAPPERS)
"""All exceptions of the client and its transfers for a failed request."""

# Error codes after which other keys may be accepted, with their meaning.
_IDENTITY = {
    "InvalidAccessKeyId": "the access key id is unknown there",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key id",
    "ExpiredToken": "the temporary credentials have expired",
    "ExpiredTokenException": "the temporary credentials have expired",
    "InvalidToken": "the session token is not valid",
    "TokenRefreshRequired": "the temporary credentials have expired",
    "InvalidSecurity": "the credentials are not valid",
    "NotSignedUp": "the account does not use this service",
}
_POLICY = {
    "AccessDenied": "the key is known, but its policy does not allow this",
    "AllAccessDisabled": "all access to the bucket is disabled",
    "AccountProblem": "the account is blocked",
    "InvalidObjectState": "the object is archived (Glacier): restore it, or copy it to the standard storage class",
}
_KMS_PASSES = ("Throttling", "KeyUnavailable", "Internal", "DependencyTimeout", "LimitExceeded")
"""Words in error codes of the key service (KMS) after which the same request may succeed later."""
_ADDRESS = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
_CHECKSUM = {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "InvalidDigest"}
_MISSING = {"NoSuchKey", "NotFound", "404", "NoSuchVersion"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """A request to S3, for messages.

    Attributes:
        operation: a gerund: reading, listing, writing, deleting.
        uri: URI of the object or prefix.
        endpoint: the server, in words.
        identity: the identity, in words.
        secrets: strings that are replaced by *** in text of the server.
        agent: the agent that gives the credentials; None with mounted keys.
    """

    operation: str
    uri: str
    endpoint: str
    identity: str
    secrets: tuple[str, ...] = ()
    agent: str | None = None

    def __str__(self) -> str:
        return f"{self.operation} {self.uri} at {self.endpoint} with {self.identity}"


def error_code(error: BaseException) -> str:
    """Returns the error code of the server's answer.

    For an answer without a body, botocore puts the HTTP status there, such as `403`. For any other exception, returns
    an empty string.
    """
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def http_status(error: BaseException) -> int:
    """Returns the HTTP status of the server's answer, or 0 when there was no answer."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_refused_identity(error: BaseException) -> bool:
    """Returns True when the server may accept other keys, so that the mounted keys are read again."""
    return error_code(error) in _IDENTITY or http_status(error) in (401, 403)


def is_unknown_identity(error: BaseException) -> bool:
    """Whether the server does not know the keys, or does not take them any more; it says so of rotated ones."""
    return error_code(error) in _IDENTITY


def refused_connection(error: BaseException | None) -> TrainerError | None:
    """Returns the error of a connection that `s3_session` refused, which the SDK wraps; None for any other failure."""
    inner = error.kwargs.get("error") if isinstance(error, HTTPClientError) else None
    return inner if isinstance(inner, TrainerError) else None


def translate(error: BaseException, attempted: Attempted) -> TrainerError:
    """Returns the TrainerError, with reason and message, for a failure."""
    if isinstance(error, TrainerError):
        return error
    if (refusal := refused_connection(error)) is not None:
        return refusal
    if isinstance(error, _WRAPPERS):
        cause = getattr(error, "last_exception", None) or error.__cause__ or error.__context__
        if isinstance(cause, FAILURES_OF_S3):
            return translate(cause, attempted)
    if isinstance(error, ClientError):
        return _answered(error, attempted)
    return _unanswered(error, attempted)


def _answered(error: ClientError, attempted: Attempted) -> TrainerError:
    code, status = error_code(error), http_status(error)
    said = _said(error.response.get("Error", {}).get("Message", ""), attempted)
    if code == "NoSuchBucket":
        return TrainerError(FailureReason.STORAGE_NOT_FOUND, f"{attempted}: there is no such bucket")
    if code in _MISSING:
        return ObjectNotFoundError(f"{attempted}: there is no such object")
    if code == "PreconditionFailed" or status == 412:
        return ObjectReplacedError(attempted.uri)
    if _concerns_kms(code, said) and not any(word in code for word in _KMS_PASSES):
        return TrainerError(
            FailureReason.STORAGE_ACCESS_DENIED,
            f"{attempted}: {code}, the encryption key (KMS) cannot be used: it must exist, be enabled and in the "
            f"bucket's region, and the identity needs kms:Decrypt and kms:GenerateDataKey on it{_quoted(said)}",
        )
    if meaning := _IDENTITY.get(code) or _POLICY.get(code):
        return TrainerError(FailureReason.STORAGE_ACCESS_DENIED, f"{attempted}: {code}, {meaning}{_quoted(said)}")
    if status in (401, 403) and code != "RequestTimeTooSkewed":
        return TrainerError(FailureReason.STORAGE_ACCESS_DENIED, f"{attempted}: HTTP {status} {code} {said}".rstrip())
    if code in _ADDRESS:
        headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        region = headers.get("x-amz-bucket-region", "")
        where = f"the bucket is in {region}: set storage.region to it" if region else f"{code} {said}"
        return TrainerError(
            FailureReason.STORAGE_NOT_FOUND, f"{attempted}: wrong region or endpoint for the bucket; {where}"
        )
    if code in _CHECKSUM or code == "NotImplemented" or status == 501:
        return TrainerError(
            FailureReason.NOT_SUPPORTED,
            f"{attempted}: the server answers {code} {said}; it may be too old for the SDK's checksums (try "
            "storage.checksums: whenRequired) or for conditional writes (If-None-Match)",
        )
    if code == "RequestTimeTooSkewed":
        said = "the clocks of this node and the server differ by more than 15 minutes"
    answer = f"{status}" if code == str(status) else f"{status} {code}"  # the answer to HEAD has no body, so no code
    return TrainerError(FailureReason.STORAGE_UNAVAILABLE, f"{attempted}: HTTP {answer} {said}".rstrip())


def _concerns_kms(code: str, said: str) -> bool:
    """Whether the server could not use the key that encrypts the object.

    S3 passes the codes of KMS on, as `KMS.NotFoundException`. A missing right is an AccessDenied that names the action.
    """
    return "KMS" in code.upper() or (code == "AccessDenied" and "kms:" in said)


def _quoted(said: str) -> str:
    return f"; the server says: {said}" if said else ""


def _unanswered(error: BaseException, attempted: Attempted) -> TrainerError:
    if isinstance(error, ResponseStreamingError) and isinstance(inner := error.kwargs.get("error"), Exception):
        error = inner
    said = _said(error, attempted)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return TrainerError(
            FailureReason.STORAGE_ACCESS_DENIED,
            f"{attempted}: no credentials were found; set storage.secretRef, or give the pod's ServiceAccount an "
            "identity",
        )
    if isinstance(error, CredentialRetrievalError | TokenRetrievalError):
        # The agent worked when the run began. It is being replaced, or its node is busy, so a retry may succeed.
        transient = attempted.agent is not None
        reason = FailureReason.STORAGE_UNAVAILABLE if transient else FailureReason.STORAGE_ACCESS_DENIED
        giver = f" from {attempted.agent}" if attempted.agent else ""
        return TrainerError(reason, f"{attempted}: the identity was not obtained{giver}; {said}")
    if isinstance(error, ParamValidationError):
        return TrainerError(FailureReason.INVALID_SPEC, f"{attempted}: not a valid bucket or key; {said}")
    if isinstance(error, SSLError):
        return TrainerError(
            FailureReason.STORAGE_UNAVAILABLE,
            f"{attempted}: TLS failed; set storage.caBundle for a private certificate authority, or http:// if the "
            f"server speaks plain HTTP ({said})",
        )
    if (what := what_failed(error)) is not None:
        return TrainerError(FailureReason.STORAGE_UNAVAILABLE, f"{attempted}: {what}")
    if isinstance(error, ConnectionError | HTTPClientError | Urllib3Error):
        return TrainerError(FailureReason.STORAGE_UNAVAILABLE, f"{attempted}: the connection failed; {said}")
    return TrainerError(FailureReason.STORAGE_UNAVAILABLE, f"{attempted}: {type(error).__name__}; {said}")


def what_failed(error: BaseException) -> str | None:
    """Returns in words why a request got no complete answer, or None for another kind of failure."""
    if isinstance(error, EndpointConnectionError):
        return _why_unreachable(error)
    if isinstance(error, ConnectTimeoutError):
        return "the connection was not made in time"
    if isinstance(error, ReadTimeoutError | Urllib3TimeoutError):
        return "the server sent nothing for too long, or its answer came too slowly"
    if isinstance(error, IncompleteReadError | ProtocolError | ConnectionClosedError):
        return "the connection broke off before the answer was whole"
    return None


def _why_unreachable(error: EndpointConnectionError) -> str:
    """Returns in words why no connection was made. The SDK puts urllib3's exception into `error`."""
    reason = error.kwargs.get("error")
    if isinstance(reason, NameResolutionError):
        return "the name does not resolve"
    if isinstance(reason, NewConnectionError) and "refused" in str(reason):
        return "nothing answers there: the connection is refused"
    return "nothing answers there"


def in_words(text: object, secrets: Sequence[str] = (), longest: int = 200) -> str:
    """Returns a text of a server or library for a message: one line, no secrets, no control characters.

    Args:
        text: the text, or an exception.
        secrets: strings that are replaced by ***.
        longest: the largest number of characters. A longer text is cut.
    """
    words = str(text)
    for secret in secrets:
        words = words.replace(secret, "***")
    words = printable(" ".join(words.split()))
    return words if len(words) <= longest else words[: longest - 1] + "…"


def _said(text: object, attempted: Attempted) -> str:
    return in_words(text, attempted.secrets)
