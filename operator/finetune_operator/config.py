"""The configuration of the process: a model whose aliases are environment variables. It reports every mistake at once.

It is plain pydantic, not pydantic-settings: the environment is an argument here, and an empty variable means the
default, as in Helm.
"""

import ssl
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from finetune_operator.api.gpuprice import amount
from finetune_operator.reconcile.allowlist import ANNOTATIONS, ENVIRONMENT
from finetune_operator.reconcile.config import Platform, ReconcileConfig

MAX_BUNDLE = 65_536
"""Characters. The bundle becomes an annotation, and all annotations of an object together may have 256 KiB."""
_SHOWN = 60


class ConfigError(Exception):
    """The environment variables are not valid.

    Attributes:
        problems: every problem, each with its variable.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _parsed(parse: Callable[[str], object]) -> BeforeValidator:
    """A validator that parses a variable's text. Defaults are parsed already."""
    return BeforeValidator(lambda value: parse(value.strip()) if isinstance(value, str) else value)


def _comma_separated(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for part in text.split(",") if (word := part.strip())))


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "1", "false", "0"):
        raise ValueError("must be true or false")
    return text.lower() in ("true", "1")


def _one_of(*choices: str) -> BeforeValidator:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text

    return _parsed(parse)


def _whole(low: int, high: int) -> BeforeValidator:
    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return _parsed(parse)


def _certificates(text: str) -> str:
    if len(text) > MAX_BUNDLE:
        raise ValueError(f"must have at most {MAX_BUNDLE} characters: leave certificates out that are not needed")
    try:
        ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"must be certificates in PEM: {error}") from None
    return text


def _prices(text: str) -> dict[str, Decimal]:
    prices: dict[str, Decimal] = {}
    for item in _comma_separated(text):
        # A node label has an equals sign of its own.
        key, _, price = item.rpartition("=")
        value = amount(price.strip())
        if not key or value is None:
            raise ValueError("must be RESOURCE=PRICE or LABEL=VALUE=PRICE, such as nvidia.com/gpu=2.50")
        prices[key.strip()] = value
    return prices


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise ValueError("must be a URL, such as http://finetune-operator.finetune-system.svc:8080")
    return text.rstrip("/")


Text = Annotated[str, _parsed(str)]
Url = Annotated[str, _parsed(_url)]
CommaSeparated = Annotated[tuple[str, ...], _parsed(_comma_separated)]


class Config(BaseModel):
    """The administrator's settings for this process.

    Attributes:
        operator_image: the operator's own image; preflight runs in it.
        trainer_image: the image that trains.
        platform: `openshift` leaves the user and groups of the pods to the platform.
        image_pull_policy: pull policy of both images; empty for Kubernetes' default.
        image_pull_secrets: names of pull Secrets for the pods of jobs, in addition to those of the job.
        progress_url: base URL of the progress server for pods; empty turns reports off.
        service_accounts: allowed values of spec.scheduling.serviceAccountName; an empty list allows none.
        allow_remote_code: whether model.trustRemoteCode may be true.
        job_env, job_annotations: names that jobs may set in addition to those of reconcile.allowlist. A name that ends
            in `*` allows every name with that prefix.
        hub_endpoint: base URL of a mirror of the Hugging Face Hub; empty for the Hub itself.
        hub_ca_bundle: CA certificates for the Hub, in PEM; empty for those of the images.
        gpu_prices: price of one GPU for one hour, by extended resource or by node label and its value.
        watch_namespaces: namespaces to watch; empty for all.
        cluster_profiles: whether ClusterFineTuneProfiles are read, which takes a right in the whole cluster; by default
            where all namespaces are watched.
        workers: how many FineTuneJobs are reconciled concurrently.
        resync_seconds: seconds between two resyncs.
        lease_namespace, lease_name: the Lease for the leader election.
        identity: name of this replica in the Lease.
        http_host, http_port: address for progress reports and probes; without a host every address, IPv4 and IPv6.
        metrics_port: port for metrics, on the same host; 0 serves none.
        metrics_tls: folder with tls.crt and tls.key for the metrics port; empty for plain HTTP.
        metrics_client_certificates: whether who reads metrics must have a certificate that chains to that folder's
            ca.crt.
        metrics_per_job: whether each unfinished job has series of its own.
        log_level: the lowest level that is logged.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    operator_image: Text = Field(alias="FINETUNE_OPERATOR_IMAGE")
    trainer_image: Text = Field(alias="FINETUNE_TRAINER_IMAGE")
    platform: Annotated[Platform, _one_of(*Platform)] = Field(Platform.KUBERNETES, alias="FINETUNE_PLATFORM")
    image_pull_policy: Annotated[str, _one_of("Always", "IfNotPresent", "Never")] = Field(
        "", alias="FINETUNE_IMAGE_PULL_POLICY"
    )
    image_pull_secrets: CommaSeparated = Field((), alias="FINETUNE_IMAGE_PULL_SECRETS")
    progress_url: Url = Field("", alias="FINETUNE_PROGRESS_URL")
    service_accounts: CommaSeparated = Field(("default",), alias="FINETUNE_SERVICE_ACCOUNTS")
    allow_remote_code: Annotated[bool, _parsed(_boolean)] = Field(default=False, alias="FINETUNE_ALLOW_REMOTE_CODE")
    job_env: CommaSeparated = Field((), alias="FINETUNE_JOB_ENV")
    job_annotations: CommaSeparated = Field((), alias="FINETUNE_JOB_ANNOTATIONS")
    hub_endpoint: Url = Field("", alias="FINETUNE_HUB_ENDPOINT")
    hub_ca_bundle: Annotated[str, _parsed(_certificates)] = Field("", alias="FINETUNE_HUB_CA_BUNDLE")
    gpu_prices: Annotated[dict[str, Decimal], _parsed(_prices)] = Field(
        default_factory=dict, alias="FINETUNE_GPU_PRICES"
    )
    watch_namespaces: CommaSeparated = Field((), alias="FINETUNE_WATCH_NAMESPACES")
    cluster_profiles: Annotated[bool | None, _parsed(_boolean)] = Field(None, alias="FINETUNE_CLUSTER_PROFILES")
    workers: Annotated[int, _whole(1, 256)] = Field(32, alias="FINETUNE_WORKERS")
    resync_seconds: Annotated[float, _whole(10, 86_400)] = Field(300.0, alias="FINETUNE_RESYNC_SECONDS")
    lease_namespace: Text = Field("default", validation_alias=AliasChoices("FINETUNE_LEASE_NAMESPACE", "POD_NAMESPACE"))
    lease_name: Text = Field("finetune-operator", alias="FINETUNE_LEASE_NAME")
    identity: Text = Field(alias="POD_NAME")
    http_host: Text = Field("", alias="FINETUNE_HTTP_HOST")
    http_port: Annotated[int, _whole(1, 65_535)] = Field(8080, alias="FINETUNE_HTTP_PORT")
    metrics_port: Annotated[int, _whole(0, 65_535)] = Field(0, alias="FINETUNE_METRICS_PORT")
    metrics_tls: Text = Field("", alias="FINETUNE_METRICS_TLS")
    metrics_client_certificates: Annotated[bool, _parsed(_boolean)] = Field(
        default=False, alias="FINETUNE_METRICS_CLIENT_CERTIFICATES"
    )
    metrics_per_job: Annotated[bool, _parsed(_boolean)] = Field(default=False, alias="FINETUNE_METRICS_PER_JOB")
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], _one_of("DEBUG", "INFO", "WARNING", "ERROR")] = (
        Field("INFO", alias="FINETUNE_LOG_LEVEL")
    )

    @property
    def reads_cluster_profiles(self) -> bool:
        """Whether ClusterFineTuneProfiles are read."""
        return not self.watch_namespaces if self.cluster_profiles is None else self.cluster_profiles

    @property
    def reconcile(self) -> ReconcileConfig:
        """The part that plans depend on."""
        return ReconcileConfig(
            preflight_image=self.operator_image,
            trainer_image=self.trainer_image,
            platform=self.platform,
            image_pull_policy=self.image_pull_policy,
            image_pull_secrets=self.image_pull_secrets,
            progress_url=self.progress_url,
            service_accounts=frozenset(self.service_accounts),
            allow_remote_code=self.allow_remote_code,
            environment=ENVIRONMENT.plus(self.job_env),
            annotations=ANNOTATIONS.plus(self.job_annotations),
            hub_endpoint=self.hub_endpoint,
            hub_ca_bundle=self.hub_ca_bundle,
            gpu_prices=self.gpu_prices,
        )


_EMPTY_MEANS_NONE = ("FINETUNE_SERVICE_ACCOUNTS",)
"""Lists that may be empty. Any other empty variable counts as not set."""


def read_config(environment: Mapping[str, str], *, fallback_identity: str) -> Config:
    """Reads the configuration from environment variables.

    Args:
        environment: the variables.
        fallback_identity: name of this replica if POD_NAME is not set; unique to the process.

    Raises:
        ConfigError: has every problem.
    """
    values: dict[str, Any] = {
        name: text for name, text in environment.items() if text.strip() or name in _EMPTY_MEANS_NONE
    }
    try:
        return Config.model_validate({"POD_NAME": fallback_identity, **values})
    except ValidationError as error:
        raise ConfigError(tuple(map(_problem, error.errors(include_url=False)))) from None


def _problem(item: Any) -> str:
    variable = item["loc"][0]
    if item["type"] == "missing":
        return f"{variable}: is required: the image that this process starts pods with"
    text = str(item["input"])
    shown = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return f"{variable}: {item['msg'].removeprefix('Value error, ')} (found {shown!r})"
