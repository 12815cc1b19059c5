"""One training on two nodes: one result, that of one process, and one reason, that of the pod that failed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cluster.lab import CPU_ONLY, Lab
from demo.artefact import download, verified_manifest
from demo.s3 import keys_under, s3_client
from finetune_operator.api import names
from localcluster import Target, levers

TWO_NODES = {**CPU_ONLY, "nodes": 2}
LORA = {"rank": 4, "alpha": 8}


@pytest.fixture(scope="module", autouse=True)
def two_nodes(target: Target) -> Iterator[None]:
    """Two nodes for this module; on the local cluster the second one comes and goes."""
    if target.local is not None:
        with levers.second_node(target.local):
            yield
        return
    if len([node for node in target.kubectl.items("nodes") if _takes_pods(node)]) < 2:
        pytest.skip("the cluster has one node")
    yield


def _takes_pods(node: dict[str, Any]) -> bool:
    """Whether any pod may be put there."""
    conditions = {item["type"]: item["status"] for item in node["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and not node["spec"].get("taints")


def _phases(lab: Lab, name: str) -> list[str]:
    return [pod["status"]["phase"] for pod in lab.pods(name, names.TRAIN_ROLE)]


def _weights(lab: Lab, status: dict[str, Any], folder: Path) -> dict[str, torch.Tensor]:
    run = download(lab.target, status, folder)
    manifest = verified_manifest(run, status)
    return load_file(run / manifest["adapter"] / "adapter_model.safetensors")


def test_two_nodes_make_what_one_process_makes(lab: Lab, tmp_path: Path) -> None:
    recipe: dict[str, Any] = {"training": {"maxSteps": 8, "batchSize": 5, "learningRate": "5e-3"}, "lora": LORA}
    lab.apply("together", resources=TWO_NODES, **recipe)
    lab.apply("alone", preflight={"enabled": False}, **recipe)
    together, alone = (lab.until_finished(name, seconds=240) for name in ("together", "alone"))

    assert (together["phase"], alone["phase"]) == ("Succeeded", "Succeeded"), lab.picture()
    assert together["attempt"] == 1
    lab.until("both pods' end", lambda: _phases(lab, "together") == ["Succeeded", "Succeeded"])
    assert len({pod["spec"]["nodeName"] for pod in lab.pods("together", names.TRAIN_ROLE)}) == 2
    metrics, wanted = together["output"]["metrics"], alone["output"]["metrics"]
    assert float(metrics["loss"]) == pytest.approx(float(wanted["loss"]), abs=1e-5)
    assert (metrics["steps"], metrics["tokens"]) == (wanted["steps"], wanted["tokens"])
    mine, theirs = (_weights(lab, found, tmp_path / found["output"]["digest"]) for found in (together, alone))
    assert mine.keys() == theirs.keys()
    assert max(float((mine[name] - theirs[name]).abs().max()) for name in mine) < 1e-5
    written = keys_under(s3_client(lab.target.s3), lab.bucket, f"adapters/{lab.namespace}/together/")
    assert len([key for key in written if key.endswith("/manifest.json")]) == 1

    lab.kubectl("delete", "ftj", "together")
    its_own = f"{names.FINETUNEJOB_NAME_LABEL}=together"
    lab.until(
        "no Service, Job or pod",
        lambda: not any(lab.target.kubectl.items("-n", lab.namespace, "services,jobs,pods", "-l", its_own)),
    )


def test_what_ends_one_pod_is_the_attempts_reason_and_the_next_one_goes_on(lab: Lab) -> None:
    """Its process is killed, then it is evicted; the other pod only loses it, or is told to go."""
    cluster = lab.target.require_local()
    lab.apply(
        "disturbed",
        resources=TWO_NODES,
        preflight={"enabled": False},
        training={"maxSteps": 600, "batchSize": 4},
        checkpoint={"everySteps": 50},
        lora=LORA,
    )
    client = s3_client(lab.target.s3)

    def second_pod(attempt: int) -> str:
        """The pod of the second node, once its attempt has saved a checkpoint of its own."""
        before = set(_checkpoints(client, lab))

        def pods() -> list[str]:
            return [
                pod["metadata"]["name"]
                for pod in lab.pods("disturbed", names.TRAIN_ROLE)
                if pod["metadata"]["labels"][names.ATTEMPT_LABEL] == str(attempt)
                and pod["metadata"]["labels"][names.INDEX_LABEL] == "1"
                and pod["status"]["phase"] == "Running"
            ]

        [name] = lab.until(f"the second pod of attempt {attempt}", pods, seconds=120)
        lab.until("another checkpoint", lambda: set(_checkpoints(client, lab)) - before, seconds=120)
        return str(name)

    levers.kill_container(cluster, lab.namespace, second_pod(1))
    levers.evict(lab.target.kubectl, lab.namespace, second_pod(2))
    status = lab.until_finished("disturbed", seconds=240)

    assert status["phase"] == "Succeeded", lab.picture()
    killed, evicted, last = status["attempts"]
    assert (killed["reason"], killed["exitCode"], killed["counted"]) == ("Killed", 137, True)
    # By the pods' own word, or by the eviction's where that is all that is seen of the pod.
    assert evicted["reason"] in {"Preempted", "PodLost"}, evicted
    assert not evicted["counted"]
    assert last["reason"] == "TrainingSucceeded"
    assert status["progress"]["resumedFromStep"] >= 100


def _checkpoints(client: Any, lab: Lab) -> list[str]:
    """The manifests of the checkpoints that are in storage."""
    keys = keys_under(client, lab.bucket, f"adapters/{lab.namespace}/disturbed/")
    return [key for key in keys if "/checkpoints/" in key and key.endswith("/checkpoint.json")]
