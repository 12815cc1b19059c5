"""A stand-in for kubelet, trainer and storage: pods run and end by themselves, and an adapter that exists is reused."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from component.plane import OUTPUT, end_pod, run_pod
from faults.site import PREFLIGHT_PASSED, Site
from finetune_operator.api import names
from finetune_operator.kube.api import PODS
from finetune_operator.kube.errors import KubeError
from finetune_trainer.contract.failure import FAILURES, FailureReason
from finetune_trainer.contract.fingerprint import fingerprint
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.termination import Outcome, Termination

REUSED = Termination(outcome=Outcome.REUSED, fingerprint="0" * 12, output=OUTPUT).to_json()

Ending = Callable[[], FailureReason | None]
"""How a training ends: None for an adapter."""


class Kubelet:
    """Serves the pods of one site.

    Attributes:
        hold: names of FineTuneJobs whose trainings go on until they are let go.
        began: trainings by name of the FineTuneJob: pods that did not find their adapter.
        trained: trainings that ended with an adapter.
    """

    def __init__(self, site: Site, ending: Ending = lambda: None, period: float = 0.2) -> None:
        self.hold: set[str] = set()
        self.began: Counter[str] = Counter()
        self.trained: Counter[str] = Counter()
        self._site = site
        self._ending = ending
        self._period = period
        self._manifests: set[str] = set()  # what is committed in storage, by job and fingerprint
        self._started: set[str] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serves until the end of the block."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(KubeError):
                for pod in await self._site.items(PODS, f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"):
                    if pod["status"].get("phase") in ("Pending", "Running"):
                        with contextlib.suppress(KubeError):  # it was deleted meanwhile
                            await self._serve(pod)
            await asyncio.sleep(self._period)

    async def _serve(self, pod: Mapping[str, Any]) -> None:
        labels, uid = pod["metadata"]["labels"], pod["metadata"]["uid"]
        name, admin = labels[names.FINETUNEJOB_NAME_LABEL], self._site.admin
        manifest = f"{name}/{_fingerprint(pod)}"
        if labels[names.ROLE_LABEL] == names.PREFLIGHT_ROLE:
            exists = manifest in self._manifests
            await end_pod(admin, dict(pod), termination=REUSED if exists else PREFLIGHT_PASSED)
            return
        if uid not in self._started:
            if manifest in self._manifests:
                await end_pod(admin, dict(pod), termination=REUSED)
                return
            await run_pod(admin, dict(pod))
            self._started.add(uid)
            self.began[name] += 1
        elif name not in self.hold:
            failure = self._ending()
            if failure is None:
                await end_pod(admin, dict(pod))
                self._manifests.add(manifest)
                self.trained[name] += 1
            else:
                ended = Termination(outcome=Outcome.FAILED, reason=failure, message="as the stand-in wants it")
                code = FAILURES[failure].exit_code or 137
                await end_pod(admin, dict(pod), exit_code=int(code), termination=ended.to_json())


def _fingerprint(pod: Mapping[str, Any]) -> str:
    recipe = Recipe.model_validate_json(pod["metadata"]["annotations"][names.RECIPE_ANNOTATION])
    return fingerprint(recipe, [], [])
