"""Maps the Hub's answers and the exceptions of its client to reasons for the user.

The client has an exception for most answers. When it cannot look at a file, it raises LocalEntryNotFoundError for every
cause (huggingface_hub:file_download.py, _raise_on_head_call_error). The `__cause__` of that exception is the cause.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub import errors

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.runtime.machine_errors import DISK_FULL
from finetune_trainer.storage.base import ObjectNotFoundError
from finetune_trainer.storage.hub_kind import HubKind
from finetune_trainer.storage.hub_session import ForbiddenHubAddressError

_LONGEST_SAYING = 200
_XET_ROUTE = "/xet-read-token/"
_TOKEN_FIELD = "model.tokenSecretRef (HF_TOKEN in a local run)"  # noqa: S105 (a field's name)


class HubUnavailableError(TrainerError):
    """The Hub does not answer, or answers with an error that may pass. The same request may succeed later.

    Attributes:
        reached: True when the Hub was reached. False when no connection was made, or another server answered at its
            address.
        retry_after: seconds of the Hub's Retry-After; None without one.
    """

    def __init__(self, message: str, *, reached: bool, retry_after: int | None = None) -> None:
        super().__init__(FailureReason.STORAGE_UNAVAILABLE, message)
        self.reached = reached
        self.retry_after = retry_after


@contextmanager
def known_reasons(what: str, kind: HubKind, *, token: bool) -> Iterator[None]:
    """Raises a TrainerError with a reason in place of an exception of the Hub's client.

    An OSError of this machine's file system is raised unchanged, except for a full disk.

    Args:
        what: repository, file and revision of the request, for messages.
        kind: the repository's kind.
        token: whether the request carries an access token.

    Raises:
        ObjectNotFoundError: the repository exists, the file does not.
        HubUnavailableError: the same request may succeed later.
        TrainerError: the kind's `not_found` or `denied`, or DISK_FULL.
    """
    try:
        yield
    except ForbiddenHubAddressError as error:
        raise TrainerError(kind.not_found, error.message) from error
    except (
        errors.HFValidationError,
        errors.EntryNotFoundError,
        httpx2.HTTPError,
        httpx2.InvalidURL,
        OSError,
        RuntimeError,  # hf_xet raises it for every failure without an exception class of its own
    ) as error:
        hidden = isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception)
        meaning = _meaning(error.__cause__ if hidden else error, what, kind, token=token)
        if meaning is None:
            raise
        raise meaning from error


def _meaning(error: BaseException | None, what: str, kind: HubKind, *, token: bool) -> TrainerError | None:
    match error:
        case errors.OfflineModeIsEnabled() | errors.LocalEntryNotFoundError():
            return TrainerError(
                kind.not_found,
                f"{what} is not in the local cache, and HF_HUB_OFFLINE=1 keeps from the Hub: unset it, or mirror the "
                f"{kind.noun} to s3:// or pvc:// and set {kind.uri_field} to it",
            )
        case errors.HFValidationError():
            return TrainerError(kind.not_found, f"{what}: {_said(error)}")
        case errors.HfHubHTTPError():
            return _answer(error, what, kind, token=token)
        case OSError(errno=number) if number in DISK_FULL:
            return TrainerError(FailureReason.DISK_FULL, f"no space left for {what}")
        case ConnectionError() | TimeoutError() | socket.gaierror():
            return _unreachable(error, what)
        case OSError() if error.errno is not None:
            return None  # an error of this machine's file system
        case errors.FileMetadataError():
            why = f"what answers is no Hub: check HF_ENDPOINT and the proxy ({_said(error)})"
            return _unavailable(what, why, reached=False)
        case _:
            return _unreachable(error, what)


def _answer(error: errors.HfHubHTTPError, what: str, kind: HubKind, *, token: bool) -> TrainerError | None:
    """Maps an HTTP error of the Hub to a reason.

    The order matters: GatedRepoError is a subclass of RepositoryNotFoundError, so it comes first.
    """
    status = error.response.status_code
    match error:
        case errors.GatedRepoError() if token:
            message = f"{what} is gated, and the account of the token in {_TOKEN_FIELD} has no access"
            return _denied(message, error, kind)
        case errors.GatedRepoError():
            return _denied(f"{what} is gated: accept its licence on the Hub and set {_TOKEN_FIELD}", error, kind)
        case errors.DisabledRepoError():
            return TrainerError(kind.not_found, f"{what}: the Hub has disabled the {kind.noun}")
        case errors.RevisionNotFoundError():
            return TrainerError(
                kind.not_found,
                f"{what}: the {kind.noun} has no such revision: set {kind.revision_field} to a branch, tag or commit "
                "of it",
            )
        case errors.RepositoryNotFoundError():
            sees = "the token's account may not see it" if token else f"it is private and needs {_TOKEN_FIELD}"
            return TrainerError(kind.not_found, f"{what}: there is no such {kind.noun}, or {sees}")
        case errors.EntryNotFoundError():
            return ObjectNotFoundError(f"{what}: there is no such file")
    if status == 401:
        why = "refuses the token: put a new one into" if token else "wants a token: set"
        return _denied(f"{what}: the Hub {why} {_TOKEN_FIELD}", error, kind)
    if status == 403:
        message = f"{what}: the Hub refuses it: the token in {_TOKEN_FIELD} needs the right to read it"
        return _denied(message, error, kind)
    if status == 429:
        return _busy(error, what, "429, too many requests", "; a token raises its limit")
    if status == 404 and _XET_ROUTE in str(error.response.url):
        return TrainerError(
            kind.not_found,
            f"{what}: what answers for the Hub offers the file through Xet and does not serve that: set "
            "HF_HUB_DISABLE_XET=1 (the chart's hub.endpoint does)",
        )
    if status >= 500 or status == 408:
        return _busy(error, what, str(status))
    return TrainerError(kind.not_found, f"{what}: the Hub answers {status}: check {kind.uri_field} and HF_ENDPOINT")


def _denied(message: str, error: errors.HfHubHTTPError, kind: HubKind) -> TrainerError:
    said = f"; the Hub says: {_shortened(error.server_message)}" if error.server_message else ""
    return TrainerError(kind.denied, message + said)


def _unreachable(error: BaseException | None, what: str) -> TrainerError:
    # These exceptions mean that no connection was made. Any other means a connection without an answer.
    reached = not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | socket.gaierror)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        why = (
            f"the Hub's certificate is not trusted ({_said(error)}): name its authority in the chart's hub.caBundle "
            "(SSL_CERT_FILE in a local run)"
        )
        return _unavailable(what, why, reached=False)
    return _unavailable(what, f"the Hub cannot be reached ({type(error).__name__}: {_said(error)})", reached=reached)


def _unavailable(what: str, why: str, *, reached: bool) -> TrainerError:
    return HubUnavailableError(f"{what}: {why}", reached=reached)


def _busy(error: errors.HfHubHTTPError, what: str, answers: str, advice: str = "") -> TrainerError:
    seconds = error.response.headers.get("retry-after", "")
    retry_after = int(seconds) if seconds.isdigit() else None
    wait = "" if retry_after is None else f", try again in {retry_after} s"
    return HubUnavailableError(
        f"{what}: the Hub answers {answers}{wait}{advice}", reached=True, retry_after=retry_after
    )


def _said(error: BaseException | None) -> str:
    return _shortened(str(error))


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_SAYING else text[: _LONGEST_SAYING - 1] + "…"
