"""The S3 client: every setting that matters is explicit, so that no profile or variable of the image changes it."""

import random
import ssl
import tempfile
import threading
import time
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import boto3
from botocore.config import Config

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe.output import AddressingStyle, Checksums, StorageSpec
from finetune_trainer.storage.credentials import AccessKeys, Credentials
from finetune_trainer.storage.endpoint import check_endpoint
from finetune_trainer.storage.pace import Pace
from finetune_trainer.storage.patience import Patience
from finetune_trainer.storage.s3_session import make_strict

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DEFAULT_REGION = "us-east-1"
CONNECTIONS = 32
_PASSING = (429, 500, 502, 503, 504)
_LONGEST_PAUSE = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long a server is waited for.

    Attributes:
        attempts: tries of one request, with a growing, jittered pause: a dead endpoint is reported within a minute.
        connect_seconds: for a connection.
        silence_seconds: for the first and for further bytes of an answer.
        repeat_seconds: after which a request is not repeated any more. A server that accepts connections and is silent
            would take all the tries at their full length.
        pace: the slowest answer.
        reading: with a server that gives no further byte of an object.
    """

    attempts: int = 8
    connect_seconds: float = 5.0
    silence_seconds: float = 30.0
    repeat_seconds: float = 60.0
    pace: Pace = field(default_factory=Pace)
    reading: Patience = field(default_factory=lambda: Patience(seconds=90.0, first_pause=0.2, longest_pause=10.0))


TIMING = Timing()
"""Of a pod."""


class S3Connection:
    """A client and the identity that it signs with; `renew` takes up rotated keys.

    Attributes:
        client: the boto3 client of now.
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
        self.client = self._connect()

    @property
    def endpoint(self) -> str:
        """Where requests go, for messages."""
        return self._spec.endpoint or f"AWS ({self._spec.region or DEFAULT_REGION})"

    @property
    def identity(self) -> str:
        """The key id's last four characters, for messages."""
        return f"key ending in {self._keys.key_id[-4:]}" if self._keys else "the pod's own identity"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no message may hold."""
        keys = self._keys
        return tuple(value for value in (keys.secret, keys.session) if value) if keys else ()

    def renew(self, refused: "S3Client") -> bool:
        """Reads the identity again, unless another thread has; False when it is the one that was just refused."""
        with self._renewing:
            if self.client is not refused:
                return True
            if self._credentials is not None:
                keys = self._credentials.read(self._secret)
                if keys == self._keys:
                    return False
                self._keys = keys
            self.client = self._connect()
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
        client = boto3.Session().client(
            "s3",
            endpoint_url=spec.endpoint,
            region_name=spec.region or DEFAULT_REGION,
            verify=self._ca_file.name if self._ca_file else None,
            aws_access_key_id=keys.key_id or None,
            aws_secret_access_key=keys.secret or None,
            aws_session_token=keys.session,
            config=config,
        )
        make_strict(client, self._timing.pace)
        _repeat(client, self._timing)
        return client


def _repeat(client: "S3Client", timing: Timing) -> None:
    """Repeats requests that got no answer, or one that may pass, whatever became of other requests.

    The SDK repeats them too, but out of a budget that all requests of a client share and that only success fills again
    (botocore:retries/quota.py): after an outage under many parallel transfers it would not repeat a single one.
    """

    def begin(context: dict[str, Any], **_: object) -> None:
        context["finetune_began"] = time.monotonic()

    def look(
        attempts: int,
        response: tuple[Any, Any] | None,
        caught_exception: Exception | None,
        request_dict: dict[str, Any],
        **_: object,
    ) -> float | bool | None:
        if caught_exception is None and (response is None or response[0].status_code not in _PASSING):
            return None  # success, or what the SDK knows better
        if attempts >= timing.attempts:
            return False
        if time.monotonic() - request_dict["context"]["finetune_began"] >= timing.repeat_seconds:
            return False
        return min(_LONGEST_PAUSE, 2.0 ** (attempts - 1)) * random.random()  # noqa: S311 (spreads load)

    client.meta.events.register_first("before-call.s3", begin)
    client.meta.events.register_first("needs-retry.s3", look)  # type: ignore[arg-type]  # the stubs know no answer


def _ca_file(bundle: str | None) -> "tempfile._TemporaryFileWrapper[str] | None":
    """The certificates as the file that the HTTP client wants; it goes when the connection does."""
    if bundle is None:
        return None
    try:
        ssl.create_default_context(cadata=bundle)
    except (ssl.SSLError, ValueError) as error:
        raise TrainerError(
            FailureReason.INVALID_RECIPE, f"storage.caBundle holds no usable PEM certificates: {error}"
        ) from None
    # Closed, and with that removed, by S3Connection's finalizer.
    file = tempfile.NamedTemporaryFile(mode="w", prefix="ca-", suffix=".pem", encoding="utf-8")  # noqa: SIM115
    file.write(bundle)
    file.flush()
    return file
