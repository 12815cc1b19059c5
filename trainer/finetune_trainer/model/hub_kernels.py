"""Refuses models whose config.json requests a kernel of the Hub: compiled code from another repository.

transformers downloads and runs such code if the package `kernels` is installed (transformers:integrations/
hub_kernels.py). The model's author chooses the repository, and no commit is pinned. `model.trustRemoteCode` permits
only the code in the model's own repository. So a model that requests a kernel is refused, even with that permission.
"""

from collections.abc import Iterator, Mapping

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.uri import Uri

_ATTENTION = frozenset({"attn_implementation", "_attn_implementation"})
_EXPERTS = frozenset({"experts_implementation", "_experts_implementation"})
_OWN_EXPERTS = frozenset({"eager", "batched_mm", "grouped_mm"})
"""Implementations that are transformers' own. The others load a kernel, or do not exist."""
_SWITCHES = frozenset({"use_kernels", "kernel_config"})


def require_no_hub_kernels(place: Uri, config: Mapping[str, object]) -> None:
    """Requires that a model requests no kernel of the Hub.

    Args:
        place: model.uri, for the message.
        config: the model's config.json. Its sections can request a kernel too.

    Raises:
        TrainerError: NOT_SUPPORTED, a key requests a kernel; the message names the keys.
    """
    if found := sorted(set(_requests(config))):
        raise TrainerError(
            FailureReason.NOT_SUPPORTED,
            f"config.json of {place} asks for code of another repository: {', '.join(found)}. Kernels of the Hub are "
            "neither fetched nor run, with model.trustRemoteCode neither; use a copy of the model without these keys",
        )


def _requests(value: object) -> Iterator[str]:
    """Every `key: value` that requests a kernel, at any depth."""
    open_values = [value]
    while open_values:
        match open_values.pop():
            case Mapping() as section:
                yield from (f"{key}: {item}" for key, item in section.items() if _is_request(key, item))
                open_values += section.values()
            case list() as items:
                open_values += items


def _is_request(key: object, value: object) -> bool:
    """Whether a key requests a kernel. A mapping gives each section of the model its own implementation."""
    if key in _SWITCHES:
        return bool(value)
    if key not in _ATTENTION | _EXPERTS:
        return False
    chosen = value.values() if isinstance(value, Mapping) else [value]
    if key in _ATTENTION:
        return any("/" in str(name) for name in chosen)
    return any(name is not None and name not in _OWN_EXPERTS for name in chosen)
