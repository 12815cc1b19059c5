"""The section `tracking`: the tracker of experiments to which a training sends its metrics."""

from typing import Annotated

from pydantic import Field

from finetune_trainer.contract.recipe.output import SecretRef
from finetune_trainer.contract.rule import matching
from finetune_trainer.contract.scalar import PLAIN
from finetune_trainer.contract.wire import Wire

_NO_PASSWORD = matching(
    "://[^/]*@", "must not hold a user or password: put them into a Secret, and name it in secretRef", negated=True
)
ServerUri = Annotated[
    str,
    Field(max_length=1024),
    matching("^https?://[^/ ]+(/[^ ?#]*)?$", "must be http://host[:port][/path] or https://host[:port][/path]"),
    _NO_PASSWORD,
    PLAIN,
]
"""The address of a tracker's server."""
TrackioUri = Annotated[
    str,
    Field(max_length=1024),
    matching(
        "^(https?://[^/ ]+(/[^ ?#]*)?|hf://spaces/[-A-Za-z0-9_.]+/[-A-Za-z0-9_.]+)$",
        "must be https://host[:port] of a Trackio server, or hf://spaces/ORG/NAME",
    ),
    _NO_PASSWORD,
    PLAIN,
]
Experiment = Annotated[str, Field(min_length=1, max_length=128), PLAIN]


class MlflowSpec(Wire):
    """A run in MLflow."""

    uri: ServerUri = Field(description="Address of the tracking server. Example: https://mlflow.ml:5000.")
    experiment: Experiment | None = Field(None, description="Experiment of the run. Default: the job's namespace.")
    secret_ref: SecretRef | None = Field(
        None,
        description="Secret of this namespace with MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD; and ca.crt where the server has a certificate of its own. Default: none.",
    )


class WandbSpec(Wire):
    """A run in Weights & Biases."""

    uri: ServerUri = Field("https://api.wandb.ai", description="Address of the server. Default: https://api.wandb.ai.")
    experiment: (
        Annotated[
            Experiment,
            matching(
                "^([-A-Za-z0-9_.]+/)?[-A-Za-z0-9_.]+$",
                "must be a project, or ENTITY/PROJECT: letters, digits, '-', '_' and '.'",
            ),
        ]
        | None
    ) = Field(None, description="Project of the run, or ENTITY/PROJECT. Default: the job's namespace.")
    secret_ref: SecretRef | None = Field(
        None,
        description="Secret of this namespace with WANDB_API_KEY; and ca.crt where the server has a certificate of its "
        "own. Default: none.",
    )


class TrackioSpec(Wire):
    """A run in Trackio."""

    uri: TrackioUri = Field(
        description="Address of a Trackio server, or hf://spaces/ORG/NAME. Example: https://trackio.ml."
    )
    experiment: Experiment | None = Field(None, description="Project of the run. Default: the job's namespace.")
    secret_ref: SecretRef | None = Field(
        None,
        description="Secret of this namespace with TRACKIO_WRITE_TOKEN for a server, or HF_TOKEN for a Space; and "
        "ca.crt where the server has a certificate of its own. Default: none.",
    )


class TrackingSpec(Wire):
    """The tracker to which a training sends its metrics. It never stops or delays the training.

    The section may be changed at any time. A change takes effect from the next attempt on.
    """

    mlflow: MlflowSpec | None = Field(None, description="Send to MLflow. Default: not.")
    wandb: WandbSpec | None = Field(None, description="Send to Weights & Biases. Default: not.")
    trackio: TrackioSpec | None = Field(None, description="Send to Trackio. Default: not.")

    @property
    def tracker(self) -> MlflowSpec | WandbSpec | TrackioSpec | None:
        """The tracker; None if there is none. A rule sees to it that there is no second one."""
        return self.mlflow or self.wandb or self.trackio
