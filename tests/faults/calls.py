"""A request of the operator, in the words of the Kubernetes API: a verb and a resource."""

from collections.abc import Mapping
from dataclasses import dataclass

from finetune_operator.api import names

READS = frozenset({"get", "list", "watch"})
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request.

    Attributes:
        verb: as in RBAC: get, list, watch, create, update, patch, delete.
        resource: the plural, with a subresource after a slash. The status has two writers, so `progress` stands for the
            status as the progress writer patches it.
            Discovery is what the server says of its own API, at `/apis/GROUP/VERSION` and above.
        namespace, name: of the object; empty where there is none.
    """

    verb: str
    resource: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """Verb and resource."""
        return f"{self.verb} {self.resource}"

    @property
    def writes(self) -> bool:
        """Whether it changes something. A TokenReview is created, and nothing is stored."""
        kept = self.resource != "tokenreviews" and "(dry run)" not in self.resource
        return kept and self.verb not in READS

    @property
    def about_lease(self) -> bool:
        """Whether it belongs to the leader election."""
        return self.resource == "leases"


def call(method: str, path: str, query: Mapping[str, str]) -> Call:
    """The call of an HTTP request, by its path `/api/v1/…` or `/apis/GROUP/VERSION/…`."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = ""
    if parts[:1] == ["namespaces"] and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    if not parts:
        return Call(verb="get", resource="discovery", namespace="", name="")
    resource, name, subresource = (*parts, "", "")[:3]
    if subresource:
        resource = f"{resource}/{subresource}"
    if query.get("dryRun"):
        resource = f"{resource} (dry run)"
    if query.get("fieldManager") == names.PROGRESS_FIELD_MANAGER:
        resource = "progress"
    verb = _VERBS.get(method) or ("watch" if query.get("watch") else "get" if name else "list")
    return Call(verb=verb, resource=resource, namespace=namespace, name=name)
