"""Paths, variables and object keys that both sides must name alike.

Inside a pod: where the recipe is mounted, where secrets are, where the process may write. In the output:

    <output.uri>/<job name>/latest.json                          which run is the newest
    <output.uri>/<job name>/<fingerprint, 12 digits>/            one run
        <attempt>-<writer>/…                                     adapter files of one pod
        <attempt>-<writer>-merged/…                              the merged model, with output.merged
        manifest.json                                            the commit: written last, once
        checkpoints/<step, 8 digits>-<writer>/…                  state of a training, until the adapter is there
        checkpoints/<step, 8 digits>-<writer>/checkpoint.json    its commit: written last

With checkpoint.uri the last two stand in the same folders under that place.
"""

from finetune_trainer.contract.uri import Uri

RECIPE_ENV = "FINETUNE_RECIPE"
"""Path of the recipe file."""
RECIPE_PATH = "/etc/finetune/recipe.json"
WORK_ENV = "FINETUNE_WORK"
"""Directory for everything the process writes."""
WORK_PATH = "/work"
TERMINATION_ENV = "FINETUNE_TERMINATION_LOG"
"""Path of the termination message; unset in a local run."""
TERMINATION_PATH = "/dev/termination-log"
STORAGE_SECRET_PATH = "/var/run/secrets/finetune.dev/storage"  # noqa: S105 (a path)
"""Directory with one file a key of storage.secretRef, in a pod."""
STORAGE_SECRET_ENV = "FINETUNE_STORAGE_SECRET"  # noqa: S105
HUB_TOKEN_PATH = "/var/run/secrets/finetune.dev/hub/token"  # noqa: S105
HUB_TOKEN_ENV = "FINETUNE_HUB_TOKEN_FILE"  # noqa: S105
HUB_CA_PATH = "/etc/finetune/hub-ca.pem"
"""Certificates of the Hub's mirror, beside the recipe, in a pod."""
PVC_ROOT = "/mnt/pvc"
"""pvc://claim/path is this directory's claim/path, in a pod."""
CACHE_ROOT = "/mnt/cache"
"""model.cache's pvc://claim/path is this directory's path, in a training pod, which may write there."""
POD_UID_ENV = "FINETUNE_POD_UID"
"""UID of the pod: the identity of a writer, since one attempt may have several pods."""

NODES_ENV = "FINETUNE_NODES"
"""How many pods train together; unset for one."""
NODE_ENV = "JOB_COMPLETION_INDEX"
"""Number of this pod among them, from 0: Kubernetes sets it in the pods of an Indexed Job."""
MASTER_ENV = "FINETUNE_MASTER"
"""HOST:PORT of pod 0, where its first process listens and the others connect to."""
MASTER_PORT = 29500
"""The port of it in a cluster."""

# transformers' KubeflowCallback reports to these, so any TRL image reports to this operator unmodified.
PROGRESS_URL_ENV = "KUBEFLOW_TRAINER_SERVER_URL"
PROGRESS_TOKEN_ENV = "KUBEFLOW_TRAINER_SERVER_TOKEN"  # noqa: S105
PROGRESS_CA_ENV = "KUBEFLOW_TRAINER_SERVER_CA_CERT"
PROGRESS_TOKEN_PATH = "/var/run/secrets/finetune.dev/progress/token"  # noqa: S105

MANIFEST_NAME = "manifest.json"
LATEST_NAME = "latest.json"
CHECKPOINTS_FOLDER = "checkpoints"
CHECKPOINT_MANIFEST_NAME = "checkpoint.json"
FINGERPRINT_DIGITS = 12
_WRITER_DIGITS = 8


def run_prefix(output: Uri, job: str, fingerprint: str) -> Uri:
    """The place of one run: every attempt of the same recipe on the same data."""
    return output.child(job, fingerprint[:FINGERPRINT_DIGITS])


def latest_uri(output: Uri, job: str) -> Uri:
    """The place of the pointer to a job's newest run."""
    return output.child(job, LATEST_NAME)


def writer_folder(attempt: int, writer: str) -> str:
    """The folder of one writer inside the run's place. `writer` is a pod UID or any unique token."""
    return f"{attempt}-{writer[:_WRITER_DIGITS]}"


def merged_folder(attempt: int, writer: str) -> str:
    """The folder of a writer's merged model, beside its adapter's: who wants the adapter fetches no gigabytes."""
    return f"{writer_folder(attempt, writer)}-merged"


def checkpoints_prefix(output: Uri, checkpoints: Uri | None, job: str, fingerprint: str) -> Uri:
    """The place of one run's checkpoints: under checkpoint.uri, else beside the adapter."""
    return run_prefix(checkpoints or output, job, fingerprint).child(CHECKPOINTS_FOLDER)


def checkpoint_folder(step: int, writer: str) -> str:
    """The folder of one checkpoint inside the run's place for them; the names sort by step."""
    return f"{step:08d}-{writer[:_WRITER_DIGITS]}"
