"""What a user reads when a request fails: one sentence with the facts, and what to do."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_operator.api import names
from finetune_operator.cli.errors import CommandError, Exit
from finetune_operator.kube.api import FINETUNEJOBS, Resource
from finetune_operator.kube.errors import Conflict, Forbidden, Invalid, KubeError, NotFound

_NO_RIGHT = re.compile(r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource')
_INSTALL = "helm install finetune-operator helm/finetune-operator --namespace finetune-system --create-namespace"
_ROLES = {"get": "finetune-operator-view", "list": "finetune-operator-view", "watch": "finetune-operator-view"}
_EDIT = "finetune-operator-edit"
_NO_SUCH_KIND = ("could not find the requested resource", "404 page not found")
"""What the API server says where the CRD is not installed."""
_CHANGED_BY = re.compile(r'conflict with "([^"]+)"')


class ClusterError(CommandError):
    """A request that failed.

    Attributes:
        cause: the answer of the API server; None when there was none.
    """

    def __init__(self, message: str, cause: KubeError | None = None) -> None:
        super().__init__(message, Exit.FAILED)
        self.cause = cause

    @property
    def passes(self) -> bool:
        """Whether the same request may succeed later."""
        return self.cause is None or self.cause.status in (429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Attempted:
    """What was asked for: the verb as Kubernetes' rights name it, the kind, and the place."""

    verb: str
    resource: Resource
    namespace: str | None = None
    name: str | None = None
    subresource: str | None = None

    @property
    def kind(self) -> str:
        """The kind as rights name it, for example `finetunejobs.finetune.dev` or `pods/log`."""
        plural = f"{self.resource.plural}/{self.subresource}" if self.subresource else self.resource.plural
        return f"{plural}.{self.resource.group}" if self.resource.group else plural

    @property
    def place(self) -> str:
        """Where it was asked for."""
        return f"in namespace {self.namespace}" if self.namespace else "in all namespaces"


def sentence(error: KubeError, attempted: Attempted, there: Sequence[str] = ()) -> str:
    """What the API server's answer means, and what to do.

    Args:
        error: the answer.
        attempted: what was asked for.
        there: names of the objects that there are, if the object is missing.
    """
    if error.status == 401:
        return "the API server does not accept your credentials: log in again, or name another --context"
    match error:
        case Forbidden() if match := _NO_RIGHT.search(error.message):
            return _no_right(match["user"], attempted)
        case NotFound():
            return _missing(error, attempted, there)
        case Conflict() if (owner := _CHANGED_BY.search(error.message)) is not None:
            return (
                f"{attempted.name} {attempted.place}: {owner[1]} has set fields that the file sets otherwise; "
                f"--force-conflicts takes them over ({error.message})"
            )
        case Forbidden() | Conflict() | Invalid():
            return f"the API server refuses it: {error.message}"
    return f"the API server cannot answer (HTTP {error.status}): {error.message}; try again"


def _no_right(user: str, attempted: Attempted) -> str:
    said = f"you ({user}) may not {attempted.verb} {attempted.kind} {attempted.place}"
    if attempted.resource != FINETUNEJOBS:
        return f"{said}: ask an administrator for that right"
    role = _ROLES.get(attempted.verb, _EDIT)
    return f"{said}: ask an administrator for the ClusterRole {role}, which the roles view and edit include"


def _missing(error: KubeError, attempted: Attempted, there: Sequence[str]) -> str:
    if any(words in error.message for words in _NO_SUCH_KIND):
        if attempted.resource != FINETUNEJOBS:
            return f"this cluster has no {attempted.kind}"
        return f"this cluster has no {attempted.kind}: name another --context, or install the chart: {_INSTALL}"
    if attempted.name is None:
        return error.message
    kind = names.KIND if attempted.resource == FINETUNEJOBS else attempted.kind
    said = f"there is no {kind} {attempted.name} {attempted.place}"
    if near := difflib.get_close_matches(attempted.name, there):
        return f"{said}; there is {', '.join(near)}"
    some = ", ".join(sorted(there)[:10]) + (", …" if len(there) > 10 else "")
    return f"{said}; there is {some}" if there else f"{said}; -n names another namespace"


def unreachable(error: Exception, attempted: Attempted) -> str:
    """What is said when there is no answer at all."""
    cause = getattr(error, "reason", None) or error
    text = re.sub(r"<[^<>]* object at 0x[0-9a-f]+>:? ?", "", " ".join(str(cause).split()))[:500]
    return f"the API server does not answer (to {attempted.verb} {attempted.kind}): {text}; try again"
