"""Writes the schemas of several Kubernetes versions that tests/deploy/test_kubernetes_versions.py reads.

    python3 -m scripts.kubernetes_schemas

Each version's own OpenAPI document comes from its Go module, through Go's module proxy. Of it only the kinds that the
project installs or creates are kept, without descriptions. What is the same in several versions is there once.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "tests/deploy/kubernetes_schemas.json"
VERSIONS = ("1.30.14", "1.31.0", "1.32.0", "1.33.0", "1.34.0", "1.35.0", "1.36.3")
"""One of each minor version that the chart allows; patches do not change schemas. The last is the local cluster's."""
KINDS = (
    "apps/v1/Deployment",
    "batch/v1/Job",
    "v1/ConfigMap",
    "v1/Namespace",
    "v1/Pod",
    "v1/Service",
    "v1/ServiceAccount",
    "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy",
    "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicyBinding",
    "apiextensions.k8s.io/v1/CustomResourceDefinition",
    "networking.k8s.io/v1/NetworkPolicy",
    "policy/v1/PodDisruptionBudget",
    "rbac.authorization.k8s.io/v1/ClusterRole",
    "rbac.authorization.k8s.io/v1/ClusterRoleBinding",
    "rbac.authorization.k8s.io/v1/Role",
    "rbac.authorization.k8s.io/v1/RoleBinding",
)
_KEPT = ("type", "format", "required", "enum", "x-kubernetes-preserve-unknown-fields")


def schemas(definitions: dict[str, Any]) -> dict[str, Any]:
    """Returns the definitions of `KINDS` and of all that they refer to, by name. A kind is `group/version/Kind`."""
    names = {kind: name for name, schema in definitions.items() for kind in _kinds(schema)}
    found: dict[str, Any] = {}
    waiting = [names[kind] for kind in KINDS]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = _reduced(definitions[name])
            waiting.extend(_references(found[name]))
    return {**found, **{kind: {"$ref": names[kind]} for kind in KINDS}}


def _kinds(schema: dict[str, Any]) -> Iterator[str]:
    for item in schema.get("x-kubernetes-group-version-kind", ()):
        yield "/".join(part for part in (item["group"], item["version"], item["kind"]) if part)


def _reduced(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return {"$ref": schema["$ref"].rsplit("/", 1)[1]}
    reduced = {key: schema[key] for key in _KEPT if key in schema}
    if "properties" in schema:
        reduced["properties"] = {name: _reduced(part) for name, part in sorted(schema["properties"].items())}
    if "items" in schema:
        reduced["items"] = _reduced(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        reduced["additionalProperties"] = _reduced(schema["additionalProperties"])
    return reduced


def _references(schema: dict[str, Any]) -> Iterator[str]:
    if "$ref" in schema:
        yield schema["$ref"]
    for part in schema.get("properties", {}).values():
        yield from _references(part)
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from _references(schema[key])


def merged(versions: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Returns, by name, each distinct schema with the minor versions that have it."""
    result: dict[str, list[dict[str, Any]]] = {}
    for version, found in versions.items():
        for name, schema in found.items():
            variants = result.setdefault(name, [])
            same = next((item for item in variants if item["schema"] == schema), None)
            if same is None:
                variants.append({"versions": [version], "schema": schema})
            else:
                same["versions"].append(version)
    return dict(sorted(result.items()))


def definitions_of(version: str) -> dict[str, Any]:
    """Downloads a version's Go module into a folder that is removed afterwards, and returns its definitions."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "GOMODCACHE": folder, "GOFLAGS": "-modcacherw"}
        argv = ["go", "mod", "download", "-json", f"k8s.io/kubernetes@v{version}"]
        done = subprocess.run(argv, env=environment, cwd=folder, capture_output=True, text=True, check=True)
        document = Path(json.loads(done.stdout)["Dir"], "api/openapi-spec/swagger.json")
        definitions: dict[str, Any] = json.loads(document.read_text(encoding="utf-8"))["definitions"]
        return definitions


def main() -> int:
    """Writes the file. Returns the exit status."""
    found = {version.rpartition(".")[0]: schemas(definitions_of(version)) for version in VERSIONS}
    lines = (f" {json.dumps(name)}: {json.dumps(part, sort_keys=True)}" for name, part in merged(found).items())
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"wrote {TARGET.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
