"""A few cases of each table that `scripts/faults` prints: kills, faults of the API server, what GitOps tools do."""

import json
from pathlib import Path

from component.plane import Plane
from faults import api_faults, gitops, kills
from faults.api_faults import Case
from faults.calls import call
from faults.cases import each
from faults.lives import LIVES
from faults.proxy import Fault, without_scheduler

AT_A_TIME = 4


def test_lives_are_the_same_with_a_scheduler_and_without() -> None:
    conditions = [{"type": "PodScheduled", "status": "False"}, {"type": "DisruptionTarget", "status": "True"}]
    pod = {"metadata": {"name": "a"}, "status": {"phase": "Pending", "conditions": conditions}}
    kept = {"metadata": {"name": "a"}, "status": {"phase": "Pending", "conditions": conditions[1:]}}
    of_pods = call("GET", "/api/v1/namespaces/a/pods", {})
    for wrap in (lambda item: item, lambda item: {"items": [item]}, lambda item: {"type": "ADDED", "object": item}):
        assert json.loads(without_scheduler(of_pods, json.dumps(wrap(pod)).encode())) == wrap(kept)
    of_jobs = call("GET", "/apis/batch/v1/namespaces/a/jobs", {})
    assert json.loads(without_scheduler(of_jobs, json.dumps(pod).encode())) == pod


async def test_a_kill_before_or_after_the_first_writes_changes_nothing(plane: Plane, tmp_path: Path) -> None:
    life = next(life for life in LIVES if life.name == "success")
    measure, writes = await kills.undisturbed(plane, tmp_path, life)
    assert [str(write) for write in writes[:2]] == ["patch jobs", "patch finetunejobs/status"]
    found = await each(
        kills.points(2, lease=False),
        lambda point: kills.killed(plane, tmp_path, life, point, measure),
        AT_A_TIME,
        wrong=lambda _, item: item.wrong(measure),
    )
    assert [item.wrong(measure) for item in found] == [[]] * len(found)
    assert all(item.at is not None for item in found), "each was killed"


async def test_faults_of_the_api_server_change_nothing(plane: Plane, tmp_path: Path) -> None:
    measure, seen = await api_faults.undisturbed(plane, tmp_path)
    assert measure.troubles == []
    assert seen - api_faults.RARE == set(api_faults.CALLS)
    cases = (
        Case(call="delete jobs", fault=Fault.CONFLICT),  # an attempt that still runs does not count as ended
        Case(call="patch jobs", fault=Fault.EXPIRED),  # no refusal of the Job
        Case(call="patch jobs", fault=Fault.LOST),
        Case(call="watch pods", fault=Fault.TRUNCATED),  # no busy loop
        Case(call="list jobs", fault=Fault.STALE),
    )
    found = await each(
        cases,
        lambda case: api_faults.struck(plane, tmp_path, case, measure),
        AT_A_TIME,
        wrong=lambda _, item: item.wrong(measure),
    )
    assert {str(case): item.wrong(measure) for case, item in zip(cases, found, strict=True)} == {
        str(case): [] for case in cases
    }


async def test_gitops_tools_and_backups_train_nothing_again(plane: Plane, tmp_path: Path) -> None:
    wanted = {
        "`kubectl diff` is empty: job that has trained",
        "`kubectl replace --force`: job that has trained",
        "restored with its status while the operator was down: job that has trained",
        "operator uninstalled first, then the job deleted: job that trains",
    }
    rows = [row for row in gitops.ROWS if str(row) in wanted]
    assert {str(row) for row in rows} == wanted
    found = await each(
        rows, lambda row: gitops.played(plane, tmp_path, row), AT_A_TIME, wrong=lambda _, item: item.wrong
    )
    assert {str(row): item.wrong for row, item in zip(rows, found, strict=True)} == {str(row): [] for row in rows}
