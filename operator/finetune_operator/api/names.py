"""Names in Kubernetes: API group, labels, field managers, and the names of children.

A child's name depends only on the FineTuneJob and the attempt. So a restarted operator finds existing children, and
apply is idempotent.
"""

import hashlib

GROUP = "finetune.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "FineTuneJob"
PLURAL = "finetunejobs"
SINGULAR = "finetunejob"
SHORT_NAMES = ("ftj",)
CATEGORIES = ("all", "ml")

PROFILE_PLURAL = "finetuneprofiles"
CLUSTER_PROFILE_PLURAL = "clusterfinetuneprofiles"
DEFAULT_PROFILE_ANNOTATION = f"{GROUP}/is-default-profile"
"""On a profile: `"true"` makes it the default of its namespace, or of the cluster."""

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "finetune-operator"
FINETUNEJOB_NAME_LABEL = f"{GROUP}/job-name"
FINETUNEJOB_UID_LABEL = f"{GROUP}/job-uid"
ROLE_LABEL = f"{GROUP}/role"
ATTEMPT_LABEL = f"{GROUP}/attempt"
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
"""Completion index of a pod of an Indexed Job. Kubernetes sets it."""
RECIPE_ANNOTATION = f"{GROUP}/recipe"
"""On the pod template: the recipe, mounted from here by the downward API."""
HUB_CA_ANNOTATION = f"{GROUP}/hub-ca"
"""On the pod template: CA certificates for the Hub's mirror, mounted in the same way."""

CONTROLLER_NAME = f"{GROUP}/operator"
"""The value of spec.managedBy for this operator. Without the field it is this operator too."""

FIELD_MANAGER = "finetune-operator"
PROGRESS_FIELD_MANAGER = "finetune-progress"
"""Field manager of status.progress only, so that a progress write never conflicts with the status."""

PREFLIGHT_ROLE = "preflight"
TRAIN_ROLE = "train"
CONTAINERS = {PREFLIGHT_ROLE: "preflight", TRAIN_ROLE: "trainer"}
"""Name of the container of each role. A service mesh may inject others."""

MAX_NAME = 63
NAME_RULE = (
    f"must be at most {MAX_NAME} lower-case letters, digits and '-', and start and end with a letter or digit, since "
    "Jobs, pods and labels are named after it: choose another name"
)
"""What is said of a FineTuneJob's name that is none."""
MAX_JOB_NAME = 60
"""The host name of an Indexed Job's pod is the Job's name and its index, below 64; it has at most 63 characters."""


def child_name(job: str, role: str, attempt: int) -> str:
    """Name of the child Job of one attempt: at most 60 characters, distinct for distinct jobs."""
    return _affixed("", job, f"-{role}-{attempt}", MAX_JOB_NAME)


def service_name(job: str) -> str:
    """Name of the headless Service of a job with several pods. It begins with a letter, as a Service's name must."""
    return _affixed("pods-", job, "", MAX_NAME)


def _affixed(prefix: str, job: str, suffix: str, most: int) -> str:
    """The job's name with a prefix and a suffix; a long one is shortened to exactly `most` characters.

    Any other is shorter. So no job can be given a name whose child has the name of a child of a job with a long name.
    """
    if len(prefix) + len(job) + len(suffix) < most:
        return prefix + job + suffix
    digest = hashlib.sha256(job.encode()).hexdigest()[:8]
    kept_length = most - len(prefix) - len(suffix) - len(digest) - 1
    return f"{prefix}{job[:kept_length]}-{digest}{suffix}"


def progress_audience(uid: str) -> str:
    """Audience of the token with which a job's pods report. Each job has its own, so no token is valid for another."""
    return f"{GROUP}/{uid}"
