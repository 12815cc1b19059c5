"""The run with everything in object storage: a real server, real keys."""

import json
import logging
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import httpfaults
import s3server
from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import Manifest
from finetune_trainer.contract.progress import Progress
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.termination import Outcome
from finetune_trainer.progress.reporter import Reporter, Sink
from finetune_trainer.storage.credentials import Credentials
from finetune_trainer.storage.registry import StoreRegistry
from finetune_trainer.storage.retry import RetryNotifier, RetryPolicy, log_wait
from finetune_trainer.storage.timing import TRAINING, Timing
from finetune_trainer.train.context import Context, Result
from finetune_trainer.train.run import run
from httpfaults import Fault, Plan
from localcluster.seaweedfs import new_keys
from sleeping import SleepingClock
from trainer.running import QUESTIONS

pytestmark = pytest.mark.trainer


@pytest.fixture(scope="module")
def server(tiny_model: Path) -> Iterator[s3server.S3Server]:
    """A server with model and data."""
    with s3server.running() as running:
        for path in tiny_model.iterdir():
            running.put(f"base/{path.name}", path.read_bytes())
        running.put("base/original/consolidated.00.pth", b"not to be fetched")
        running.put("rows/a.jsonl", "".join(json.dumps(row) + "\n" for row in QUESTIONS[:10]).encode())
        running.put("rows/b.jsonl", "".join(json.dumps(row) + "\n" for row in QUESTIONS[10:]).encode())
        yield running


def _recipe(server: s3server.S3Server, output: str = "s3://data/adapters", **sections: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "job": {"name": "tiny"},
            "model": {"uri": "s3://data/base"},
            "dataset": {"uri": "s3://data/rows/"},
            "lora": {"rank": 4},
            "training": {"maxSteps": 2, "batchSize": 8},
            "output": {"uri": output},
            "storage": server.spec.to_dict(),
            **sections,
        }
    )


def _run(
    recipe: Recipe,
    credentials: Credentials,
    work: Path,
    writer: str,
    timing: Timing = TRAINING,
    retry: RetryPolicy | None = None,
    sinks: Sequence[Sink] = (),
) -> Result:
    work.mkdir()
    reporter = Reporter(sinks)
    notifier = RetryNotifier(log_wait, reporter.waiting)
    context = Context(
        work=work,
        open_store=StoreRegistry(recipe.storage, credentials, timing=timing.with_notifier(notifier)),
        writer=writer,
        pvc_root=work,
        reporter=reporter,
        retry=replace(retry or RetryPolicy(), notifier=notifier),
    )
    result = run(recipe, context)
    if result.outcome is Outcome.SUCCEEDED:
        assert reporter.progress.bytes_downloaded
        if recipe.checkpoint.every_steps is None:
            assert reporter.progress.bytes_uploaded == result.output.size_bytes
    return result


def test_model_data_and_adapter_in_s3(server: s3server.S3Server, tmp_path: Path) -> None:
    admin = s3server.mount(tmp_path / "admin", server.admin)
    recipe = _recipe(server)

    first = _run(recipe, admin, tmp_path / "first", "pod-one")

    assert first.outcome is Outcome.SUCCEEDED
    prefix = f"adapters/tiny/{first.fingerprint[:12]}/"
    manifest = Manifest.model_validate_json(server.get(f"{prefix}manifest.json"))
    assert first.output.base_model == "s3://data/base"
    assert {f"{prefix}{file.path}" for file in manifest.files} | {
        f"{prefix}manifest.json",
        "adapters/tiny/latest.json",
    } == set(server.keys("adapters/"))
    assert [item.uri for item in manifest.dataset] == ["s3://data/rows/a.jsonl", "s3://data/rows/b.jsonl"]
    assert not (tmp_path / "first" / "model" / "consolidated.00.pth").exists()
    config = json.loads(server.get(f"{prefix}{manifest.adapter}/adapter_config.json"))
    assert config["base_model_name_or_path"] == "s3://data/base"

    again = _run(recipe, admin, tmp_path / "again", "pod-two")
    assert (again.outcome, again.output) == (Outcome.REUSED, first.output)

    reader = s3server.mount(tmp_path / "reader", server.reader)
    with pytest.raises(TrainerError) as caught:
        _run(_recipe(server, "s3://data/elsewhere"), reader, tmp_path / "denied", "pod-three")
    assert caught.value.reason is FailureReason.STORAGE_ACCESS_DENIED
    assert server.keys("elsewhere/") == []


def test_a_server_that_misbehaves_gets_the_same_bytes(server: s3server.S3Server, tmp_path: Path) -> None:
    admin = s3server.mount(tmp_path / "admin", server.admin)
    often = {"checkpoint": {"everySteps": 1}}
    calm = _run(_recipe(server, "s3://data/calm", **often), admin, tmp_path / "calm", "pod")
    with httpfaults.running(server.endpoint) as faults:
        faults.plan = httpfaults.random_faults(seed=4, rate=0.2)
        recipe = _recipe(server, "s3://data/stormy", storage={"endpoint": faults.endpoint}, **often)
        stormy = _run(recipe, admin, tmp_path / "stormy", "pod")
        assert len(faults.counts()) > 4, "faults of several kinds"

    weights = [
        server.get(result.output.uri.removeprefix("s3://data/") + "/adapter_model.safetensors")
        for result in (calm, stormy)
    ]
    assert weights[0] == weights[1]
    left = [key for key in server.keys("stormy/") if key.endswith("manifest.json") or "checkpoints" in key]
    assert left == [stormy.output.manifest_uri.removeprefix("s3://data/")]
    assert list((tmp_path / "stormy").rglob("*.part")) == []


def test_keys_that_are_rotated_while_it_trains_do_not_disturb_it(server: s3server.S3Server, tmp_path: Path) -> None:
    """The server withdraws the old keys after the first step. The mounted Secret changes when the run waits for it."""
    old, new = new_keys(), new_keys()
    server.let_in(old, new)
    credentials = s3server.mount(tmp_path / "keys", old)
    events: list[str] = []

    def rotate(progress: Progress) -> None:
        if progress.step and not events:
            events.append("withdrawn")
            server.let_in(new)
        elif events == ["withdrawn"] and "does not accept" in (progress.waiting_for or ""):
            events.append("changed")
            s3server.mount(tmp_path / "keys", new)

    recipe = _recipe(
        server, "s3://data/rotated", training={"maxSteps": 3, "batchSize": 8}, checkpoint={"everySteps": 1}
    )
    result = _run(recipe, credentials, tmp_path / "work", "pod", sinks=[rotate])
    assert events == ["withdrawn", "changed"]
    assert result.outcome is Outcome.SUCCEEDED
    assert server.keys("rotated/tiny/")


HASTY = Timing(attempts=3, silence_seconds=1.0, repeat_seconds=1.5)
"""Gives up soon."""


def _silent_from_step(step: int) -> Plan:
    """Nothing is ever answered that is about checkpoints of this step or a later one."""

    def plan(request: httpfaults.Request) -> Fault | None:
        found = re.search(r"checkpoints/(\d+)-", request.path)
        return Fault.SILENCE if found and int(found[1]) >= step else None

    return plan


def test_storage_that_falls_silent_at_a_checkpoint_does_not_hold_up_the_training(
    server: s3server.S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    admin = s3server.mount(tmp_path / "admin", server.admin)
    sections = {"training": {"maxSteps": 8, "batchSize": 8}, "checkpoint": {"everySteps": 2}}
    calm = _run(_recipe(server, "s3://data/unheard", **sections), admin, tmp_path / "calm", "pod")
    monkeypatch.setattr("finetune_trainer.checkpoints.checkpointer.LONGEST_WAIT", 0.2)
    caplog.clear()
    seen: list[Progress] = []
    with httpfaults.running(server.endpoint) as faults:
        faults.plan = _silent_from_step(1)

        def watch(progress: Progress) -> None:
            seen.append(progress)
            if progress.step == 8:
                faults.hung_up.set()

        recipe = _recipe(server, "s3://data/silent", storage={"endpoint": faults.endpoint}, **sections)
        timing, retry = Timing(attempts=3, repeat_seconds=1.5), SleepingClock().retry_policy(seconds=1, first_pause=0.1)
        result = _run(recipe, admin, tmp_path / "silent", "pod", timing, retry, [watch])

    weights = [
        server.get(one.output.uri.removeprefix("s3://data/") + "/adapter_model.safetensors") for one in (calm, result)
    ]
    assert weights[0] == weights[1]
    assert any(faults.endpoint in (item.waiting_for or "") for item in seen)
    assert seen[-1].waiting_for is None
    assert {item.checkpoint_step for item in seen} == {None}
    for step in (4, 6):
        assert f'checkpoint step={step} message="not uploaded: the upload before it is still running"' in caplog.text
    assert re.search(
        r'checkpoint step=2 message="not uploaded: writing s3://data/silent/\S+ at .*: the connection broke off',
        caplog.text,
    )
    prefix = result.output.manifest_uri.removeprefix("s3://data/").removesuffix("manifest.json")
    left = {key.removeprefix(prefix).split("/")[0] for key in server.keys("silent/") if key.startswith(prefix)}
    assert left == {"manifest.json", result.output.uri.rsplit("/", 1)[-1]}, "checkpoints are gone"
    assert [path.name for path in (tmp_path / "silent").rglob("checkpoint-*")] == []


def test_storage_that_stays_silent_ends_the_attempt_and_the_last_checkpoint_is_named(
    server: s3server.S3Server, tmp_path: Path
) -> None:
    admin = s3server.mount(tmp_path / "admin", server.admin)
    sections = {"training": {"maxSteps": 4, "batchSize": 8}, "checkpoint": {"everySteps": 1}}
    with httpfaults.running(server.endpoint) as faults:
        silent = _silent_from_step(2)
        begun = threading.Event()

        def plan(request: httpfaults.Request) -> Fault | None:
            if silent(request) is not None:
                begun.set()
            return Fault.SILENCE if begun.is_set() else None

        faults.plan = plan
        recipe = _recipe(server, "s3://data/gone", storage={"endpoint": faults.endpoint}, **sections)
        with pytest.raises(TrainerError, match="sent nothing for too long") as caught:
            _run(recipe, admin, tmp_path / "gone", "pod", HASTY, RetryPolicy(seconds=1, first_pause=0.1))
    assert caught.value.reason is FailureReason.STORAGE_UNAVAILABLE
    assert "s3://data/gone/tiny/" in caught.value.message
    kept = [key for key in server.keys("gone/") if key.endswith("checkpoint.json")]
    assert [key.split("/")[-2].split("-")[0] for key in kept] == ["00000001"]
    assert not [key for key in server.keys("gone/") if key.endswith("/manifest.json")]
    again = _run(_recipe(server, "s3://data/gone", **sections), admin, tmp_path / "again", "other")
    assert again.outcome is Outcome.SUCCEEDED
