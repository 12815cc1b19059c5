"""The client against a real API server: what Kubernetes promises and the operator builds on."""

import asyncio
import json

import pytest

from component.plane import Plane, a_finetunejob
from finetune_operator.api import names
from finetune_operator.kube.api import FINETUNEJOBS, JOBS, MAX_PAGE_BYTES, PODS, Resource
from finetune_operator.kube.client import USER_AGENT, ClientKube
from finetune_operator.kube.errors import Conflict, Forbidden, Invalid, NotFound

SECRETS = Resource(group="", version="v1", plural="secrets")


def a_child(namespace: str, name: str = "child", image: str = "image:1") -> dict[str, object]:
    container = {"name": "main", "image": image}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"namespace": namespace, "name": name, "labels": {names.MANAGED_BY_LABEL: names.MANAGED_BY}},
        "spec": {"suspend": True, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }


async def test_apply_twice_is_one_object(kube: ClientKube, namespace: str) -> None:
    first, created = await kube.apply(JOBS, a_child(namespace))
    second, created_again = await kube.apply(JOBS, a_child(namespace))
    assert (created, created_again) == (True, False)
    assert second["metadata"]["uid"] == first["metadata"]["uid"]
    assert second["metadata"]["generation"] == first["metadata"]["generation"]
    with pytest.raises(Invalid, match="immutable"):
        await kube.apply(JOBS, a_child(namespace, image="image:2"))


async def test_lists_come_in_pages_and_by_label(kube: ClientKube, admin: ClientKube, namespace: str) -> None:
    for index in range(7):
        await kube.apply(JOBS, a_child(namespace, f"child-{index}"))
    foreign = a_child(namespace, "foreign")
    foreign["metadata"] = {"namespace": namespace, "name": "foreign"}
    await admin.create(JOBS, namespace, foreign)
    selector = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"
    pages = [page async for page in kube.pages(JOBS, namespace, label_selector=selector)]
    assert [len(page.items) for page in pages] == [3, 3, 1]
    assert len({page.resource_version for page in pages}) == 1, "pages show one version of the collection"


async def test_large_objects_come_in_smaller_pages(admin: ClientKube, namespace: str) -> None:
    config_maps = Resource(group="", version="v1", plural="configmaps")
    large = {"text": "x" * (MAX_PAGE_BYTES // 10)}
    for number in range(12):
        await admin.create(config_maps, namespace, {"metadata": {"name": f"large-{number}"}, "data": large})
    pages = [page async for page in admin.pages(config_maps, namespace)]
    found = [item["metadata"]["name"] for page in pages for item in page.items]
    assert sorted(name for name in found if name.startswith("large-")) == sorted(f"large-{n}" for n in range(12))
    assert max(len(json.dumps(page.items)) for page in pages) <= MAX_PAGE_BYTES


async def test_a_deletion_is_of_that_very_object(kube: ClientKube, namespace: str) -> None:
    job, _ = await kube.apply(JOBS, a_child(namespace))
    with pytest.raises(Conflict):
        await kube.delete(JOBS, namespace, "child", uid="another")
    await kube.delete(JOBS, namespace, "child", uid=job["metadata"]["uid"])
    with pytest.raises(NotFound):
        await kube.get(JOBS, namespace, "child")


async def test_the_operator_may_not_read_secrets_nor_change_a_spec(
    kube: ClientKube, admin: ClientKube, namespace: str
) -> None:
    await admin.create(FINETUNEJOBS, namespace, a_finetunejob(namespace))
    for forbidden in (
        kube.get(SECRETS, namespace, "any"),
        kube.merge(FINETUNEJOBS, namespace, "job", {"spec": {"suspend": True}}, field_manager="x"),
        kube.create(PODS, namespace, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}),
    ):
        with pytest.raises(Forbidden):
            await forbidden


async def test_the_audit_log_tells_our_writes_from_others(kube: ClientKube, namespace: str, plane: Plane) -> None:
    mark = plane.mark()
    await asyncio.gather(*(kube.apply(JOBS, a_child(namespace, f"child-{index}")) for index in range(3)))
    assert len(plane.operator_writes(mark, namespace)) == 3
    assert USER_AGENT.startswith("finetune-operator/")
