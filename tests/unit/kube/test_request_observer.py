"""The client tells of each request how it ended: by its status, or without a response."""

import json
from pathlib import Path

import pytest
from aiohttp import web

from component.plane import free_port
from finetune_operator.kube.api import FINETUNEJOBS, JOBS
from finetune_operator.kube.client import connect
from finetune_operator.kube.errors import NotFound, Unavailable

pytestmark = pytest.mark.extras


def kubeconfig(folder: Path, port: int) -> dict[str, str]:
    """The environment of a client of that server."""
    path = folder / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(json.dumps(config))
    return {"KUBECONFIG": str(path)}


async def test_every_request_is_told_with_its_end(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        if "jobs/gone" in request.path:
            return web.json_response({"message": "there is none"}, status=404)
        return web.json_response({"metadata": {}, "items": []})

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    told: list[tuple[str, str]] = []
    seconds: list[float] = []

    def observe(method: str, code: str, took: float) -> None:
        told.append((method, code))
        seconds.append(took)

    async with connect(kubeconfig(tmp_path, port), observer=observe) as kube:
        assert [page.items async for page in kube.pages(FINETUNEJOBS, "team")] == [()]
        with pytest.raises(NotFound):
            await kube.get(JOBS, "team", "gone")
        await kube.create(JOBS, "team", {})
        await runner.cleanup()
        with pytest.raises(Unavailable):
            await kube.delete(JOBS, "team", "job", uid="x")
    assert told == [("GET", "200"), ("GET", "404"), ("POST", "200"), ("DELETE", "<error>")]
    assert all(took >= 0 for took in seconds)
