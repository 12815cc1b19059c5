"""Opens the store of a URI."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.layout import PVC_ROOT
from finetune_trainer.contract.recipe import DatasetSpec, Recipe
from finetune_trainer.contract.recipe.dataset import Limits
from finetune_trainer.contract.recipe.lora import LoraSpec
from finetune_trainer.contract.recipe.model import ModelSpec
from finetune_trainer.contract.recipe.output import StorageSpec
from finetune_trainer.contract.uri import HUB_DATASETS, Scheme, Uri
from finetune_trainer.runtime.log import quieten
from finetune_trainer.storage.base import Store
from finetune_trainer.storage.credentials import Credentials
from finetune_trainer.storage.hub_token import HubToken
from finetune_trainer.storage.timing import TRAINING, Timing


def open_store(
    uri: Uri,
    spec: StorageSpec,
    credentials: Credentials | None,
    *,
    revision: str | None = None,
    hub_token: HubToken | None = None,
    pvc_root: Path = Path(PVC_ROOT),
    checksums: Mapping[Uri, str] = MappingProxyType({}),
    most_bytes: int = Limits().max_bytes,
    timing: Timing = TRAINING,
) -> Store:
    """Returns the store of a URI. Sends no request to the store, so it works without a network.

    Args:
        uri: any URI of the store.
        spec: endpoint and options of object storage.
        credentials: the mounted access keys. None means the SDK's own credential chain.
        revision: revision of a Hub repository.
        hub_token: the mounted token of gated Hub repositories. With None the Hub's client uses its own.
        pvc_root: directory where claims are mounted.
        checksums: SHA-256 of the data by https.
        most_bytes: largest size of such data.
        timing: time limits of requests, and the notifier of waits, which the Hub's store uses too.

    Raises:
        TrainerError: the endpoint or the certificates are refused, a mounted key is missing, or the Hub's client is
            not installed.
    """
    match uri.scheme:
        case Scheme.S3:
            from finetune_trainer.storage.s3 import S3Store

            return S3Store(spec, credentials, timing=timing)
        case Scheme.HF:
            if find_spec("huggingface_hub") is None:
                raise TrainerError(
                    FailureReason.NOT_SUPPORTED,
                    f"{uri}: the Hub's client (huggingface_hub) is not installed here; mirror it to s3:// or pvc://",
                )
            quieten()  # Before the import, when the client reads its variables, that of telemetry among them.
            from finetune_trainer.storage.hub import HubStore

            return HubStore(revision=revision, token=hub_token, notifier=timing.notifier)
        case Scheme.HTTPS:
            from finetune_trainer.storage.https import HttpsStore, default_cache

            return HttpsStore(
                checksums, most_bytes=most_bytes, cache=default_cache(), ca_bundle=spec.ca_bundle, timing=timing
            )
        case Scheme.PVC | Scheme.FILE:
            from finetune_trainer.storage.local import LocalStore

            return LocalStore(pvc_root)


class StoreRegistry:
    """The stores of one recipe. Each is opened once. A registry is an `OpenStore`.

    Args:
        spec: endpoint and options of object storage.
        credentials: the mounted access keys. None means the SDK's own credential chain.
        model, lora, dataset: give the revisions of the Hub repositories of the model, the initial adapter and the
            data. Any other Hub repository is read at its main branch.
        dataset_revisions: commits of Hub data sets, by repository. They replace the revision of `dataset`.
        hub_token: the mounted token of gated Hub repositories. With None the Hub's client uses its own.
        pvc_root: directory where claims are mounted.
        timing: time limits of S3 requests, and the notifier of waits, which the Hub's store uses too.
    """

    def __init__(
        self,
        spec: StorageSpec,
        credentials: Credentials | None,
        *,
        model: ModelSpec | None = None,
        lora: LoraSpec | None = None,
        dataset: DatasetSpec | None = None,
        dataset_revisions: Mapping[str, str] = MappingProxyType({}),
        hub_token: HubToken | None = None,
        pvc_root: Path = Path(PVC_ROOT),
        timing: Timing = TRAINING,
    ) -> None:
        self._spec = spec
        self._credentials = credentials
        self._revisions: dict[str, str | None] = {}
        if lora and lora.initial_adapter_uri:
            self._revisions[_root(lora.initial_adapter_uri)] = lora.initial_adapter_revision
        if model:
            self._revisions[_root(model.uri)] = model.revision
        if dataset:
            self._revisions |= {_root(place): dataset.revision for place in dataset.places}
        self._revisions |= {f"{Scheme.HF}/{HUB_DATASETS}/{name}": commit for name, commit in dataset_revisions.items()}
        self._checksums = _checksums(dataset) if dataset else {}
        self._most_bytes = (dataset.limits if dataset else Limits()).max_bytes
        self._hub_token = hub_token
        self._pvc_root = pvc_root
        self._timing = timing
        self._stores: dict[str, Store] = {}

    @classmethod
    def of_pod(cls, recipe: Recipe, environment: Mapping[str, str], timing: Timing) -> "StoreRegistry":
        """Returns the stores of a recipe, with the access keys and the token that the process's environment names."""
        return cls(
            recipe.storage,
            Credentials.from_environment(environment),
            model=recipe.model,
            lora=recipe.lora,
            dataset=recipe.dataset,
            dataset_revisions=recipe.dataset_revisions,
            hub_token=HubToken.from_environment(environment),
            timing=timing,
        )

    def __call__(self, uri: Uri) -> Store:
        """Returns the store of a URI. See `open_store`."""
        root = _root(uri)
        if root not in self._stores:
            self._stores[root] = open_store(
                uri,
                self._spec,
                self._credentials,
                revision=self._revisions.get(root),
                hub_token=self._hub_token,
                pvc_root=self._pvc_root,
                checksums=self._checksums,
                most_bytes=self._most_bytes,
                timing=self._timing,
            )
        return self._stores[root]


def _checksums(dataset: DatasetSpec) -> dict[Uri, str]:
    """The SHA-256 of the data by https, in lower case."""
    validation = dataset.validation
    named = [(dataset.uri, dataset.sha256), (validation.uri, validation.sha256) if validation else (None, None)]
    return {uri: digest.lower() for uri, digest in named if uri is not None and digest is not None}


def _root(uri: Uri) -> str:
    """Returns the key of a URI's store. There is one store per Hub repository, and one per other scheme."""
    return f"{uri.scheme}/{uri.authority}" if uri.scheme is Scheme.HF else str(uri.scheme)
