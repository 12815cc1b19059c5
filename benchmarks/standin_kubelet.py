"""A stand-in for scheduler and kubelet: the operator's pods succeed at once, or run for ever.

A real kubelet starts some ten pods per second, which would limit every benchmark of the operator. The stand-in writes a
pod's status as a kubelet does, in one request, with the container's state and the termination message of a successful
trainer or preflight.

    python benchmarks/standin_kubelet.py --kubeconfig FILE [--leave-running]
"""

import argparse
import asyncio
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.api_client import MERGE_PATCH, PODS, Api, ApiError

from finetune_operator.api import names
from finetune_trainer.contract.progress import Progress, Stage
from finetune_trainer.contract.termination import Outcome, OutputRecord, PreflightSummary, Termination

AGENT = "standin-kubelet"
OURS = f"{PODS}?labelSelector={names.MANAGED_BY_LABEL}%3D{names.MANAGED_BY}"

_FINGERPRINT = "0123456789ab" * 5 + "cdef"
_RUN = f"s3://models/adapters/job/{_FINGERPRINT[:12]}"
TRAINED = Termination(
    outcome=Outcome.SUCCEEDED,
    fingerprint=_FINGERPRINT,
    progress=Progress(stage=Stage.FINISHED, step=500, total_steps=500, percent=100, epoch=3.0, loss=1.25),
    output=OutputRecord(
        uri=f"{_RUN}/1-0123abcd",
        manifest_uri=f"{_RUN}/manifest.json",
        digest="sha256:" + "0" * 64,
        size_bytes=159_967_880,
        base_model="meta-llama/Llama-2-7b-chat-hf",
        rank=16,
        target_modules=["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
        metrics={"train_loss": 1.25, "eval_loss": 1.31},
    ),
).to_json()
CHECKED = Termination(
    outcome=Outcome.SUCCEEDED,
    fingerprint=_FINGERPRINT,
    preflight=PreflightSummary(
        rows=52_002, bytes=22_773_992, schema="alpaca", model_parameters=6_738_415_616, model_bytes=13_476_831_232
    ),
).to_json()


class StandinKubelet:
    """Writes the status of every pod of the operator, as a kubelet would.

    Args:
        leave_running: True starts containers and never ends them.
    """

    def __init__(self, api: Api, *, leave_running: bool) -> None:
        self._api = api
        self._leave_running = leave_running
        self._seen: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serves until it is cancelled."""
        while True:
            pods, version = await self._api.list(OURS)
            for pod in pods:
                self._take(pod)
            try:
                async for event in self._api.watch(OURS, version):
                    if event["type"] == "ADDED":
                        self._take(event["object"])
            except ApiError as error:
                print(error, flush=True)  # the resourceVersion is too old: list again

    def _take(self, pod: Mapping[str, Any]) -> None:
        if pod["metadata"]["uid"] in self._seen or pod["status"]["phase"] != "Pending":
            return
        self._seen.add(pod["metadata"]["uid"])
        task = asyncio.create_task(self._serve(pod))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, pod: Mapping[str, Any]) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status"
        try:
            await self._api.request("PATCH", path, {"status": self._status(pod)}, MERGE_PATCH)
        except ApiError as error:
            print(error, flush=True)  # the pod was deleted, so it needs no status

    def _status(self, pod: Mapping[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        state: dict[str, Any] = {"running": {"startedAt": now}}
        if not self._leave_running:
            preflight = pod["metadata"]["labels"][names.ROLE_LABEL] == names.PREFLIGHT_ROLE
            state = {
                "terminated": {
                    "exitCode": 0,
                    "reason": "Completed",
                    "message": CHECKED if preflight else TRAINED,
                    "startedAt": now,
                    "finishedAt": now,
                }
            }
        container = {
            "name": pod["spec"]["containers"][0]["name"],
            "image": pod["spec"]["containers"][0]["image"],
            "imageID": "",
            "ready": self._leave_running,
            "started": self._leave_running,
            "restartCount": 0,
            "state": state,
        }
        phase = "Running" if self._leave_running else "Succeeded"
        return {"phase": phase, "startTime": now, "containerStatuses": [container]}


async def serve(kubeconfig: Path, *, leave_running: bool) -> None:
    """Serves the pods of a cluster until it is cancelled."""
    async with Api(kubeconfig, agent=AGENT) as api:
        await StandinKubelet(api, leave_running=leave_running).run()


def main() -> None:
    """Serves until the process ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--leave-running", action="store_true", help="start containers and never end them")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.kubeconfig, leave_running=arguments.leave_running))


if __name__ == "__main__":
    main()
