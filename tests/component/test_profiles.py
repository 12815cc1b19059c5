"""Profiles on a real API server, with the operator as a process that has only its shipped rights."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from component.plane import Plane, Process, a_finetunejob, eventually, operator
from finetune_operator.cli import main


def a_profile(name: str, namespace: str | None, *, default: bool = False, **spec: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if namespace is not None:
        metadata["namespace"] = namespace
    if default:
        metadata["annotations"] = {"finetune.dev/is-default-profile": "true"}
    kind = "ClusterFineTuneProfile" if namespace is None else "FineTuneProfile"
    return {"apiVersion": "finetune.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


@pytest.fixture
def cluster_name(plane: Plane) -> Iterator[str]:
    """The name of a ClusterFineTuneProfile, which is deleted at the end."""
    name = f"standard-{uuid.uuid4().hex[:8]}"
    yield name
    plane.kubectl("delete", "clusterfinetuneprofile", name, "--ignore-not-found")


def apply(plane: Plane, *objects: dict[str, Any]) -> None:
    plane.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


def status(plane: Plane, namespace: str, name: str = "job") -> dict[str, Any]:
    found: dict[str, Any] = plane.get("ftj", namespace, name).get("status", {})
    return found


def reason(plane: Plane, namespace: str, name: str = "job") -> str:
    return next((item["reason"] for item in status(plane, namespace, name).get("conditions", [])), "")


def recipe(plane: Plane, namespace: str, child: str) -> dict[str, Any]:
    template = plane.get("job", namespace, child)["spec"]["template"]
    found: dict[str, Any] = json.loads(template["metadata"]["annotations"]["finetune.dev/recipe"])
    return found


def quiet(process: Process) -> bool:
    """Whether the operator has never been refused anything."""
    return not [line for line in process.lines() if line["level"] in ("WARNING", "ERROR")]


async def test_defaults_by_annotation_make_three_facts_enough(
    plane: Plane, tmp_path: Path, namespace: str, cluster_name: str
) -> None:
    apply(
        plane,
        a_profile(
            cluster_name,
            None,
            default=True,
            storage={"endpoint": "https://s3.example.com", "secretRef": {"name": "keys"}},
            scheduling={"tolerations": [{"key": "gpu", "operator": "Exists"}], "nodeSelector": {"gpu": "h100"}},
            retry={"limit": 1},
            ceilings={"resources": {"gpus": 2}},
        ),
        a_profile("team", namespace, default=True, preflight={"enabled": False}, lora={"rank": 8}),
    )
    with operator(plane, tmp_path, namespace, FINETUNE_CLUSTER_PROFILES="true") as process:
        facts = a_finetunejob(namespace)
        del facts["spec"]["preflight"]
        apply(plane, facts)
        await eventually("the training", lambda: plane.succeeds("get", "job", "job-train-1", "-n", namespace))
        pod = plane.get("job", namespace, "job-train-1")["spec"]["template"]["spec"]
        assert pod["nodeSelector"] == {"gpu": "h100"}
        assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
        assert "keys" in json.dumps(pod["volumes"])
        assert recipe(plane, namespace, "job-train-1")["storage"]["endpoint"] == "https://s3.example.com"

        def recorded() -> dict[str, Any] | None:
            return status(plane, namespace).get("profile")

        profile = await eventually("status.profile", recorded)
        assert profile["display"] == f"{cluster_name}, team"
        assert recipe(plane, namespace, "job-train-1")["profile"] == {
            "sources": profile["sources"], "digest": profile["digest"],
        }  # fmt: skip
        assert f"{cluster_name}, team" in plane.kubectl("get", "ftj", "-n", namespace, "-o", "wide")

        # Nothing reaches the run that has begun: not even the loss of the profiles.
        apply(plane, a_profile("team", namespace, default=True, preflight={"enabled": False}, lora={"rank": 64}))
        plane.kubectl("delete", "clusterfinetuneprofile", cluster_name)
        apply(plane, a_finetunejob(namespace, "later"))
        await eventually("the later job", lambda: plane.succeeds("get", "job", "later-train-1", "-n", namespace))
        await eventually("its status", lambda: status(plane, namespace, "later").get("profile"))
        assert recipe(plane, namespace, "later-train-1")["lora"]["rank"] == 64
        assert "endpoint" not in recipe(plane, namespace, "later-train-1")["storage"]
        plane.kubectl("delete", "job", "job-train-1", "-n", namespace)
        await eventually("the second attempt", lambda: plane.succeeds("get", "job", "job-train-2", "-n", namespace))
        first = recipe(plane, namespace, "job-train-2")
        assert (first["lora"]["rank"], first["storage"]["endpoint"]) == (8, "https://s3.example.com")
        assert status(plane, namespace)["profile"] == profile
        assert quiet(process)


async def test_a_job_above_a_ceiling_is_refused_and_makes_no_pod(
    plane: Plane, tmp_path: Path, namespace: str, cluster_name: str
) -> None:
    apply(plane, a_profile(cluster_name, None, default=True, ceilings={"resources": {"gpus": 2}}))
    lifting = {"resources": {"gpus": 16}}
    apply(plane, a_profile("team", namespace, default=True, ceilings=lifting, **lifting))
    with operator(plane, tmp_path, namespace, FINETUNE_CLUSTER_PROFILES="true"):
        apply(plane, a_finetunejob(namespace))
        failure = await eventually("the failure", lambda: status(plane, namespace).get("failure"))
        assert failure["reason"] == "InvalidSpec"
        assert failure["message"].startswith(
            f"spec.resources.gpus: is above the ceiling of ClusterFineTuneProfile {cluster_name}, 2; lower it"
        )
        assert plane.items("job", namespace) == []


async def test_a_missing_profile_is_waited_for_and_an_invalid_one_is_named(
    plane: Plane, tmp_path: Path, namespace: str
) -> None:
    # The CRD is changed first: a watch that is open goes on with the schema that it was opened with.
    with plane.newer_profiles(), operator(plane, tmp_path, namespace) as process:
        apply(plane, a_finetunejob(namespace, profileRef={"name": "team"}))
        await eventually("the reason", lambda: reason(plane, namespace) == "ProfileNotFound")
        assert status(plane, namespace)["phase"] == "Pending"
        assert plane.items("job", namespace) == []
        apply(plane, a_profile("team", namespace, later={"field": 1}))
        await eventually("the other reason", lambda: reason(plane, namespace) == "ProfileInvalid")
        said = status(plane, namespace)["conditions"][0]["message"]
        assert said.startswith("FineTuneProfile team cannot be used: spec.later: unknown field")
        apply(plane, a_profile("team", namespace, lora={"rank": 8}))
        await eventually("the training", lambda: plane.succeeds("get", "job", "job-train-1", "-n", namespace))
        assert recipe(plane, namespace, "job-train-1")["lora"]["rank"] == 8
        assert quiet(process)


async def test_the_crds_may_be_missing(plane: Plane, tmp_path: Path, namespace: str) -> None:
    with (
        plane.without_profiles(),
        operator(plane, tmp_path, namespace, FINETUNE_CLUSTER_PROFILES="true") as process,
    ):
        apply(plane, a_finetunejob(namespace))
        await eventually("the training", lambda: plane.succeeds("get", "job", "job-train-1", "-n", namespace))
        assert process.terminate() == 0


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"output": {"uri": "s3://a/b"}}, 'unknown field "spec.output"'),
        ({"lora": {"rank": 0}}, "spec.lora.rank"),
        ({"ceilings": {"resources": {"memory": "1Mi"}}}, "spec.ceilings.resources.memory"),
        ({"scheduling": {"env": [{"name": "LD_PRELOAD"}]}}, "this variable belongs to the trainer"),
        ({"scheduling": {"tolerations": [{"value": "a"}]}}, "a toleration without key needs operator Exists"),
    ],
)
def test_the_api_server_refuses_an_invalid_profile(
    plane: Plane, namespace: str, spec: dict[str, Any], words: str
) -> None:
    refused = plane._run(
        "create", "--dry-run=server", "-f", "-", stdin=json.dumps(a_profile("team", namespace, **spec))
    )
    assert refused.returncode != 0
    assert words in refused.stderr


def test_tenants_edit_their_profiles_and_read_no_others(plane: Plane, namespace: str) -> None:
    for user, role in (("ed", "edit"), ("vi", "view")):
        plane.kubectl("create", "rolebinding", user, f"--clusterrole={role}", f"--user={user}", "-n", namespace)
    assert plane.may("--as=ed", "create", "finetuneprofiles.finetune.dev", namespace)
    assert plane.may("--as=vi", "list", "finetuneprofiles.finetune.dev", namespace)
    assert not plane.may("--as=vi", "create", "finetuneprofiles.finetune.dev", namespace)
    assert not plane.may("--as=ed", "get", "finetuneprofiles.finetune.dev", "default")
    assert not plane.may("--as=ed", "create", "clusterfinetuneprofiles.finetune.dev", namespace)
    account = "--as=system:serviceaccount:finetune-system:finetune-operator"
    for kind in ("finetuneprofiles.finetune.dev", "clusterfinetuneprofiles.finetune.dev"):
        assert plane.may(account, "watch", kind, namespace)
        assert not plane.may(account, "patch", kind, namespace)


def test_the_plan_says_where_each_value_comes_from(
    plane: Plane,
    tmp_path: Path,
    namespace: str,
    cluster_name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    apply(plane, a_profile(cluster_name, None, default=True, resources={"memory": "8Gi"}, lora={"rank": 4}))
    apply(plane, a_profile("team", namespace, lora={"rank": 8}))
    job = tmp_path / "job.yaml"
    job.write_text(json.dumps(a_finetunejob(namespace, profileRef={"name": "team"}, lora={"alpha": 7})))
    assert main(["plan", str(job), "--settings"]) == 0
    said = capsys.readouterr().out
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in said.splitlines() if len(line.split()) > 2}
    assert [item.strip() for item in rows["lora.rank"]] == ["8", "FineTuneProfile team"]
    assert [item.strip() for item in rows["lora.alpha"]] == ["7", "job"]
    assert [item.strip() for item in rows["resources.memory"]] == ["8Gi", f"ClusterFineTuneProfile {cluster_name}"]
    assert [item.strip() for item in rows["retry.limit"]] == ["3", "default"]
    assert f"Profile 1:   ClusterFineTuneProfile {cluster_name}" in said
