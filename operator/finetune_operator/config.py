"""The process's configuration from its environment: every variable read once, every mistake reported at once."""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from finetune_operator.reconcile.config import ReconcileConfig

T = TypeVar("T")

_LONGEST_BUNDLE = 65_536
"""It becomes an annotation; all of an object's together may have 256 KiB."""
_SHOWN = 60
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
PULL_POLICIES = ("", "Always", "IfNotPresent", "Never")
_DEFAULT_ACCOUNTS: tuple[str, ...] = ("default",)
_NO_WORDS: tuple[str, ...] = ()
_TRUE, _FALSE = ("true", "1"), ("false", "0", "")


class ConfigError(Exception):
    """The environment is not usable.

    Attributes:
        problems: every problem, each with its variable.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What an administrator decides about this process.

    Attributes:
        reconcile: what plans depend on.
        watch_namespaces: namespaces that are served; empty for all.
        workers: jobs handled at a time.
        resync_seconds: between two lists of everything.
        lease_namespace, lease_name: where replicas agree on a leader.
        identity: this replica's name in the Lease.
        http_host, http_port: where progress reports and probes are taken.
        log_level: one of `LOG_LEVELS`.
    """

    reconcile: ReconcileConfig
    watch_namespaces: tuple[str, ...]
    workers: int
    resync_seconds: float
    lease_namespace: str
    lease_name: str
    identity: str
    http_host: str
    http_port: int
    log_level: str


def read_config(environment: Mapping[str, str], *, fallback_identity: str) -> Config:
    """The configuration that an environment describes.

    Args:
        environment: the variables.
        fallback_identity: name of this replica where POD_NAME is not set; unique to the process.

    Raises:
        ConfigError: with every problem.
    """
    reader = _Reader(environment)
    config = Config(
        reconcile=ReconcileConfig(
            preflight_image=reader.required(
                "FINETUNE_OPERATOR_IMAGE", "the operator's own image; preflight runs in it"
            ),
            trainer_image=reader.required("FINETUNE_TRAINER_IMAGE", "the image that trains"),
            image_pull_policy=reader.choice("FINETUNE_IMAGE_PULL_POLICY", PULL_POLICIES, ""),
            progress_url=reader.value("FINETUNE_PROGRESS_URL", _url, ""),
            service_accounts=frozenset(reader.value("FINETUNE_SERVICE_ACCOUNTS", _words, _DEFAULT_ACCOUNTS)),
            allow_remote_code=reader.value("FINETUNE_ALLOW_REMOTE_CODE", _boolean, default=False),
            hub_endpoint=reader.value("FINETUNE_HUB_ENDPOINT", _url, ""),
            hub_ca_bundle=reader.value("FINETUNE_HUB_CA_BUNDLE", _certificates, ""),
        ),
        watch_namespaces=reader.value("FINETUNE_WATCH_NAMESPACES", _words, _NO_WORDS),
        workers=reader.value("FINETUNE_WORKERS", _whole(1, 256), 32),
        resync_seconds=float(reader.value("FINETUNE_RESYNC_SECONDS", _whole(10, 86_400), 300)),
        lease_namespace=reader.first("FINETUNE_LEASE_NAMESPACE", "POD_NAMESPACE", default="default"),
        lease_name=reader.first("FINETUNE_LEASE_NAME", default="finetune-operator"),
        identity=reader.first("POD_NAME", default=fallback_identity),
        http_host=reader.first("FINETUNE_HTTP_HOST", default="0.0.0.0"),  # noqa: S104 (pods and the kubelet call)
        http_port=reader.value("FINETUNE_HTTP_PORT", _whole(1, 65_535), 8080),
        log_level=reader.choice("FINETUNE_LOG_LEVEL", LOG_LEVELS, "INFO"),
    )
    if reader.problems:
        raise ConfigError(tuple(reader.problems))
    return config


class _Reader:
    """Reads variables and gathers what is wrong with them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.problems: list[str] = []

    def value(self, name: str, parse: Callable[[str], T], default: T) -> T:
        text = self._environment.get(name, "").strip()
        if not text:
            return default
        try:
            return parse(text)
        except ValueError as error:
            shown = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
            self.problems.append(f"{name}: {error} (found {shown!r})")
            return default

    def required(self, name: str, meaning: str) -> str:
        text = self._environment.get(name, "").strip()
        if not text:
            self.problems.append(f"{name}: is required: {meaning}")
        return text

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        def parse(text: str) -> str:
            if text not in choices:
                raise ValueError(f"must be one of {', '.join(filter(None, choices))}")
            return text

        return self.value(name, parse, default)

    def first(self, *variables: str, default: str) -> str:
        return next((text for name in variables if (text := self._environment.get(name, "").strip())), default)


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for part in text.split(",") if (word := part.strip())))


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError("must be true or false")


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def _certificates(text: str) -> str:
    if len(text) > _LONGEST_BUNDLE:
        raise ValueError(f"must have at most {_LONGEST_BUNDLE} characters: leave certificates out that are not needed")
    try:
        ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"must be certificates in PEM: {error}") from None
    return text


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise ValueError("must be a URL, such as http://finetune-operator.finetune-system.svc:8080")
    return text.rstrip("/")
