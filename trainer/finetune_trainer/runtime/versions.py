"""Versions of the packages that influence the result. Manifests of adapters and checkpoints record them."""

from importlib.metadata import version

_PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate")


def shaping_versions() -> dict[str, str]:
    """Returns the packages' versions by name."""
    return {name: version(name) for name in _PACKAGES}
