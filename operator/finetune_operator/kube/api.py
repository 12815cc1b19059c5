"""The requests that the operator makes to Kubernetes, as a Protocol.

Objects stay dicts, as in JSON: the generated models drop fields that their version does not know.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from finetune_operator.api import names


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """Group, version and plural of a kind, as in the API server's paths."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Path of the collection, of one object, or of its subresource.

        Raises:
            ValueError: a name is not valid in Kubernetes, and would lead to another path.
        """
        parts = [f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"]
        if namespace is not None:
            parts.append(f"namespaces/{_segment(namespace)}")
        parts.append(self.plural)
        parts.extend(_segment(part) for part in (name, subresource) if part is not None)
        return "/".join(parts)


def _segment(name: str) -> str:
    """A name as one path segment: checked as Kubernetes' path.IsValidPathSegmentName does, and quoted.

    Quoting is not enough: HTTP clients resolve `..` and decode `%2E` before they send.
    """
    if name in ("", ".", "..") or "/" in name or "%" in name:
        raise ValueError(f"{name!r} is not the name of a Kubernetes object")
    return quote(name, safe="")


FINETUNEJOBS = Resource(group=names.GROUP, version=names.VERSION, plural=names.PLURAL)
PROFILES = Resource(group=names.GROUP, version=names.VERSION, plural=names.PROFILE_PLURAL)
CLUSTER_PROFILES = Resource(group=names.GROUP, version=names.VERSION, plural=names.CLUSTER_PROFILE_PLURAL)
JOBS = Resource(group="batch", version="v1", plural="jobs")
SERVICES = Resource(group="", version="v1", plural="services")
PODS = Resource(group="", version="v1", plural="pods")
EVENTS = Resource(group="events.k8s.io", version="v1", plural="events")
LEASES = Resource(group="coordination.k8s.io", version="v1", plural="leases")
TOKEN_REVIEWS = Resource(group="authentication.k8s.io", version="v1", plural="tokenreviews")


MAX_PAGE_BYTES = 8 << 20
"""Limit for one page of a list. An object may have 1.5 MB, and several times as much in memory: text with one emoji
takes four bytes a character. A tenant can make a hundred such objects with our labels. So a page that is larger is
asked for again with fewer objects."""


def fewer(limit: int) -> int:
    """How many objects to ask for when a page of `limit` was too large."""
    return max(1, limit // 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a list.

    Attributes:
        items: the objects, without `kind` and `apiVersion`.
        resource_version: resourceVersion of the whole list.
    """

    items: tuple[dict[str, Any], ...]
    resource_version: str


class Applied(NamedTuple):
    """The answer to a server-side apply.

    Attributes:
        raw: the object as it is now.
        created: whether the apply created it. Otherwise it existed, and has fields of others beside ours.
    """

    raw: dict[str, Any]
    created: bool


class Kube(Protocol):
    """Requests to the API server. Each has a time limit and raises a `KubeError`."""

    async def get(
        self, resource: Resource, namespace: str, name: str, *, subresource: str | None = None
    ) -> dict[str, Any]:
        """One object or its subresource, read from etcd (not from the API server's watch cache)."""
        ...

    def pages(
        self, resource: Resource, namespace: str | None, *, label_selector: str = "", field_selector: str = ""
    ) -> AsyncGenerator[Page, None]:
        """All objects of a namespace, or of the cluster, in pages."""
        ...

    async def create(
        self, resource: Resource, namespace: str | None, body: Mapping[str, Any], *, dry_run: bool = False
    ) -> dict[str, Any]:
        """Creates an object. With `dry_run` the server only answers what it would create."""
        ...

    async def replace(self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Replaces an object if it still has the resourceVersion of the body."""
        ...

    async def apply(self, resource: Resource, manifest: Mapping[str, Any]) -> Applied:
        """Server-side apply of a whole manifest, with force, by the operator's field manager."""
        ...

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
        """JSON merge patch of an object or a subresource."""
        ...

    async def signing_keys(self) -> dict[str, Any]:
        """The public keys of service account tokens, as a JSON web key set.

        ServiceAccounts may read it by Kubernetes' own ClusterRole `system:service-account-issuer-discovery`.
        """
        ...

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> None:
        """Deletes the object with that UID, with background propagation."""
        ...
