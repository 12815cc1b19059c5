"""A status with everything in it survives the server as it is: nothing is pruned, nothing is refused."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from pydantic import BaseModel

from deploy.server import Server, job
from finetune_operator.api.reasons import Phase
from finetune_operator.api.status import (
    MAX_ATTEMPTS_KEPT,
    Attempt,
    Condition,
    ConditionStatus,
    Failure,
    FineTuneJobStatus,
    OutputStatus,
    ProfileCeiling,
    ProfileStatus,
    ProgressStatus,
)
from finetune_trainer.contract.recipe.profile import ProfileSource
from finetune_trainer.contract.termination import PreflightSummary
from finetune_trainer.contract.text import MAX_MESSAGE, MAX_TEXT

pytestmark = pytest.mark.cluster

NOW = datetime(2026, 11, 24, 10, 0, 0, 123456, tzinfo=UTC)
LONG = "é" * MAX_MESSAGE
BIG = 2**53

FULL = FineTuneJobStatus(
    observed_generation=1,
    phase=Phase.FAILED,
    conditions=[
        Condition(
            type=kind,
            status=ConditionStatus.FALSE,
            reason="Reason",
            message=LONG,
            observed_generation=1,
            last_transition_time=NOW,
        )
        for kind in ("Succeeded", "Ready", "Finished")
    ],
    run_token="again",
    profile=ProfileStatus(
        display="standard, team",
        sources=[
            ProfileSource(kind="ClusterFineTuneProfile", name="standard", generation=3),
            ProfileSource(kind="FineTuneProfile", name="team", generation=1),
        ],
        digest="sha256:0",
        values=json.dumps({"resources": {"memory": "32Gi"}}),
        ceilings=[ProfileCeiling(path="resources.gpus", value="4", source="ClusterFineTuneProfile standard")],
    ),
    attempt=12,
    restarts=11,
    counted_failures=3,
    attempts=[
        Attempt(
            number=number,
            start_time=NOW,
            end_time=NOW,
            reason="Killed",
            message=LONG,
            exit_code=137,
            counted=True,
        )
        for number in range(3, 3 + MAX_ATTEMPTS_KEPT)
    ],
    job_name="support-bot-train-12",
    job_uid="9b1d5c1e-0000-4000-8000-000000000000",
    pod_name="support-bot-train-12-x",
    progress=ProgressStatus(
        stage="Training",
        display="62% 310/500",
        percent=62,
        step=310,
        total_steps=500,
        epoch="1.20",
        loss="1.2345",
        eval_loss="1.3000",
        reward_margin="0.4000",
        reward_accuracy="0.7500",
        eval_reward_accuracy="0.7000",
        learning_rate="0.0002",
        tokens_per_second=12_500,
        steps_per_second="0.25",
        eta_seconds=90,
        resumed_from_step=300,
        checkpoint_step=BIG,
        checkpoint_time=NOW,
        pass_tokens=BIG,
        peak_gpu_memory_bytes=BIG,
        peak_memory_bytes=BIG,
        memory_estimate_bytes=BIG,
        bytes_downloaded=BIG,
        bytes_uploaded=BIG,
        waiting_for="é" * MAX_TEXT,
        heartbeat_time=NOW,
    ),
    preflight=PreflightSummary(
        rows=BIG,
        bytes=BIG,
        schema_="messages",
        problems=0,
        duplicates=BIG,
        tokens=BIG,
        tokens_p50=BIG,
        tokens_p95=BIG,
        tokens_max=BIG,
        truncated=BIG,
        dropped=BIG,
        sampled_rows=BIG,
        steps=BIG,
        model_parameters=BIG,
        model_bytes=BIG,
        model_revision="f5db02db724555f92da89c216ac04704f23d4590",
        memory_estimate_bytes=BIG,
    ),
    failure=Failure(reason="Killed", message=LONG, exit_code=137),
    output=OutputStatus(
        uri="s3://models/a",
        manifest_uri="s3://models/m",
        merged_uri="s3://models/merged",
        digest="sha256:0",
        size_bytes=BIG,
        base_model="org/name",
        rank=16,
        target_modules=["q_proj"],
        metrics={"eval_loss": "1.3"},
    ),
    fingerprint="0" * 64,
    gpus=8,
    gpu_seconds=BIG,
    gpu_price="2.50",
    cost="6405.1234",
    last_phase_transition_time=NOW,
    start_time=NOW,
    completion_time=NOW,
)


def unset(model: BaseModel, path: str) -> Iterator[str]:
    """Fields that are still None."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if value is None:
            yield f"{path}.{name}"
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, BaseModel):
                yield from unset(item, f"{path}.{name}")


def test_this_status_has_every_field() -> None:
    assert list(unset(FULL, "status")) == []


def test_it_comes_back_as_it_was_written(server: Server) -> None:
    server.apply(job())
    patch = json.dumps({"status": FULL.to_dict()})
    how = "--subresource=status", "--type=merge", "--patch-file=/dev/stdin"
    server.kubectl("patch", "ftj", "support-bot", *how, stdin=patch)
    assert server.get("ftj", "support-bot")["status"] == FULL.to_dict()
