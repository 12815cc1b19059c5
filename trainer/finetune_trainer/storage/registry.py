"""From a URI to the store that holds it."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.layout import PVC_ROOT
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.recipe.lora import LoraSpec
from finetune_trainer.contract.recipe.model import ModelSpec
from finetune_trainer.contract.recipe.output import StorageSpec
from finetune_trainer.contract.uri import Scheme, Uri
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
    timing: Timing = TRAINING,
) -> Store:
    """The store of a URI. Nothing is asked of it yet, so that it opens where the network is down.

    Args:
        uri: any place in it.
        spec: how object storage is reached.
        credentials: the mounted keys; None for the SDK's own chain.
        revision: of a Hub model.
        hub_token: the mounted token of a gated Hub model; None for the Hub client's own places.
        pvc_root: where claims are mounted.
        timing: time limits of storage, the Hub's too, and who is notified of waits.

    Raises:
        TrainerError: the endpoint or the certificates are refused, the mounted keys are incomplete, or the image
            cannot reach such places.
    """
    match uri.scheme:
        case Scheme.S3:
            from finetune_trainer.storage.s3 import S3Store

            return S3Store(spec, credentials, timing=timing)
        case Scheme.HF:
            if find_spec("huggingface_hub") is None:
                raise TrainerError(
                    FailureReason.NOT_SUPPORTED,
                    f"{uri}: the Hub's client (huggingface_hub) is not installed here; mirror the model to s3:// or "
                    "pvc://",
                )
            quieten()  # The client reads its switches, telemetry's among them, when it is imported.
            from finetune_trainer.storage.hub import HubStore

            return HubStore(revision=revision, token=hub_token, notifier=timing.notifier)
        case Scheme.PVC | Scheme.FILE:
            from finetune_trainer.storage.local import LocalStore

            return LocalStore(pvc_root)


class StoreRegistry:
    """The stores of one recipe, each opened once. Callable, so that it fits wherever an `OpenStore` is asked for.

    Args:
        spec: how object storage is reached.
        credentials: the mounted keys; None for the SDK's own chain.
        model, lora: whose revisions are those of their own Hub repositories, and of no other.
        hub_token: the mounted token of a gated Hub model; None for the Hub client's own places.
        pvc_root: where claims are mounted.
        timing: time limits of storage, the Hub's too, and who is notified of waits.
    """

    def __init__(
        self,
        spec: StorageSpec,
        credentials: Credentials | None,
        *,
        model: ModelSpec | None = None,
        lora: LoraSpec | None = None,
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
        self._hub_token = hub_token
        self._pvc_root = pvc_root
        self._timing = timing
        self._stores: dict[str, Store] = {}

    @classmethod
    def of_pod(cls, recipe: Recipe, environment: Mapping[str, str], timing: Timing) -> "StoreRegistry":
        """The stores of a recipe, with the keys and the token that the process's environment names."""
        return cls(
            recipe.storage,
            Credentials.from_environment(environment),
            model=recipe.model,
            lora=recipe.lora,
            hub_token=HubToken.from_environment(environment),
            timing=timing,
        )

    def __call__(self, uri: Uri) -> Store:
        """The store of a URI; see `open_store`."""
        root = _root(uri)
        if root not in self._stores:
            self._stores[root] = open_store(
                uri,
                self._spec,
                self._credentials,
                revision=self._revisions.get(root),
                hub_token=self._hub_token,
                pvc_root=self._pvc_root,
                timing=self._timing,
            )
        return self._stores[root]


def _root(uri: Uri) -> str:
    """What one store is for: a repository of the Hub, or all places of another scheme."""
    return "/".join([uri.scheme, *uri.authority.split("/")[:2]]) if uri.scheme is Scheme.HF else str(uri.scheme)
