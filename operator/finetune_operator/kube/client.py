"""`Kube` over the official client for asyncio: one connection pool, dicts in and out.

Only the client's transport and credentials are used. Its generated methods parse responses into models that drop
unknown fields, and copy every body before they send it.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from kubernetes.aio.config.incluster_config import SERVICE_TOKEN_FILENAME
from pydantic_core import from_json

from finetune_operator.api import names
from finetune_operator.kube.api import MAX_PAGE_BYTES, Applied, Page, Resource, fewer
from finetune_operator.kube.contact import CONNECT_SECONDS, FAILURES, Contact, unreachable
from finetune_operator.kube.errors import KubeError, Unavailable, from_response
from finetune_operator.kube.limited_body import body_within
from finetune_trainer.contract.version import __version__

USER_AGENT = f"finetune-operator/{__version__}"
_JSON = "application/json"
_KEY_SET = "application/jwk-set+json"  # for JSON the API server answers 406
_MERGE_PATCH = "application/merge-patch+json"
_APPLY_PATCH = "application/apply-patch+yaml"  # JSON is YAML


RequestObserver = Callable[[str, str, float], None]
"""Is told of each request, for metrics: its method, the HTTP status or `<error>`, and its duration in seconds."""
NO_RESPONSE = "<error>"


class ClientKube:
    """`Kube` over an ApiClient.

    Args:
        timeout_seconds: limit for a request, or for one page of a list.
        page_size: objects in a page, at most. The whole page is in memory, so large objects come in smaller pages.
        observer: is told of each request.
    """

    def __init__(
        self,
        client: ApiClient,
        *,
        timeout_seconds: float = 30.0,
        page_size: int = 100,
        observer: RequestObserver = lambda *_: None,
    ) -> None:
        self._observer = observer
        self._client = client
        self._page_size = page_size
        # The client itself would pass a plain number, which aiohttp deprecates.
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds, connect=CONNECT_SECONDS)

    async def get(
        self, resource: Resource, namespace: str, name: str, *, subresource: str | None = None
    ) -> dict[str, Any]:
        """See `Kube.get`."""
        return await self._request("GET", resource.path(namespace, name, subresource))

    async def pages(
        self, resource: Resource, namespace: str | None, *, label_selector: str = "", field_selector: str = ""
    ) -> AsyncGenerator[Page, None]:
        """See `Kube.pages`."""
        limit = self._page_size
        query: dict[str, str] = {}
        if label_selector:
            query["labelSelector"] = label_selector
        if field_selector:
            query["fieldSelector"] = field_selector
        while True:
            query["limit"] = str(limit)
            path = resource.path(namespace)
            try:
                _, answer = await self._send("GET", path, query=query, most=MAX_PAGE_BYTES if limit > 1 else None)
            except _TooLarge:
                limit = fewer(limit)
                continue
            limit = min(self._page_size, 2 * limit)
            metadata = answer["metadata"]
            yield Page(items=tuple(answer.get("items") or ()), resource_version=metadata.get("resourceVersion", ""))
            if not metadata.get("continue"):
                return
            query["continue"] = metadata["continue"]

    async def create(
        self, resource: Resource, namespace: str | None, body: Mapping[str, Any], *, dry_run: bool = False
    ) -> dict[str, Any]:
        """See `Kube.create`."""
        query = {**_MANAGER, "dryRun": "All"} if dry_run else _MANAGER
        return await self._request("POST", resource.path(namespace), body=body, query=query)

    async def replace(self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """See `Kube.replace`."""
        return await self._request("PUT", resource.path(namespace, name), body=body, query=_MANAGER)

    async def apply(self, resource: Resource, manifest: Mapping[str, Any]) -> Applied:
        """See `Kube.apply`."""
        metadata = manifest["metadata"]
        path = resource.path(metadata["namespace"], metadata["name"])
        query = {**_MANAGER, "force": "true"}
        status, raw = await self._send("PATCH", path, body=manifest, query=query, content_type=_APPLY_PATCH)
        return Applied(raw, created=status == HTTPStatus.CREATED)

    async def merge(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        patch: Mapping[str, Any],
        *,
        field_manager: str,
        subresource: str | None = None,
    ) -> dict[str, Any]:
        """See `Kube.merge`."""
        path = resource.path(namespace, name, subresource)
        query = {"fieldManager": field_manager}
        return await self._request("PATCH", path, body=patch, query=query, content_type=_MERGE_PATCH)

    async def signing_keys(self) -> dict[str, Any]:
        """See `Kube.signing_keys`."""
        return await self._request("GET", "/openid/v1/jwks", accept=_KEY_SET)

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> None:
        """See `Kube.delete`."""
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        await self._request("DELETE", resource.path(namespace, name), body=options)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = _JSON,
        accept: str = _JSON,
    ) -> dict[str, Any]:
        _, answer = await self._send(method, path, query=query, body=body, content_type=content_type, accept=accept)
        return answer

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = _JSON,
        accept: str = _JSON,
        most: int | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """The status, which is one of success, and the body.

        Raises:
            _TooLarge: the body has more than `most` bytes; the rest of it is not read.
            KubeError: the request failed.
        """
        # Within a cluster it takes longer to compress and decompress a list than to send it.
        headers = {"Accept": accept, "Accept-Encoding": "identity", "Content-Type": content_type}
        if query:
            path += "?" + urlencode(query)
        began, code = time.monotonic(), NO_RESPONSE
        try:
            _, url, headers, _, _ = await self._client.param_serialize(
                method, path, header_params=headers, auth_settings=["BearerToken"]
            )
            response = await self._client.call_api(
                method, url, header_params=headers, body=body, _request_timeout=self._timeout
            )
            code = str(response.status)
            text = await (response.read() if most is None else body_within(response.response, most))
            if text is None:
                raise _TooLarge
        except FAILURES as error:
            code = NO_RESPONSE
            raise unreachable(error) from None
        except (aiohttp.ClientError, TimeoutError, OSError, ApiException) as error:
            code = NO_RESPONSE
            raise Unavailable(f"{method} {path}: {type(error).__name__}: {error}".rstrip(": ")) from None
        finally:
            self._observer(method, code, time.monotonic() - began)
        if not 200 <= response.status < 300:
            raise from_response(response.status, response.headers, text)
        try:
            answer: dict[str, Any] = from_json(text, cache_strings="keys")  # a third faster than json
        except ValueError:
            raise Unavailable(f"{method} {path}: the response is not JSON", status=response.status) from None
        return response.status, answer


class _TooLarge(Exception):  # noqa: N818 (an outcome)
    """A page of a list is larger than it may be."""


_MANAGER = {"fieldManager": names.FIELD_MANAGER}


@asynccontextmanager
async def connect(
    environment: Mapping[str, str],
    *,
    connections: int = 64,
    page_size: int = 100,
    contact: Contact | None = None,
    observer: RequestObserver = lambda *_: None,
) -> AsyncIterator[ClientKube]:
    """A client for the cluster of KUBECONFIG if it is set, otherwise for the cluster that this process runs in.

    Args:
        environment: the process's.
        connections: open at the same time.
        page_size: objects in a page of a list.
        contact: what is told whether the API server can be reached; by default nobody is.
        observer: is told of each request.

    Raises:
        KubeError: there are no usable credentials.
    """
    configuration = Configuration()
    try:
        if in_cluster(environment):
            load_incluster_config(client_configuration=configuration)
        else:
            # The client's own default is KUBECONFIG as it was when the client was imported.
            config_file = environment.get("KUBECONFIG") or None
            await load_kube_config(config_file=config_file, client_configuration=configuration)
    except (ConfigException, OSError) as error:
        raise KubeError(f"no cluster: {error}") from None
    configuration.connection_pool_maxsize = connections
    # The client turns this on. Then aiohttp searches for ~/.netrc in a thread, twice for each request.
    configuration.client_session_kwargs = {
        "trust_env": False,
        "trace_configs": [contact.trace()] if contact is not None else [],
    }
    client = ApiClient(configuration)
    client.user_agent = USER_AGENT
    try:
        yield ClientKube(client, page_size=page_size, observer=observer)
    finally:
        await client.close()


def in_cluster(environment: Mapping[str, str]) -> bool:
    """Whether to use the pod's credentials: it runs in a pod, and KUBECONFIG is not set."""
    return "KUBERNETES_SERVICE_HOST" in environment and not environment.get("KUBECONFIG")


def own_token(environment: Mapping[str, str]) -> str | None:
    """Reads the operator's own token, which the kubelet renews; None outside of a cluster."""
    if not in_cluster(environment):
        return None
    try:
        return Path(SERVICE_TOKEN_FILENAME).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
