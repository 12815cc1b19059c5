"""The administrator's settings for every job. Reconcile takes them as an argument."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from finetune_operator.reconcile.allowlist import ANNOTATIONS, ENVIRONMENT, AllowList


class Platform(StrEnum):
    """Who chooses the user of the pods."""

    KUBERNETES = "kubernetes"
    """The pods name their user and groups."""
    OPENSHIFT = "openshift"
    """The platform assigns a user and groups of the namespace; it refuses pods that name others (SCC restricted-v2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileConfig:
    """The part of the operator's configuration that plans depend on.

    Attributes:
        preflight_image: the small image, which also runs the operator.
        trainer_image: the image with the training stack.
        platform: who chooses the user of the pods.
        image_pull_policy: pull policy of both images; empty for Kubernetes' default.
        image_pull_secrets: names of Secrets in the namespaces of jobs, in addition to those that a job names.
        progress_url: base URL of the progress server for pods, without a trailing slash; empty turns reports off.
        service_accounts: allowed values of spec.scheduling.serviceAccountName.
        allow_remote_code: whether model.trustRemoteCode may be true.
        environment: variables that spec.scheduling.env may set.
        annotations: annotations that spec.scheduling.annotations may set.
        hub_endpoint: base URL of a mirror of the Hugging Face Hub; empty for the Hub itself.
        hub_ca_bundle: CA certificates for the Hub, in PEM; empty for those of the images.
        gpu_prices: price of one GPU for one hour, by extended resource or by node label (`api.gpuprice`).
    """

    preflight_image: str
    trainer_image: str
    platform: Platform = Platform.KUBERNETES
    image_pull_policy: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    progress_url: str = ""
    service_accounts: frozenset[str] = frozenset({"default"})
    allow_remote_code: bool = False
    environment: AllowList = ENVIRONMENT
    annotations: AllowList = ANNOTATIONS
    hub_endpoint: str = ""
    hub_ca_bundle: str = ""
    gpu_prices: Mapping[str, Decimal] = field(default_factory=dict)
