"""The S3 client. Every setting that matters is explicit, so that no profile or variable of the image changes it."""

import os
import ssl
import tempfile
import threading
import weakref
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe.output import AddressingStyle, Checksums, StorageSpec
from finetune_trainer.storage.credentials import AccessKeys, Credentials
from finetune_trainer.storage.endpoint import check_endpoint
from finetune_trainer.storage.identity import agent_of, obtain
from finetune_trainer.storage.retry import Retryable, RetryPolicy
from finetune_trainer.storage.s3_errors import in_words, refused_connection, what_failed
from finetune_trainer.storage.s3_session import make_strict
from finetune_trainer.storage.timing import Timing

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DEFAULT_REGION = "us-east-1"
CONNECTIONS = 32
_TRANSIENT_STATUSES = (429, 500, 502, 503, 504)


class S3Connection:
    """An S3 client and the identity with which it signs. `renew` uses rotated keys.

    Attributes:
        accepted: whether the server has accepted this identity or an earlier one.

    Raises:
        TrainerError: the endpoint or the certificates are refused, or a mounted key is missing.
    """

    def __init__(self, spec: StorageSpec, credentials: Credentials | None, timing: Timing) -> None:
        if spec.endpoint is not None:
            check_endpoint(spec.endpoint)
        self._spec = spec
        self._credentials = credentials
        self._timing = timing
        self._renewing = threading.Lock()
        self._ca_file = _ca_file(spec.ca_bundle)
        if self._ca_file is not None:
            weakref.finalize(self, self._ca_file.close)
        self._secret = spec.secret_ref.name if spec.secret_ref else ""
        self._keys = credentials.read(self._secret) if credentials else None
        self._client: S3Client | None = None
        self.accepted = False

    @property
    def client(self) -> "S3Client":
        """The current boto3 client. The first use creates it.

        Raises:
            TrainerError: the pod's own identity has no credentials (see `identity.obtain`).
        """
        with self._renewing:
            if self._client is None:
                self._client = self._connect()
            return self._client

    @property
    def endpoint(self) -> str:
        """The server of the requests, for messages."""
        return self._spec.endpoint or f"AWS ({self._spec.region or DEFAULT_REGION})"

    @property
    def identity(self) -> str:
        """The identity in words, for messages: the last four characters of the key id, or the pod's own identity."""
        return f"key ending in {self._keys.key_id[-4:]}" if self._keys else "the pod's own identity"

    @property
    def agent(self) -> str | None:
        """The agent that gives the credentials, for messages. None with a mounted Secret or without a named agent."""
        return None if self._keys else agent_of(os.environ)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The strings that no message may contain: the secret key and the session token."""
        keys = self._keys
        return tuple(value for value in (keys.secret, keys.session) if value) if keys else ()

    def renew(self, refused: "S3Client") -> bool:
        """Reads the identity again and creates a new client, unless another thread has done so.

        Returns False when the mounted keys are those that the server has refused.

        Raises:
            TrainerError: a mounted key is missing, or the pod's own identity has no credentials.
        """
        with self._renewing:
            if self._client is not refused:
                return True
            if self._credentials is not None:
                keys = self._credentials.read(self._secret)
                if keys == self._keys:
                    return False
                self._keys = keys
            self._client = self._connect()
            return True

    def _connect(self) -> "S3Client":
        spec, keys = self._spec, self._keys or AccessKeys(key_id="", secret="")
        style = spec.addressing_style
        if style is AddressingStyle.AUTO and spec.endpoint is not None:
            style = AddressingStyle.PATH  # bucket.host needs a wildcard name that private servers rarely have
        checksums: Literal["when_supported", "when_required"] = (
            "when_supported" if spec.checksums is Checksums.WHEN_SUPPORTED else "when_required"
        )
        config = Config(  # type: ignore[call-arg]  # botocore-stubs lack ignore_configured_endpoint_urls
            signature_version="s3v4",
            s3={"addressing_style": style.value},
            retries={"mode": "standard", "total_max_attempts": self._timing.attempts},
            connect_timeout=self._timing.connect_seconds,
            read_timeout=self._timing.silence_seconds,
            max_pool_connections=CONNECTIONS,
            request_checksum_calculation=checksums,
            response_checksum_validation=checksums,
            ignore_configured_endpoint_urls=True,
            tcp_keepalive=True,
            user_agent_extra="finetune-operator",
        )
        session = boto3.Session() if self._keys else obtain(os.environ, self._timing.identity)
        client = session.client(
            "s3",
            endpoint_url=spec.endpoint,
            region_name=spec.region or DEFAULT_REGION,
            verify=self._ca_file.name if self._ca_file else None,
            aws_access_key_id=keys.key_id or None,
            aws_secret_access_key=keys.secret or None,
            aws_session_token=keys.session,
            config=config,
        )
        make_strict(client, self._timing.low_speed_limit)
        _retry_requests(client, self._timing.requests)
        _bound_redirects(client)
        return client


def _retry_requests(client: "S3Client", policy: RetryPolicy) -> None:
    """Makes the client retry each request on its own, when it gets no answer or an error that may pass.

    The SDK's own retries use a quota that all requests of a client share, and only a success refills it
    (botocore:retries/quota.py). In an outage, many parallel transfers use up the quota, and then no request is retried.
    """

    def begin(context: dict[str, Any], **_: object) -> None:
        context["finetune_began"] = policy.clock()

    def next_pause(
        attempts: int,
        response: tuple[Any, Any] | None,
        caught_exception: Exception | None,
        request_dict: dict[str, Any],
        **_: object,
    ) -> float | bool | None:
        if refused_connection(caught_exception) is not None:
            return False
        if caught_exception is None and (response is None or response[0].status_code not in _TRANSIENT_STATUSES):
            return None  # Success, or an error that the SDK's own rules decide about.
        never_sent = isinstance(caught_exception, EndpointConnectionError | ConnectTimeoutError)
        server = "{0.scheme}://{0.netloc}".format(urlsplit(request_dict["url"]))
        message = f"{server}: {_what_failed(response, caught_exception)}; retrying"
        elapsed = policy.clock() - request_dict["context"]["finetune_began"]
        pause = policy.pause(Retryable(message, unreachable=never_sent), attempts, elapsed)
        if pause is None:
            return False
        policy.notifier.begin(message)
        return pause

    def pause_and_notify(**asked: Any) -> float | bool | None:
        pause: float | bool | None = next_pause(**asked)
        if not pause:
            policy.notifier.end()
        return pause

    client.meta.events.register_first("before-call.s3", begin)
    client.meta.events.register_first("needs-retry.s3", pause_and_notify)  # type: ignore[arg-type]  # stubs: no result


def _bound_redirects(client: "S3Client") -> None:
    """Follows one redirect to a bucket's region, and none without end.

    The SDK answers a redirect that names no region by asking HeadBucket for it. A HeadBucket that is redirected too
    asks the next one, until Python's stack ends (botocore:utils.py, S3RegionRedirectorv2). Marked as redirected
    already, it ends there: the SDK reads the region off its answer, whatever the status is.
    """

    def mark(context: dict[str, Any], **_: object) -> None:
        context["s3_redirect"]["redirected"] = True

    client.meta.events.register("before-call.s3.HeadBucket", mark)


def _what_failed(response: tuple[Any, Any] | None, error: Exception | None) -> str:
    if response is not None:
        return f"HTTP {response[0].status_code}"
    return what_failed(error) or in_words(error) if error is not None else "no answer"


def _ca_file(bundle: str | None) -> "tempfile._TemporaryFileWrapper[str] | None":
    """Writes the certificates to a temporary file, because the HTTP client reads them from a file only."""
    if bundle is None:
        return None
    try:
        ssl.create_default_context(cadata=bundle)
    except (ssl.SSLError, ValueError) as error:
        raise TrainerError(
            FailureReason.INVALID_SPEC, f"storage.caBundle holds no usable PEM certificates: {error}"
        ) from None
    # S3Connection's finalizer closes the file, which removes it.
    file = tempfile.NamedTemporaryFile(mode="w", prefix="ca-", suffix=".pem", encoding="utf-8")  # noqa: SIM115
    file.write(bundle)
    file.flush()
    return file
