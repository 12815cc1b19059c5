"""Requests to the API server: dicts in and out, and every failure as one sentence.

Only the transport and the credentials of the official client are used. Its generated methods would drop fields that
they do not know.
"""

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import urllib3

from finetune_operator.cli.cluster.failures import Attempted, ClusterError, sentence, unreachable
from finetune_operator.cli.errors import CommandError, Exit
from finetune_operator.kube.api import FINETUNEJOBS, Resource
from finetune_operator.kube.errors import NotFound, from_response

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

FIELD_MANAGER = "kubectl-finetune"
_PAGE = 500
_CONNECT_SECONDS, _ANSWER_SECONDS = 10.0, 60.0
_MOST_BYTES = 256 << 20
"""Largest answer that is read. A list page of 500 objects of 1.5 MB each would be 750 MB: no cluster has that."""


class Cluster:
    """The cluster of one context.

    Attributes:
        namespace: the namespace that commands use.
        context: name of the context.
        server: address of the API server.
    """

    def __init__(self, client: "ApiClient", *, namespace: str, context: str, server: str) -> None:
        self._client = client
        self.namespace = namespace
        self.context = context
        self.server = server

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> dict[str, Any]:
        """One object.

        Args:
            resource: its kind.
            name: its name.
            namespace: its namespace; None for that of the command.

        Raises:
            ClusterError: there is none; names that are near are in the message. Or the request failed.
        """
        place = namespace or self.namespace
        attempted = Attempted("get", resource, place, name)
        try:
            return self._json("GET", self._path(resource, place, name), attempted)
        except ClusterError as error:
            if not isinstance(error.cause, NotFound):
                raise
            raise ClusterError(sentence(error.cause, attempted, self._names(resource, place)), error.cause) from None

    def objects(
        self, resource: Resource, *, everywhere: bool = False, labels: str = "", fields: str = ""
    ) -> list[dict[str, Any]]:
        """All objects of a kind in the namespace of the command.

        Args:
            resource: the kind.
            everywhere: those of all namespaces.
            labels: a label selector.
            fields: a field selector.

        Raises:
            ClusterError: the request failed.
        """
        place = None if everywhere else self.namespace
        query = {"limit": str(_PAGE)}
        query |= {"labelSelector": labels} if labels else {}
        query |= {"fieldSelector": fields} if fields else {}
        found: list[dict[str, Any]] = []
        while True:
            answer = self._json("GET", self._path(resource, place), Attempted("list", resource, place), query=query)
            found += answer.get("items") or []
            if not (further := answer.get("metadata", {}).get("continue")):
                return found
            query["continue"] = further

    def apply(
        self, resource: Resource, manifest: Mapping[str, Any], *, force: bool = False, dry_run: bool = False
    ) -> dict[str, Any]:
        """Applies an object on the server's side. Unknown fields are errors.

        Args:
            resource: its kind.
            manifest: the object, with its name; without a namespace it goes to that of the command.
            force: take fields over that another client manages.
            dry_run: the server only answers what would be.

        Raises:
            ClusterError: the server refuses it.
        """
        metadata = manifest["metadata"]
        place = metadata.get("namespace") or self.namespace
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict", "force": str(force).lower()}
        query |= {"dryRun": "All"} if dry_run else {}
        path = self._path(resource, place, metadata["name"])
        attempted = Attempted("patch", resource, place, metadata["name"])
        return self._json("PATCH", path, attempted, query=query, body=manifest, content="application/apply-patch+yaml")

    def merge(self, resource: Resource, name: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        """Changes fields of an object of the command's namespace.

        Raises:
            ClusterError: the server refuses it.
        """
        path = self._path(resource, self.namespace, name)
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        attempted = Attempted("patch", resource, self.namespace, name)
        return self._json("PATCH", path, attempted, query=query, body=patch, content="application/merge-patch+json")

    def version(self) -> str:
        """The API server's version.

        Raises:
            ClusterError: the request failed.
        """
        return str(self._json("GET", "/version", Attempted("get", FINETUNEJOBS)).get("gitVersion", "unknown"))

    @contextmanager
    def lines(self, pods: Resource, pod: str, query: Mapping[str, str]) -> Iterator[Iterator[bytes]]:
        """The lines of a pod's log, as they come.

        Args:
            pods: the kind Pod.
            pod: its name.
            query: options of the log subresource.

        Raises:
            ClusterError: there is no log.
        """
        path = pods.path(self.namespace, pod, "log")
        attempted = Attempted("get", pods, self.namespace, pod, "log")
        response = self._send("GET", path, attempted, query=query, endless=query.get("follow") == "true")
        try:
            with _as_sentences(attempted):
                yield _lines(response)
        finally:
            response.close()

    def _names(self, resource: Resource, namespace: str) -> list[str]:
        """Names of the objects that there are; empty when they may not be listed."""
        try:
            path = self._path(resource, namespace)
            items = self._json("GET", path, Attempted("list", resource, namespace), query={"limit": str(_PAGE)})
        except ClusterError:
            return []
        return [item["metadata"]["name"] for item in items.get("items") or []]

    @staticmethod
    def _path(resource: Resource, namespace: str | None, name: str | None = None) -> str:
        try:
            return resource.path(namespace, name)
        except ValueError as error:
            raise CommandError(str(error), Exit.USAGE) from None

    def _json(
        self,
        method: str,
        path: str,
        attempted: Attempted,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = "application/json",
    ) -> dict[str, Any]:
        response = self._send(method, path, attempted, query=query, body=body, content=content)
        try:
            with _as_sentences(attempted):
                text = response.read(_MOST_BYTES, decode_content=True)
            answer: dict[str, Any] = json.loads(text)
        except ValueError:
            raise ClusterError(f"{self.server} does not answer as an API server does") from None
        finally:
            response.release_conn()
        return answer

    def _send(
        self,
        method: str,
        path: str,
        attempted: Attempted,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = "application/json",
        endless: bool = False,
    ) -> Any:
        """The answer, whose body is still to be read. Its status is one of success."""
        headers = {"Accept": "application/json, */*", "Content-Type": content}
        if query:
            path += "?" + urlencode(query)
        with _as_sentences(attempted):
            _, url, headers, _, _ = self._client.param_serialize(
                method, path, header_params=headers, auth_settings=["BearerToken"]
            )
            response = self._client.call_api(
                method,
                url,
                header_params=headers,
                body=body,
                _request_timeout=(_CONNECT_SECONDS, None if endless else _ANSWER_SECONDS),
            ).response
            if not 200 <= response.status < 300:
                cause = from_response(response.status, response.headers, response.read(1 << 20))
                raise ClusterError(sentence(cause, attempted), cause)
        return response


@contextmanager
def _as_sentences(attempted: Attempted) -> Iterator[None]:
    """Turns the errors of a connection into a `ClusterError`."""
    # Not at the top: local runs work without this package.
    from kubernetes.client.exceptions import ApiException
    from kubernetes.config import ConfigException

    try:
        yield
    except (urllib3.exceptions.HTTPError, ApiException, ConfigException, OSError, ssl.SSLError) as error:
        raise ClusterError(unreachable(error, attempted)) from None


def _lines(response: Any) -> Iterator[bytes]:
    """The lines of a body, each without its end. A line that is longer than 1 MiB comes in parts."""
    rest = b""
    for chunk in response.stream(1 << 16, decode_content=True):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > 1 << 20:
            yield rest
            rest = b""
    if rest:
        yield rest
