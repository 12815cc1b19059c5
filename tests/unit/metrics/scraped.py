"""Samples of a registry, as Prometheus would read them."""

from prometheus_client import CollectorRegistry

Samples = dict[str, float]


def samples(registry: CollectorRegistry, prefix: str = "finetune_") -> Samples:
    """Returns every sample whose name begins with `prefix`, by its name and labels as Prometheus writes them."""
    return {
        shown(sample.name, sample.labels): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name.startswith(prefix) and not sample.name.endswith("_created")
    }


def shown(name: str, labels: dict[str, str]) -> str:
    """Returns a series as Prometheus writes it: name{label="value"}."""
    inner = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{inner}}}" if inner else name
