"""`python -m finetune_operator.verify_installation`: what `helm test` runs in a pod of the operator's image.

It creates nothing: the API server is asked with `dryRun`.

Environment:
    VERIFY_URL: base URL of the operator's Service.
    VERIFY_NAMESPACE: a namespace that the operator serves; the account may create FineTuneJobs there.
    VERIFY_SECONDS: how long the operator may take to be ready (default: 60).
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Any

import aiohttp

from finetune_operator.api import names
from finetune_operator.kube.api import FINETUNEJOBS, Kube
from finetune_operator.kube.client import connect
from finetune_operator.kube.errors import KubeError

SECONDS = "60"
"""A replica that has just started is not ready at once."""


def finetunejob(namespace: str, **spec: Any) -> dict[str, Any]:
    """Returns a FineTuneJob that is valid unless `spec` changes that."""
    return {
        "apiVersion": f"{names.GROUP}/{names.VERSION}",
        "kind": names.KIND,
        "metadata": {"name": "verify-installation", "namespace": namespace},
        "spec": {
            "model": {"uri": "s3://verify/model"},
            "dataset": {"uri": "s3://verify/train.jsonl"},
            "output": {"uri": "s3://verify/adapters"},
            **spec,
        },
    }


async def problems(kube: Kube, *, url: str, namespace: str, seconds: int) -> AsyncIterator[str]:
    """Yields what is wrong with the installation, each with its remedy."""
    reason = await _not_ready(f"{url}/readyz", seconds)
    if reason:
        yield (
            f"the operator is not ready at {url}: {reason}. See kubectl get pods and the log of the Deployment; "
            "a NetworkPolicy of yours may keep this pod away"
        )
    try:
        await kube.create(FINETUNEJOBS, namespace, finetunejob(namespace), dry_run=True)
    except KubeError as error:
        yield f"the API server does not take a FineTuneJob in {namespace}: {error}. Is the CRD installed and current?"
        return
    broken = finetunejob(namespace, training={"epochs": 1, "maxSteps": 1})
    try:
        await kube.create(FINETUNEJOBS, namespace, broken, dry_run=True)
    except KubeError as error:
        if error.status == HTTPStatus.UNPROCESSABLE_ENTITY:
            return
        yield f"the API server does not judge a FineTuneJob in {namespace}: {error}"
    else:
        yield "the API server takes a FineTuneJob that its CRD forbids: the CRD is not the one of this version"


async def _not_ready(url: str, seconds: int) -> str:
    """Returns why the operator does not say that it is ready. Empty when it does."""
    reason = ""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        for left in reversed(range(seconds)):
            try:
                async with session.get(url) as response:
                    if response.status == HTTPStatus.OK:
                        return ""
                    reason = f"{response.status} {(await response.text())[:500]}"
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                reason = f"{type(error).__name__}: {error}"
            if left:
                await asyncio.sleep(1)
    return reason


async def verify(environment: Mapping[str, str]) -> int:
    """Prints every problem. Returns the exit code."""
    url, namespace = environment["VERIFY_URL"].rstrip("/"), environment["VERIFY_NAMESPACE"]
    seconds = int(environment.get("VERIFY_SECONDS") or SECONDS)
    found = 0
    try:
        async with connect(environment) as kube:
            async for problem in problems(kube, url=url, namespace=namespace, seconds=seconds):
                found += 1
                sys.stdout.write(f"{problem}\n")
    except KubeError as error:
        found += 1
        sys.stdout.write(f"the API server cannot be asked: {error}\n")
    if not found:
        sys.stdout.write(f"The operator is ready, and FineTuneJobs are checked in {namespace}.\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(verify(os.environ)))
