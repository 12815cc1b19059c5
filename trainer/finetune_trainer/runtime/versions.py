"""The packages whose version shapes a result: the manifest records them, and a checkpoint too."""

from importlib.metadata import version

_PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate")


def shaping_versions() -> dict[str, str]:
    """Their versions by name."""
    return {name: version(name) for name in _PACKAGES}
