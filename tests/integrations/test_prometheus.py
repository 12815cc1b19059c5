"""A real Prometheus scrapes the operator's process, which works on a real API server."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from component.plane import SYSTEM, Plane, Process, a_finetunejob, end_pod, eventually, free_port, operator, run_pod
from component.test_process import World
from finetune_operator.kube.api import FINETUNEJOBS, LEASES
from finetune_operator.kube.client import ClientKube
from finetune_trainer.contract.failure import ExitCode, FailureReason
from finetune_trainer.contract.termination import Outcome, Termination
from prometheus.programs import Programs
from prometheus.server import Server, running

ROOT = Path(__file__).parents[2]
FILES = ROOT / "helm/finetune-operator/files"


def rules_without_waiting() -> dict[str, Any]:
    """The alerts that are shipped, each firing as soon as its condition holds."""
    rules: dict[str, Any] = yaml.safe_load((FILES / "alerts.yaml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("for", None)
    return rules


@contextmanager
def scraped(programs: Programs, folder: Path, port: int, **scrape: Any) -> Iterator[Server]:
    config = {"static_configs": [{"targets": [f"localhost:{port}"]}], "honor_labels": True, **scrape}
    folder.mkdir(exist_ok=True)
    with running(programs, folder, port=free_port(), scrape=config, rules=rules_without_waiting()) as server:
        yield server


async def seen(server: Server, expression: str, value: float) -> None:
    """Waits until the query has this value."""

    def look() -> bool:
        return server.ready() and server.value(expression) == value

    await eventually(f"{expression} = {value}", look)


@contextmanager
def measured(plane: Plane, folder: Path, namespace: str, port: int, **environment: str) -> Iterator[Process]:
    variables = {
        "FINETUNE_METRICS_PORT": str(port),
        "FINETUNE_METRICS_PER_JOB": "true",
        "FINETUNE_GPU_PRICES": "nvidia.com/gpu=3600",
        **environment,
    }
    with operator(plane, folder, namespace, **variables) as process:
        yield process


async def some_jobs(world: World, admin: ClientKube) -> None:
    """One job that succeeds, one that fails, one that waits and one that trains and reports."""
    gone = Termination(outcome=Outcome.FAILED, reason=FailureReason.DATASET_INVALID, message="line 3")
    for name in ("good", "bad", "waiting", "training"):
        await world.create(name, resources={"gpus": 2})
    pod = await world.pod("good-train-1")
    await run_pod(admin, pod)
    await world.phase("good", "Running")
    await end_pod(admin, pod)
    await end_pod(admin, await world.pod("bad-train-1"), exit_code=ExitCode.DATASET_INVALID, termination=gone.to_json())
    await run_pod(admin, await world.pod("training-train-1"))
    for name, phase in (("good", "Succeeded"), ("bad", "Failed"), ("waiting", "Starting"), ("training", "Running")):
        await world.phase(name, phase)
    progress = {
        "stage": "Training",
        "step": 60,
        "totalSteps": 100,
        "loss": "1.2500",
        "tokensPerSecond": 1200,
        "stepsPerSecond": "0.5",
        "checkpointStep": 50,
        "heartbeatTime": datetime.now(UTC).isoformat(),
    }
    await admin.merge(
        FINETUNEJOBS,
        world.namespace,
        "training",
        {"status": {"progress": progress}},
        field_manager="test",
        subresource="status",
    )


async def test_prometheus_sees_jobs_and_operator_and_a_restart_changes_nothing(
    plane: Plane, admin: ClientKube, namespace: str, prometheus_programs: Programs, tmp_path: Path
) -> None:
    port = free_port()
    world = World(admin, namespace)
    mine = f'{{namespace="{namespace}"}}'
    with scraped(prometheus_programs, tmp_path / "prometheus", port) as server:
        await eventually(
            "the alert of a missing operator", lambda: server.ready() and "FinetuneOperatorDown" in server.firing()
        )
        with measured(plane, tmp_path, namespace, port):
            await seen(server, "count(finetune_build_info)", 1)
            await some_jobs(world, admin)
            await seen(server, f"finetune_tokens_per_second{mine}", 1200)
            phases = {labels["phase"]: value for labels, value in server.query(f"finetune_jobs{mine} > 0")}
            assert phases == {"Succeeded": 1, "Failed": 1, "Starting": 1, "Running": 1}
            before = gauges(server, namespace)
            assert before["finetune_failed_jobs", "DatasetInvalid"] == 1
            assert before["finetune_gpus", "Running"] == 2
            assert before["finetune_job_loss", "training"] == 1.25
            assert before["finetune_checkpoint_lag_steps", ""] == 10
            await seen(server, f'finetune_attempts_ended_total{{namespace="{namespace}",reason="DatasetInvalid"}}', 1)
            await seen(server, f'finetune_runs_ended_total{{namespace="{namespace}",phase="Succeeded"}}', 1)
            # Jobs were seen before any had ended, so Prometheus sees the ends as an increase.
            assert (
                server.value(f'increase(finetune_runs_ended_total{{namespace="{namespace}",phase="Failed"}}[5m])') or 0
            ) > 0
            assert server.value(f'finetune_watching{{namespace="{namespace}"}}') == 1
            assert (server.value('sum(rest_client_requests_total{code=~"2.."})') or 0) > 10
            assert (server.value("sum(workqueue_adds_total)") or 0) >= 4
            raw = await admin.get(FINETUNEJOBS, namespace, "good")
            cost = server.value(f"finetune_gpu_cost_total{mine}") or 0.0
            assert cost >= float(raw["status"].get("cost", 0))
            assert server.firing() == set(), "in health no alert fires"
            every_panel(server)
            promtool_accepts(prometheus_programs, port)
        await eventually("the alert of a missing operator", lambda: "FinetuneOperatorDown" in server.firing())
        with measured(plane, tmp_path, namespace, port):
            await seen(server, f"sum(finetune_jobs{mine})", 4)
            await eventually("the same gauges", lambda: gauges(server, namespace) == before)
            await seen(server, f'finetune_runs_ended_total{{namespace="{namespace}",phase="Failed"}}', 0)
            assert not server.query(f'finetune_attempts_ended_total{{namespace="{namespace}"}}')


def gauges(server: Server, namespace: str) -> dict[tuple[str, str], float]:
    """Gauges about the jobs of a namespace, by name and the first of their other labels; without zeros."""
    found = server.query(
        f'{{__name__=~"finetune_.*",__name__!~".*_(total|bucket|sum|count|created)",namespace="{namespace}"}}'
    )
    return {
        (labels["__name__"], labels.get("reason") or labels.get("name") or labels.get("phase") or ""): value
        for labels, value in found
        if value and labels["__name__"] not in ("finetune_watching", "finetune_resync_last_success_timestamp_seconds")
    }


def every_panel(server: Server) -> None:
    """Every expression of the dashboard is one that Prometheus can evaluate, and most have data in this short life."""
    board = json.loads((FILES / "dashboard.json").read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    empty = [each for each in expressions if not server.query(each.replace("$namespace", ".*"))]
    # No report has come over HTTP, and no attempt has failed before it was seen.
    assert all("progress_reports" in each or "attempts_ended" in each or "rate(" in each for each in empty), empty


def promtool_accepts(programs: Programs, port: int) -> None:
    with urllib.request.urlopen(f"http://localhost:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    done = programs.tool("check", "metrics", stdin=text)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith(("python_", "process_"))]
    assert ours == []


async def test_a_lease_that_another_holds_and_an_api_server_that_refuses_fire_their_alerts(
    plane: Plane, admin: ClientKube, namespace: str, prometheus_programs: Programs, tmp_path: Path
) -> None:
    port = free_port()
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"namespace": SYSTEM, "name": f"operator-{namespace}"},
        "spec": {"holderIdentity": "another", "leaseDurationSeconds": 3600, "renewTime": "2026-11-24T12:00:00.000000Z"},
    }
    await admin.create(LEASES, SYSTEM, lease)
    await admin.create(FINETUNEJOBS, namespace, a_finetunejob(namespace))
    with (
        scraped(prometheus_programs, tmp_path / "prometheus", port) as server,
        measured(plane, tmp_path, namespace, port),
    ):
        await seen(server, "leader_election_master_status", 0)
        await eventually("the alert", lambda: "FinetuneOperatorNotLeading" in server.firing())
        assert not server.query("finetune_jobs"), "only the leader knows the jobs"
        plane.kubectl("delete", "lease", lease["metadata"]["name"], "-n", SYSTEM)  # type: ignore[index]
        await seen(server, "leader_election_master_status", 1)
        await seen(server, "sum(finetune_jobs)", 1)
        await eventually("the end of the alert", lambda: "FinetuneOperatorNotLeading" not in server.firing())


async def test_a_namespace_that_may_only_be_listed_fires_the_alert_of_dead_watches(
    plane: Plane, namespace: str, prometheus_programs: Programs, tmp_path: Path
) -> None:
    port = free_port()
    with (
        plane.may_only_list(namespace),
        scraped(prometheus_programs, tmp_path / "prometheus", port) as server,
        measured(plane, tmp_path, namespace, port),
    ):
        await eventually("the alert", lambda: server.ready() and "FinetuneWatchDead" in server.firing())
        plane.grant()
        await seen(server, "sum(finetune_watching)", 1)
        await eventually("the end of the alert", lambda: "FinetuneWatchDead" not in server.firing())
