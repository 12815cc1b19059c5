"""The HTTP client of data by https: TLS alone, a few redirects, allowed addresses, proxies of the environment."""

import ssl
from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.storage.endpoint import why_host_refused
from finetune_trainer.storage.guarded_connection import GuardedConnection
from finetune_trainer.storage.s3_errors import in_words
from finetune_trainer.storage.timing import Timing

_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_FIELD = "dataset.uri"


class _Plain(GuardedConnection, HTTPConnection):
    """To a proxy."""

    field = _FIELD


class _Secure(GuardedConnection, HTTPSConnection):
    field = _FIELD


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


class HttpsClient:
    """Sends GET requests. Credentials are never sent.

    Args:
        ca_bundle: PEM certificates that are trusted beside those of the system.
        timing: time limits of requests.

    Raises:
        TrainerError: INVALID_SPEC. The certificates cannot be used.
    """

    def __init__(self, ca_bundle: str | None, timing: Timing) -> None:
        self._tls = ssl.create_default_context()
        if ca_bundle is not None:
            try:
                self._tls.load_verify_locations(cadata=ca_bundle)
            except (ssl.SSLError, ValueError) as error:
                message = f"storage.caBundle holds no usable PEM certificates: {error}"
                raise TrainerError(FailureReason.INVALID_SPEC, message) from None
        self._timeout = urllib3.Timeout(connect=timing.connect_seconds, read=timing.silence_seconds)

    def get(self, url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """Returns the answer to a request, after its redirects. The body is not read yet.

        Raises:
            TrainerError: INVALID_SPEC, a connection to the address is refused. DATASET_NOT_FOUND, a redirect does not
                lead to https://, or there are too many.
            urllib3.exceptions.HTTPError: no answer came.
        """
        place = url
        for _ in range(_MOST_REDIRECTS + 1):
            host, port = _require_https(place, url)
            if (why := why_host_refused(host, port)) is not None:
                message = f"{_FIELD}: a connection to {host} is refused: {why}"
                raise TrainerError(FailureReason.INVALID_SPEC, message)
            answer = self._manager(host).request(
                "GET",
                place,
                headers=dict(headers),
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=self._timeout,
            )
            location = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or not location:
                return answer
            answer.close()
            place = _joined(place, location)
        raise TrainerError(
            FailureReason.DATASET_NOT_FOUND, f"{without_query(url)}: more than {_MOST_REDIRECTS} redirects"
        )

    def _manager(self, host: str) -> urllib3.PoolManager:
        proxy = None if proxy_bypass(host) else getproxies().get("https")
        if proxy is None:
            manager = urllib3.PoolManager(ssl_context=self._tls)
        else:
            manager = urllib3.ProxyManager(proxy if "://" in proxy else f"http://{proxy}", ssl_context=self._tls)
        manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
        return manager


def without_query(url: str) -> str:
    """The URL for messages. A query may hold a signature."""
    return in_words(url.partition("?")[0].partition("#")[0], longest=400)


def _joined(place: str, location: str) -> str:
    try:
        return urljoin(place, location)
    except ValueError:
        return location


def _require_https(place: str, url: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(place)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme != "https" or not host:
        raise TrainerError(
            FailureReason.DATASET_NOT_FOUND,
            f"{without_query(url)}: it redirects to {without_query(place)}, and only https:// is followed",
        )
    return host, port
