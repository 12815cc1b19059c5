"""The trackers' own clients. They are imported where they are used: an environment has them, or has not."""

from collections.abc import Mapping
from typing import Any, Protocol

from finetune_trainer.tracking.messages import Begin, RunStatus, TrackerKind

RUN_TAG = "finetune.dev/run"
"""The tag by which a run in MLflow is found again."""
_PARAMETERS_AT_ONCE = 100
"""Parameters of a request to MLflow (`mlflow.utils.validation.MAX_PARAMS_TAGS_PER_BATCH`)."""


class Client(Protocol):
    """One run in a tracker. Every method may raise whatever the tracker's client raises."""

    def begin(self, run: Begin) -> str:
        """Opens the run, that of an earlier attempt where there is one. Returns where people find it, or nothing."""
        ...

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Sends the numbers of a step."""
        ...

    def end(self, status: RunStatus) -> None:
        """Closes the run, and waits until all of it is sent."""
        ...


class MlflowClient:
    """A run in MLflow. Names of metrics are those of transformers' MLflowCallback."""

    def begin(self, run: Begin) -> str:
        """See `Client`."""
        import mlflow

        experiment = mlflow.set_experiment(run.experiment)
        known = mlflow.search_runs(
            [experiment.experiment_id],
            filter_string=f"tags.`{RUN_TAG}` = '{run.run}'",
            max_results=1,
            output_format="list",
        )
        if known:
            started = mlflow.start_run(run_id=known[0].info.run_id)
            mlflow.set_tags(dict(run.tags))
        else:
            started = mlflow.start_run(run_name=run.name, tags={**run.tags, RUN_TAG: run.run})
        # A parameter is written once. An attempt that ended before it had written all goes on here.
        missing = [item for item in run.parameters.items() if not known or item[0] not in known[0].data.params]
        for place in range(0, len(missing), _PARAMETERS_AT_ONCE):
            mlflow.log_params(dict(missing[place : place + _PARAMETERS_AT_ONCE]))
        return f"run {started.info.run_id} of experiment {experiment.experiment_id}"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Client`."""
        import mlflow

        mlflow.log_metrics(dict(values), step=step, synchronous=True)

    def end(self, status: RunStatus) -> None:
        """See `Client`."""
        import mlflow

        mlflow.end_run(status)


class WandbClient:
    """A run in Weights & Biases. Names of metrics are those of transformers' WandbCallback."""

    def __init__(self) -> None:
        self._run: Any = None

    def begin(self, run: Begin) -> str:
        """See `Client`."""
        import wandb

        entity, _, project = run.experiment.rpartition("/")
        self._run = wandb.init(
            entity=entity or None,
            project=project,
            id=run.run,
            name=run.name,
            resume="allow",
            config={**run.parameters, **run.tags},
        )
        self._run.define_metric("train/global_step")
        self._run.define_metric("*", step_metric="train/global_step", step_sync=True)
        return str(self._run.url or "")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Client`."""
        self._run.log(grouped(step, values))

    def end(self, status: RunStatus) -> None:
        """See `Client`."""
        self._run.finish(exit_code=0 if status is RunStatus.FINISHED else 1)


class TrackioClient:
    """A run in Trackio. Names of metrics are those of transformers' TrackioCallback."""

    def begin(self, run: Begin) -> str:
        """See `Client`."""
        import trackio

        trackio.init(
            project=run.experiment,
            # Trackio knows a run by its name.
            name=f"{run.name}-{run.run[:8]}",
            config={**run.parameters, **run.tags},
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return ""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Client`."""
        import trackio

        trackio.log(grouped(step, values))

    def end(self, status: RunStatus) -> None:
        """See `Client`."""
        import trackio

        del status  # Trackio's runs have none.
        trackio.finish()


def grouped(step: int, values: Mapping[str, float]) -> dict[str, float]:
    """The numbers by transformers' names for W&B and Trackio: `eval/loss`, `train/loss`, and the step."""
    found = {
        f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}": value
        for name, value in values.items()
    }
    return {**found, "train/global_step": float(step)}


def client_of(kind: TrackerKind) -> Client:
    """The client of a tracker."""
    match kind:
        case TrackerKind.MLFLOW:
            return MlflowClient()
        case TrackerKind.WANDB:
            return WandbClient()
        case TrackerKind.TRACKIO:
            return TrackioClient()
