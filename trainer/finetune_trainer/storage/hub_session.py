"""Makes the Hub's client abort slow answers, connect to allowed addresses only, and report the bytes it downloads.

Files that come through Xet are fetched by a client of its own, in Rust, from an address that the Hub names. It has no
hook for any of this.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
from huggingface_hub import set_client_factory
from huggingface_hub.utils._http import default_client_factory
from tqdm import tqdm

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.storage.base import ByteCount
from finetune_trainer.storage.endpoint import why_address_refused, why_host_refused
from finetune_trainer.storage.low_speed_limit import LowSpeedLimit


class ForbiddenHubAddressError(TrainerError):
    """A connection to a forbidden address. `hub_errors` gives it the reason of the kind of repository."""

    def __init__(self, message: str) -> None:
        super().__init__(FailureReason.MODEL_NOT_FOUND, message)


def make_strict(low_speed_limit: LowSpeedLimit) -> None:
    """Makes every HTTP client of huggingface_hub abort an answer below the low speed limit.

    The abort raises httpx2.ReadTimeout, so the Hub's client handles it like a server that does not answer.
    """

    def client() -> httpx2.Client:
        made = default_client_factory()
        # Hooks, because a custom transport would ignore the environment's proxies (httpx:_client.py, _get_proxy_map).
        made.event_hooks["request"].append(lambda request: _limit(request, low_speed_limit))
        made.event_hooks["request"].append(_guard)
        made.event_hooks["response"].append(lambda answer: _watch(answer, low_speed_limit))
        return made

    set_client_factory(client)


def _limit(request: httpx2.Request, low_speed_limit: LowSpeedLimit) -> None:
    """Sets the request's connect and read timeouts to at most the seconds of the low speed limit.

    Without this limit, the client sends six HEAD requests for a file after the first one has timed out at 10 s. Each of
    the six may take 60 s.
    """
    limits = request.extensions.get("timeout", {})
    for name in ("connect", "read"):
        limits[name] = min(limits.get(name) or low_speed_limit.seconds, low_speed_limit.seconds)
    request.extensions["timeout"] = limits


def _guard(request: httpx2.Request) -> None:
    """Checks the connection that is made for a request. A request that follows a redirect is one of its own."""
    request.extensions["trace"] = _check_connection


def _check_connection(event: str, info: Mapping[str, Any]) -> None:
    """The `trace` extension of httpcore: before a connection is made, and before anything is sent over it.

    Raises:
        ForbiddenHubAddressError: the address is refused.
    """
    if event.endswith(".connect_tcp.started"):
        host, why = info["host"], why_host_refused(info["host"], info["port"])
    elif event.endswith(".connect_tcp.complete"):
        host = info["return_value"].get_extra_info("server_addr")[0]
        why = why_address_refused(host)
        if why is not None:
            info["return_value"].close()
    else:
        return
    if why is not None:
        raise ForbiddenHubAddressError(
            f"the Hub: a connection to {host} is refused: {why}; check HF_ENDPOINT, its redirects and the proxy"
        )


def _watch(answer: httpx2.Response, low_speed_limit: LowSpeedLimit) -> None:
    answer.stream = _LimitedStream(answer.stream, low_speed_limit)


class _LimitedStream(httpx2.SyncByteStream):
    """The body of an answer, which raises httpx2.ReadTimeout when it comes too slowly."""

    def __init__(self, stream: Any, low_speed_limit: LowSpeedLimit) -> None:
        self._stream, self._limit = stream, low_speed_limit

    def __iter__(self) -> Iterator[bytes]:
        watch, pieces = self._limit.watch(), iter(self._stream)
        piece = b""

        def receive() -> int:
            nonlocal piece
            piece = next(pieces, b"")
            return len(piece)

        while True:
            try:
                watch.wait(receive)
            except TimeoutError as error:
                raise httpx2.ReadTimeout(str(error)) from error
            if not piece:
                return
            yield piece

    def close(self) -> None:
        self._stream.close()


class _Counter(tqdm):  # type: ignore[type-arg]
    """A progress bar that shows nothing and calls `on_bytes`. The client reports bytes only to a progress bar."""

    on_bytes: ByteCount

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "disable": True})

    def update(self, n: float | None = 1) -> bool | None:
        type(self).on_bytes(int(n or 0))
        return None

    def update_transfer(self, n: float) -> None:
        """Ignores bytes on the wire: `update` gets the file's bytes (huggingface_hub:file_download.py)."""

    def set_transfer_postfix_str(self, *_: Any, **__: Any) -> None:
        """Ignores the rate, which only a visible bar would show."""


def counter(on_bytes: ByteCount) -> type[_Counter]:
    """Returns a class of progress bars that call `on_bytes`. The client takes a class and creates the bar itself."""
    return type("_BoundCounter", (_Counter,), {"on_bytes": staticmethod(on_bytes)})
