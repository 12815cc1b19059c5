"""Writes the generated files, or checks that they are up to date."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from scripts.chart_readme import chart_readme

from finetune_operator.api.crd import custom_resource_definition, profile_definitions
from finetune_operator.api.reference import failure_reference, field_reference, profile_reference
from finetune_operator.metrics.reference import with_reference
from finetune_operator.profiles import SHIPPED, shipped

ROOT = Path(__file__).resolve().parent.parent
CHART = Path("helm/finetune-operator")
PROFILE_HEADER = "# Copied from operator/finetune_operator/profiles by scripts/generate: change it there.\n"
HEADER = "# Generated from operator/finetune_operator/api by scripts/generate: change it there.\n"


class _Dumper(yaml.SafeDumper):
    """Writes YAML that Go's parser reads as the same values, without anchors."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


# PyYAML reads 2e-4 as a string, Go's parser as a number. Without quotes, learningRate's default would change its type.
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9.]+([eE][-+]?[0-9]+)?$"), list("-+.0123456789")
)


def to_yaml(value: Any) -> str:
    """Returns deterministic YAML. Keys keep their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def helm_template(*crds: dict[str, Any]) -> str:
    """Returns CRDs as a template of the chart. It is in templates/, because Helm never upgrades a CRD in crds/."""
    return "{{- if .Values.crds.enabled }}\n" + HEADER + "---\n".join(map(_definition, crds)) + "{{- end }}\n"


def _definition(crd: dict[str, Any]) -> str:
    metadata, rest = to_yaml({"metadata": crd["metadata"]}), to_yaml({"spec": crd["spec"]})
    head = to_yaml({key: crd[key] for key in ("apiVersion", "kind")})
    name, _, labels = metadata.partition("  labels:\n")
    return (
        _literal(head + name)
        + '  {{- with include "finetune-operator.crdAnnotations" . }}\n'
        + "  annotations:\n    {{- . | nindent 4 }}\n"
        + "  {{- end }}\n"
        + _literal("  labels:\n" + labels)
        + _literal(rest)
    )


def profile_template() -> str:
    """Returns the shipped profiles as a template of the chart.

    Helm asks the API server for every kind before it creates the first object. So the profiles come with the first
    upgrade after the CRDs, or with an installation whose CRDs are there already.
    """
    head = (
        '{{- if and .Values.profiles.shipped (.Capabilities.APIVersions.Has "finetune.dev/v1alpha1/'
        'ClusterFineTuneProfile") }}\n'
    )
    texts = [_literal(shipped(name)) for name in SHIPPED]
    return head + PROFILE_HEADER + "---\n".join(texts) + "{{- end }}\n"


def _literal(text: str) -> str:
    return text.replace("{{", '{{ "{{" }}')


def generated_files() -> dict[Path, str]:
    """Returns the path below the repository's root and the content of every generated file."""
    crd, profiles = custom_resource_definition(), profile_definitions()
    return {
        Path("manifests/crd/finetunejobs.yaml"): HEADER + to_yaml(crd),
        Path("manifests/crd/profiles.yaml"): HEADER + "---\n".join(map(to_yaml, profiles)),
        CHART / "templates/crd.yaml": helm_template(crd),
        CHART / "templates/crd-profiles.yaml": helm_template(*profiles),
        CHART / "templates/profiles.yaml": profile_template(),
        **{Path(f"manifests/profiles/{name}.yaml"): PROFILE_HEADER + shipped(name) for name in SHIPPED},
        Path("docs/reference.md"): field_reference(),
        Path("docs/reference-profiles.md"): profile_reference(),
        Path("docs/failures.md"): failure_reference(),
        Path("docs/metrics.md"): with_reference((ROOT / "docs/metrics.md").read_text()),
        CHART / "README.md": chart_readme(ROOT / CHART),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes or checks the generated files. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository (default: this one)")
    options = parser.parse_args(arguments)
    files = {options.root / path: text for path, text in generated_files().items()}
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text() != text]
    for path in stale:
        name = path.relative_to(options.root)
        if options.check:
            print(f"{name} is stale: run scripts/generate and commit what it writes", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path])
            print(f"wrote {name}")
    if options.check and stale:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
