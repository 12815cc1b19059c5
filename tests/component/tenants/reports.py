"""Attacks on the progress server."""

import base64
import io
import json
import logging
from datetime import UTC, datetime
from typing import Any

from component.plane import a_finetunejob
from component.tenants.attack import Table
from component.tenants.defences import (
    ATTEMPT_OF_POD,
    AUDIENCE,
    CLOCK,
    END_IS_FINAL,
    JOB_OF_POD,
    LOG_OF_REQUESTS,
    NAMES_IN_PATHS,
    NAMESPACE_OF_REPORTER,
    OWNER_OF_POD,
    REVIEW_RATE,
    SIGNATURE,
    TOKEN_REVIEW,
)
from component.tenants.site import FORGED_SUCCESS, Object, Site
from finetune_operator.api import names
from finetune_operator.kube.api import FINETUNEJOBS, PODS
from finetune_operator.logs import JsonFormatter

ATTACKS = Table()


async def _own(site: Site, **spec: Any) -> tuple[Object, Object]:
    """A FineTuneJob of the tenant's own, and its pod."""
    own = await site.begin(site.attacker, **spec)
    return own, await site.pod(site.attacker, own["status"]["jobName"])


async def _lookalike(site: Site, finetunejob: Object) -> Object:
    """A pod in the tenant's namespace with the labels of a FineTuneJob's pod."""
    labels = site.child(finetunejob)["metadata"]["labels"]
    metadata = {"name": f"{site.name}-lookalike", "labels": labels}
    spec = {"containers": [{"name": "trainer", "image": "evil:1"}]}
    return await site.tenant.create(
        PODS, site.attacker, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    )


@ATTACKS.row("a pod of another namespace with a token for the victim's job", NAMESPACE_OF_REPORTER, OWNER_OF_POD)
async def _(site: Site) -> bool:
    victim = await site.begin(site.victim)
    token = await site.token(await _lookalike(site, victim), victim)
    await site.post(token, victim)
    return await site.shows_evil_step(site.victim)


@ATTACKS.row("the pod of the tenant's own job reports for the victim's", AUDIENCE, NAMESPACE_OF_REPORTER, JOB_OF_POD)
async def _(site: Site) -> bool:
    victim = await site.begin(site.victim)
    own, pod = await _own(site)
    await site.post(await site.token(pod, own), victim)
    return await site.shows_evil_step(site.victim)


@ATTACKS.row("a pod reports for another job of its namespace", AUDIENCE, JOB_OF_POD)
async def _(site: Site) -> bool:
    own, pod = await _own(site)
    other = f"{site.name}-other"
    await site.tenant.create(FINETUNEJOBS, site.attacker, a_finetunejob(site.attacker, other))
    await site.look()
    await site.post(await site.token(pod, own), await site.admin.get(FINETUNEJOBS, site.attacker, other))
    return await site.shows_evil_step(site.attacker, other)


@ATTACKS.row("a pod with the labels of a child, and no Job", OWNER_OF_POD)
async def _(site: Site) -> bool:
    own, _ = await _own(site)
    await site.post(await site.token(await _lookalike(site, own), own), own)
    return await site.shows_evil_step(site.attacker)


@ATTACKS.row("a pod of one job with the labels of another", OWNER_OF_POD)
async def _(site: Site) -> bool:
    _, pod = await _own(site)
    name = f"{site.name}-other"
    await site.tenant.create(FINETUNEJOBS, site.attacker, a_finetunejob(site.attacker, name))
    await site.look()
    other = await site.admin.get(FINETUNEJOBS, site.attacker, name)
    await site.patch(PODS, pod["metadata"]["name"], {"metadata": {"labels": site.child(other)["metadata"]["labels"]}})
    await site.post(await site.token(pod, other), other)
    return await site.shows_evil_step(site.attacker, name)


@ATTACKS.row("a token that the tenant wrote itself, with the claims of the victim's pod", SIGNATURE, TOKEN_REVIEW)
async def _(site: Site) -> bool:
    victim = await site.begin(site.victim)
    pod = await site.pod(site.victim, victim["status"]["jobName"])
    pod = await site.tenant.get(PODS, site.victim, pod["metadata"]["name"])  # `view` shows it
    await site.post(_unsigned(victim, pod["metadata"]["name"], pod["metadata"]["uid"]), victim)
    return await site.shows_evil_step(site.victim)


def _unsigned(finetunejob: Object, pod_name: str, pod_uid: str) -> str:
    metadata = finetunejob["metadata"]
    claims = {
        "iss": "https://kubernetes.default.svc.cluster.local",
        "aud": [names.progress_audience(metadata["uid"])],
        "exp": datetime.now(UTC).timestamp() + 3600,
        "kubernetes.io": {"namespace": metadata["namespace"], "pod": {"name": pod_name, "uid": pod_uid}},
    }
    parts = [json.dumps({"alg": "RS256"}), json.dumps(claims), "signature"]
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


@ATTACKS.row("a name in the path that leads to the victim's job", NAMES_IN_PATHS)
async def _(site: Site) -> bool:
    await site.begin(site.victim)
    own, pod = await _own(site)
    uid = own["metadata"]["uid"]
    path = f"{site.attacker}/..%2F..%2F{site.victim}%2F{names.PLURAL}%2F{site.name}/{uid}"
    await site.post(await site.token(pod, own), own, path=path)
    return await site.shows_evil_step(site.victim)


@ATTACKS.row("the token of a former attempt", ATTEMPT_OF_POD)
async def _(site: Site) -> bool:
    own, pod = await _own(site, retry={"limit": 1, "backoffSeconds": 0})
    token = await site.token(pod, own)
    await site.end(pod, "", exit_code=1)
    await site.failed(site.attacker, own["status"]["jobName"])
    for _ in range(2):
        await site.look()
    assert (await site.status(site.attacker))["attempt"] == 2
    await site.post(token, own)
    return await site.shows_evil_step(site.attacker)


@ATTACKS.row("a report after the end", END_IS_FINAL)
async def _(site: Site) -> bool:
    own, pod = await _own(site)
    await site.end(pod, FORGED_SUCCESS)
    await site.look()
    assert (await site.status(site.attacker))["phase"] == "Succeeded"
    await site.post(await site.token(pod, own), own)
    return await site.shows_evil_step(site.attacker)


@ATTACKS.row("a report from the future, after which no attempt stalls", CLOCK)
async def _(site: Site) -> bool:
    own, pod = await _own(site)
    await site.post(await site.token(pod, own), own, at=datetime(2099, 1, 1, tzinfo=UTC))
    return await site.shows_evil_step(site.attacker)


@ATTACKS.row("a flood of forged tokens, each of which costs the API server a TokenReview", SIGNATURE, REVIEW_RATE)
async def _(site: Site) -> bool:
    own, pod = await _own(site)
    for number in range(30):
        forged = _unsigned(own, pod["metadata"]["name"], pod["metadata"]["uid"]) + str(number)
        await site.post(forged, own)
    return site.progress.reviews > 0


@ATTACKS.row("a request that brings a token into the operator's log", LOG_OF_REQUESTS)
async def _(site: Site) -> bool:
    own, pod = await _own(site)
    token = await site.token(pod, own)
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setFormatter(JsonFormatter())
    logging.getLogger().addHandler(handler)
    try:
        await site.post(token + "a" * 9000, own)
    finally:
        logging.getLogger().removeHandler(handler)
    return token[:40] in log.getvalue()
