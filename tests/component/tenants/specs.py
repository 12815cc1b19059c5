"""Attacks by the spec: what a FineTuneJob would make the operator and its pods do."""

import json
from typing import Any

from component.plane import a_finetunejob
from component.tenants.attack import Table
from component.tenants.defences import (
    CLIMBING,
    ENDPOINT,
    PLACES,
    REFUSAL,
    SIZE_OF_SPEC,
    SPECS_KEPT,
    rules_hold_always,
)
from component.tenants.site import Object, Site
from finetune_operator.api import names, scheduling
from finetune_operator.api.finetunejob import parse_job
from finetune_operator.kube.api import FINETUNEJOBS
from finetune_operator.kube.errors import Invalid
from finetune_operator.reconcile.recipe import recipe_of
from finetune_trainer.contract import scalar, uri
from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.contract.rule import Rule
from finetune_trainer.storage.registry import open_store

ATTACKS = Table()
_VARIABLE_RULES = [item for item in scheduling.EnvVar.model_fields["name"].metadata if isinstance(item, Rule)]


@ATTACKS.row("a ServiceAccount that the administrator has not listed", REFUSAL)
async def _(site: Site) -> bool:
    template = await site.child_spec(scheduling={"serviceAccountName": "builder"})
    return template is not None and template["spec"].get("serviceAccountName") == "builder"


@ATTACKS.row("a variable by which OpenSSL loads a library", REFUSAL)
async def _(site: Site) -> bool:
    return await _variable(site, "OPENSSL_CONF")


@ATTACKS.row(
    "a variable by which the linker loads a library", REFUSAL, rules_hold_always(*_VARIABLE_RULES), lax_crd=True
)
async def _(site: Site) -> bool:
    return await _variable(site, "LD_PRELOAD")


async def _variable(site: Site, name: str) -> bool:
    template = await site.child_spec(scheduling={"env": [{"name": name, "value": "/work/evil"}]})
    return template is not None and name in {item["name"] for item in template["spec"]["containers"][0]["env"]}


@ATTACKS.row("an annotation that turns AppArmor off", REFUSAL)
async def _(site: Site) -> bool:
    key = "container.apparmor.security.beta.kubernetes.io/trainer"
    template = await site.child_spec(scheduling={"annotations": {key: "unconfined"}})
    return template is not None and key in template["metadata"]["annotations"]


@ATTACKS.row("code of a model's repository", REFUSAL)
async def _(site: Site) -> bool:
    template = await site.child_spec(model={"uri": "hf://org/model", "trustRemoteCode": True})
    return template is not None and bool(_recipe(template)["model"]["trustRemoteCode"])


@ATTACKS.row(
    "a label by which Argo CD takes the pod for its own", rules_hold_always(scheduling._OWN_KEYS), lax_crd=True
)
async def _(site: Site) -> bool:
    template = await site.child_spec(scheduling={"labels": {"app.kubernetes.io/instance": "payments"}})
    return template is not None and "app.kubernetes.io/instance" in template["metadata"]["labels"]


@ATTACKS.row("data from the pod's own files", PLACES, lax_crd=True)
async def _(site: Site) -> bool:
    template = await site.child_spec(dataset={"uri": "file:///run/secrets/token"})
    return template is not None and _recipe(template)["dataset"]["uri"].startswith("file://")


_NO_CLIMBING = (rules_hold_always(uri._NO_CLIMBING), CLIMBING)


@ATTACKS.row("an output that climbs out of its prefix", *_NO_CLIMBING, lax_crd=True)
async def _(site: Site) -> bool:
    template = await site.child_spec(output={"uri": "s3://models/team-a/../team-b"})
    return template is not None and ".." in _recipe(template)["output"]["uri"]


@ATTACKS.row("data that climbs out of its volume", *_NO_CLIMBING, lax_crd=True)
async def _(site: Site) -> bool:
    template = await site.child_spec(dataset={"uri": "pvc://data/../../../run/secrets/token"})
    return template is not None and ".." in _recipe(template)["dataset"]["uri"]


@ATTACKS.row("control characters in the spec", rules_hold_always(scalar.PLAIN), lax_crd=True)
async def _(site: Site) -> bool:
    token = "\x1b]0;evil\x07\u202e"
    template = await site.child_spec(runToken=token)
    return template is not None and (await site.status(site.attacker))["runToken"] == token


@ATTACKS.row("another output after the checks", lax_crd=True)
async def _(site: Site) -> bool:
    await site.begin(site.attacker)
    patch = {"spec": {"output": {"uri": "s3://models/elsewhere"}}}
    return await site.allowed(site.patch(FINETUNEJOBS, site.name, patch))


async def _keeps(site: Site, prompts: list[str]) -> int:
    """Bytes of a spec with these prompts that the operator keeps."""
    await site.begin(site.attacker, evaluation={"samplePrompts": prompts})
    record = site.cache.finetunejob((site.attacker, site.name))
    return 0 if record is None else len(record.spec)


@ATTACKS.row("many specs of which each is as large as it may be", SPECS_KEPT)
async def _(site: Site) -> bool:
    return await _keeps(site, ["x" * 2000] * 16) > 30_000


@ATTACKS.row("a spec that fills the operator's memory", SIZE_OF_SPEC, SPECS_KEPT)
async def _(site: Site) -> bool:
    prompts = ["\u3042" * 2000] * 16  # three bytes each: within every bound of the schema, and 96 KB in all
    return await _keeps(site, prompts) > 65_536


_METADATA_SERVICES = (
    "http://169.254.169.254",
    "http://2852039166",
    "http://0xa9fea9fe",
    "http://0251.0376.0251.0376",
    "http://[::ffff:169.254.169.254]",
    "http://[64:ff9b::a9fe:a9fe]",
    "http://[2002:a9fe:a9fe::1]",
    "http://[fe80::1]",
    "http://[fd00:ec2::254]",
    "http://metadata.google.internal",
    "http://100.100.100.200",
    "http://0.0.0.0",
)


@ATTACKS.row("an endpoint that is a cloud's metadata service, in twelve forms", ENDPOINT)
async def _(site: Site) -> bool:
    return any([await _opens(site, endpoint) for endpoint in _METADATA_SERVICES])


async def _opens(site: Site, endpoint: str) -> bool:
    """Whether a pod with this endpoint would send requests there."""
    body = a_finetunejob(site.attacker, site.name, storage={"endpoint": endpoint})
    try:
        raw = await site.tenant.create(FINETUNEJOBS, site.attacker, body, dry_run=True)
    except Invalid:
        return False
    recipe = recipe_of(parse_job(raw), attempt=1)
    try:
        open_store(recipe.output.uri, recipe.storage, None)
    except TrainerError:
        return False
    return True


def _recipe(template: Object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(template["metadata"]["annotations"][names.RECIPE_ANNOTATION])
    return found
