"""What OpenShift's SCC restricted-v2 does to pods, by admission policies: it assigns a user, and refuses any other."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from localcluster import Target, UnsupportedError
from localcluster.errors import ClusterError
from localcluster.waiting import wait_for

USER = 1000680000
"""As OpenShift has it in a namespace's annotation; no image has an entry for it. Its group is then 0."""
_LABEL = "finetune-test/scc"
_NAME = "finetune-test-restricted-v2"
_GROUP = "admissionregistration.k8s.io"
_FIELDS = ("runAsUser", "fsGroup")
_SECONDS = 60


@contextmanager
def restricted_v2(target: Target, *namespaces: str) -> Iterator[None]:
    """The namespaces treat pods as OpenShift does, until the end.

    Raises:
        UnsupportedError: the cluster has no MutatingAdmissionPolicies (Kubernetes before 1.36).
    """
    if "mutatingadmissionpolicies" not in target.kubectl("api-resources", f"--api-group={_GROUP}"):
        raise UnsupportedError("this needs MutatingAdmissionPolicies, of Kubernetes 1.36")
    target.kubectl("label", "namespace", *namespaces, f"{_LABEL}=restricted-v2", "--overwrite")
    try:
        for manifest in _manifests():
            target.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
        wait_for("the policies to be in force", lambda: _in_force(target, namespaces[0]), timeout=_SECONDS)
        yield
    finally:
        target.kubectl("label", "namespace", *namespaces, f"{_LABEL}-")
        for manifest in _manifests():
            target.kubectl("delete", manifest["kind"], _NAME, "--ignore-not-found")


def _in_force(target: Target, namespace: str) -> bool:
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "namespace": namespace},
        "spec": {
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "probe",
                    "image": "probe",
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }

    def create() -> str:
        arguments = ("create", "--dry-run=server", "-o", "jsonpath={.spec.securityContext.runAsUser}", "-f", "-")
        return target.kubectl(*arguments, stdin=json.dumps(pod))

    if create() != str(USER):
        return False
    pod["spec"]["securityContext"]["runAsUser"] = 65532
    try:
        create()
    except ClusterError as error:
        return "restricted-v2" in str(error)
    return False


def _manifests() -> list[dict[str, Any]]:
    """Both policies with their bindings."""
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    match = {"resourceRules": [pods], "namespaceSelector": {"matchLabels": {_LABEL: "restricted-v2"}}}
    named = " || ".join(f"has(object.spec.securityContext.{field})" for field in _FIELDS)
    assigned = ", ".join(f"{field}: {USER}" for field in _FIELDS)
    context = "Object.spec{securityContext: Object.spec.securityContext{" + assigned + "}}"
    others = " && ".join(f"object.spec.securityContext.{field} == {USER}" for field in _FIELDS)
    specs: dict[str, dict[str, Any]] = {
        "MutatingAdmissionPolicy": {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "matchConstraints": match,
            "matchConditions": [
                {"name": "names-no-user", "expression": f"!has(object.spec.securityContext) || !({named})"}
            ],
            "mutations": [
                {
                    "patchType": "ApplyConfiguration",
                    "applyConfiguration": {"expression": "Object{spec: " + context + "}"},
                }
            ],
        },
        "MutatingAdmissionPolicyBinding": {"policyName": _NAME},
        "ValidatingAdmissionPolicy": {
            "failurePolicy": "Fail",
            "matchConstraints": match,
            "validations": [
                {
                    "expression": others + " && !has(object.spec.securityContext.runAsGroup)",
                    "message": f"unable to validate against restricted-v2: must be user and group {USER}",
                }
            ],
        },
        "ValidatingAdmissionPolicyBinding": {"policyName": _NAME, "validationActions": ["Deny"]},
    }
    return [
        {"apiVersion": f"{_GROUP}/v1", "kind": kind, "metadata": {"name": _NAME}, "spec": spec}
        for kind, spec in specs.items()
    ]
