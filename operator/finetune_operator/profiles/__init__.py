"""The profiles that are shipped, as YAML: the package has them for runs without a cluster, chart and manifests too."""

from importlib.resources import files

SHIPPED = ("llama2-2023",)
"""Names of the ClusterFineTuneProfiles in this folder."""


def shipped(name: str) -> str:
    """The YAML of a shipped profile, with its comments.

    Raises:
        KeyError: there is none of that name.
    """
    if name not in SHIPPED:
        raise KeyError(name)
    return files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
