"""The defences, each as a context in which it is missing.

What stands in for a piece of the operator here is that piece without its check, and nothing else.
"""

import base64
import importlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from component.tenants.site import Object, Site
from finetune_operator import listener
from finetune_operator.api import finetunejob, names
from finetune_operator.api.finetunejob import FineTuneJobRef
from finetune_operator.control import apply_child, controller, progress_cluster
from finetune_operator.control.informer import event_handler, record
from finetune_operator.control.live_reader import LiveReader
from finetune_operator.control.progress_cluster import KubeProgressCluster
from finetune_operator.kube import api
from finetune_operator.kube.api import FINETUNEJOBS, PODS, SERVICES, Applied, Kube, Resource
from finetune_operator.kube.client import ClientKube
from finetune_operator.kube.errors import Conflict
from finetune_operator.progress import auth, server, signing_keys
from finetune_operator.progress.ports import FineTuneJobState, PodIdentity
from finetune_operator.progress.ratelimit import Rate
from finetune_operator.reconcile import child_state, observed, plan_builder
from finetune_operator.reconcile.observed import JobView, pod_view
from finetune_trainer.contract import text, uri
from finetune_trainer.contract.rule import Rule
from finetune_trainer.contract.uri import Scheme, Uri
from finetune_trainer.storage import s3_client

Defence = Callable[[Site], AbstractAsyncContextManager[None]]


def _replaced(*changes: tuple[Any, str, Any]) -> Defence:
    """Attributes of the operator's modules and classes, replaced."""

    @asynccontextmanager
    async def without(site: Site) -> AsyncIterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for target, attribute, value in changes:
                patch.setattr(target, attribute, value)
            yield

    return without


def rules_hold_always(*rules: Rule[Any]) -> Defence:
    """The parser without these rules. The API server has them too: see the fixture `lax_crd`."""

    @asynccontextmanager
    async def without(site: Site) -> AsyncIterator[None]:
        before = [rule.holds for rule in rules]
        for rule in rules:
            object.__setattr__(rule, "holds", lambda _: True)
        try:
            yield
        finally:
            for rule, holds in zip(rules, before, strict=True):
                object.__setattr__(rule, "holds", holds)

    return without


# Which children count.

_child = event_handler.EventHandler._child


def _child_of_any_namespace(
    self: event_handler.EventHandler, type_: str | None, raw: Mapping[str, Any], view_of: Callable[..., Any]
) -> None:
    """A child belongs to the FineTuneJob with the UID of its label, wherever it is."""
    key = self._cache._keys.get((raw["metadata"].get("labels") or {}).get(names.FINETUNEJOB_UID_LABEL, ""))
    moved = raw if key is None else {**raw, "metadata": {**raw["metadata"], "namespace": key[0]}}
    _child(self, type_, moved, view_of)


NAMESPACE_OF_CHILDREN = _replaced((event_handler.EventHandler, "_child", _child_of_any_namespace))


def _any_child(self: plan_builder.PlanBuilder, role: str, attempt: int) -> JobView | None:
    """Any Job with the role and the attempt, rather one that is not recorded."""
    jobs = [job for job in self.observed.jobs if (job.role, job.attempt) == (role, attempt)]
    return min(jobs, key=lambda job: job.uid == self.status.job_uid, default=None)


RECORDED_UID = _replaced((plan_builder.PlanBuilder, "child", _any_child))


async def _deleted(*_: object) -> None:
    """A child that is not found by its labels was deleted."""


STRIPPED_CHILD = _replaced((LiveReader, "_stripped", _deleted))
LIVE_READ = _replaced((controller, "_needs_live_read", lambda *_: False))


async def _no_check(*_: object) -> None:
    """Any Job that the apply did not refuse."""


async def _apply_by_force(kube: Kube, manifest: Mapping[str, Any]) -> Object:
    """Takes over whatever has the name."""
    return (await kube.apply(SERVICES, manifest)).raw


CHECK_OF_EXISTING_JOB = _replaced((apply_child, "_check_spec", _no_check))
OWNER_OF_SERVICE = _replaced((controller, "_APPLY", {**controller._APPLY, "Service": _apply_by_force}))


async def _create_or_get(self: ClientKube, resource: Resource, manifest: Mapping[str, Any]) -> Applied:
    """Takes whatever has the name."""
    metadata = manifest["metadata"]
    try:
        return Applied(await self.create(resource, metadata["namespace"], manifest), created=True)
    except Conflict:
        return Applied(await self.get(resource, metadata["namespace"], metadata["name"]), created=True)


TEMPLATE_OF_EXISTING = _replaced((ClientKube, "apply", _create_or_get))
_affixed = names._affixed


def _affixed_anyhow(prefix: str, job: str, suffix: str, most: int) -> str:
    """A name that is not shortened may have as many characters as one that is."""
    whole = prefix + job + suffix
    return whole if len(whole) <= most else _affixed(prefix, job, suffix, most)


LENGTH_OF_NAME = _replaced((names, "_affixed", _affixed_anyhow))
ATTEMPT_IN_NAME = _replaced((names, "child_name", lambda job, role, _: f"{job}-{role}"))

# Who may report.


async def _judge_any_namespace(
    self: auth.Authenticator, token: str, audience: str, ref: FineTuneJobRef
) -> auth.Verdict:
    pod = await self._cluster.review(token, audience)
    attempt = None if pod is None else await self._cluster.attempt_of(ref, pod)
    return auth.Denied("") if pod is None or attempt is None else auth.ReportingPod(pod_name=pod.name, attempt=attempt)


def _no_claims_checked(*_: object) -> None:
    """The token's own claims may say anything."""


NAMESPACE_OF_REPORTER = _replaced(
    (auth.Authenticator, "_judge", _judge_any_namespace), (auth.Authenticator, "_check_claims", _no_claims_checked)
)


async def _any_signature(*_: object) -> signing_keys.Signature:
    return signing_keys.Signature.VALID


SIGNATURE = _replaced((signing_keys.SigningKeys, "check", _any_signature))


async def _attempt_by_label(self: KubeProgressCluster, ref: FineTuneJobRef, pod: PodIdentity) -> int | None:
    """A pod with the job's labels belongs to it."""
    view = pod_view(await self._kube.get(PODS, pod.namespace, pod.name))
    return view.attempt if view is not None and view.owner_uid == ref.uid else None


OWNER_OF_POD = _replaced((KubeProgressCluster, "attempt_of", _attempt_by_label))


async def _current_attempt(self: KubeProgressCluster, ref: FineTuneJobRef, pod: PodIdentity) -> int | None:
    """Any pod reports for the current attempt."""
    state = await self.finetunejob(ref)
    return None if state is None else state.attempt


JOB_OF_POD = _replaced((KubeProgressCluster, "attempt_of", _current_attempt))

_attempt_of = KubeProgressCluster.attempt_of


async def _own_pod_of_any_attempt(self: KubeProgressCluster, ref: FineTuneJobRef, pod: PodIdentity) -> int | None:
    if await _attempt_of(self, ref, pod) is None:
        return None
    return await _current_attempt(self, ref, pod)


ATTEMPT_OF_POD = _replaced((KubeProgressCluster, "attempt_of", _own_pod_of_any_attempt))
AUDIENCE = _replaced((names, "progress_audience", lambda _: "finetune.dev"))


async def _believe_claims(self: KubeProgressCluster, token: str, audience: str) -> PodIdentity | None:
    """What the token says of itself, without a signature."""
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["kubernetes.io"]
    return PodIdentity(namespace=claims["namespace"], name=claims["pod"]["name"], uid=claims["pod"]["uid"])


TOKEN_REVIEW = _replaced((KubeProgressCluster, "review", _believe_claims))

_finetunejob_state = KubeProgressCluster.finetunejob


async def _never_finished(self: KubeProgressCluster, ref: FineTuneJobRef) -> FineTuneJobState | None:
    state = await _finetunejob_state(self, ref)
    return None if state is None else replace(state, finished=False)


END_IS_FINAL = _replaced(
    (KubeProgressCluster, "finetunejob", _never_finished), (progress_cluster, "_is_out_of_date", lambda *_: False)
)
CLOCK = _replaced((server, "MAX_CLOCK_SKEW", timedelta(days=36_500)))
REVIEW_RATE = _replaced((auth, "REVIEWS_OF_POD", Rate(per_second=1e6, burst=1_000_000)))


async def _read_unchecked(self: KubeProgressCluster, ref: FineTuneJobRef) -> record.FineTuneJobRecord | None:
    return self._keep(await self._kube.get(FINETUNEJOBS, ref.namespace, ref.name))


LOG_OF_REQUESTS = _replaced((listener, "_requests", logging.getLogger("aiohttp.server")))
NAMES_IN_PATHS = _replaced(
    (server, "_LABEL", "[^{}/]+"),
    (api, "_segment", lambda name: name),
    (KubeProgressCluster, "_read", _read_unchecked),
)

# What a spec may hold.

REFUSAL = _replaced((importlib.import_module("finetune_operator.reconcile.reconcile"), "refuse", lambda *_: None))
SIZE_OF_SPEC = _replaced((finetunejob, "MAX_SPEC_BYTES", 1 << 30), (record, "MAX_SPEC_BYTES", 1 << 30))
SPECS_KEPT = _replaced((record, "KEPT_SPEC_BYTES", 1 << 30))
PLACES = _replaced((finetunejob, "cluster_problems", lambda _: []))


def _parse_climbing(written: str) -> Uri:
    scheme, _, rest = written.partition("://")
    authority, _, path = rest.partition("/")
    return Uri(scheme=Scheme(scheme), authority=authority, path=path)


CLIMBING = _replaced((uri, "parse_uri", _parse_climbing))
ENDPOINT = _replaced((s3_client, "check_endpoint", lambda _: None))
READABLE = _replaced(*((module, "readable", str) for module in (text, child_state, observed)))
