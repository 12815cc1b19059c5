"""Paths, environment variables and object keys that the operator and the trainer share.

Inside a pod these are the mount paths of the recipe and of Secrets, and the working directory. In the output:

    <output.uri>/<job name>/latest.json                          which run is the newest
    <output.uri>/<job name>/<fingerprint, 12 digits>/            one run
        <attempt>-<writer>/…                                     adapter files of one pod
        <attempt>-<writer>-merged/…                              the merged model, with output.merged
        manifest.json                                            the commit: written last, once
        checkpoints/<step, 8 digits>-<writer>/…                  state of a training, until the adapter is there
        checkpoints/<step, 8 digits>-<writer>/checkpoint.json    its commit: written last

With checkpoint.uri, checkpoints/ is in the same folders under that URI.
"""

from finetune_trainer.contract.uri import Uri

RECIPE_ENV = "FINETUNE_RECIPE"
"""Path of the recipe file."""
RECIPE_PATH = "/etc/finetune/recipe.json"
WORK_ENV = "FINETUNE_WORK"
"""Directory for all files that the process writes."""
WORK_PATH = "/work"
TERMINATION_ENV = "FINETUNE_TERMINATION_LOG"
"""Path of the termination message; unset in a local run."""
TERMINATION_PATH = "/dev/termination-log"
STORAGE_SECRET_PATH = "/var/run/secrets/finetune.dev/storage"  # noqa: S105 (a path)
"""Directory in a pod with one file for each key of storage.secretRef."""
STORAGE_SECRET_ENV = "FINETUNE_STORAGE_SECRET"  # noqa: S105
TRACKING_SECRET_PATH = "/var/run/secrets/finetune.dev/tracking"  # noqa: S105
"""Directory in a pod with one file for each key of the tracker's secretRef."""
TRACKING_SECRET_ENV = "FINETUNE_TRACKING_SECRET"  # noqa: S105
TRACKER_PYTHON_ENV = "FINETUNE_TRACKER_PYTHON"
"""The Python that has the trackers' packages; unset for the trainer's own."""
HUB_TOKEN_PATH = "/var/run/secrets/finetune.dev/hub/token"  # noqa: S105
HUB_TOKEN_ENV = "FINETUNE_HUB_TOKEN_FILE"  # noqa: S105
HUB_CA_PATH = "/etc/finetune/hub-ca.pem"
"""File in a pod with the certificates of the Hub's mirror."""
PVC_ROOT = "/mnt/pvc"
"""Directory in a pod for volumes: pvc://claim/path is claim/path below it."""
CACHE_ROOT = "/mnt/cache"
"""Directory in a training pod, writable, for the model cache: model.cache's pvc://claim/path is path below it."""
POD_UID_ENV = "FINETUNE_POD_UID"
"""UID of the pod. It identifies a writer, because one attempt may have several pods."""
NODE_NAME_ENV = "FINETUNE_NODE_NAME"
"""Name of the pod's node, for messages about the node."""
ALLOW_CPU_ENV = "FINETUNE_ALLOW_CPU"
"""Set to 1, a job that asks for GPUs trains on the CPU where there is none. It is for development and tests. The
operator never sets it, and a job may not."""

NODES_ENV = "FINETUNE_NODES"
"""Number of pods that train together; unset for one."""
NODE_ENV = "JOB_COMPLETION_INDEX"
"""Index of this pod, from 0. Kubernetes sets it in the pods of an Indexed Job."""
MASTER_ENV = "FINETUNE_MASTER"
"""HOST:PORT of pod 0. Its first process listens there, and the other processes connect to it."""
MASTER_PORT = 29500
"""The port of `MASTER_ENV` in a cluster."""

# transformers' KubeflowCallback reads these variables, so any TRL image reports to this operator unmodified.
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
    """The folder of one run, which all attempts with the same fingerprint share."""
    return output.child(job, fingerprint[:FINGERPRINT_DIGITS])


def latest_uri(output: Uri, job: str) -> Uri:
    """The URI of latest.json, the pointer to a job's newest run."""
    return output.child(job, LATEST_NAME)


def writer_folder(attempt: int, writer: str) -> str:
    """The name of one writer's folder in the run's folder. `writer` is a pod UID or any unique token."""
    return f"{attempt}-{writer[:_WRITER_DIGITS]}"


def merged_folder(attempt: int, writer: str) -> str:
    """The name of the folder of a writer's merged model.

    It is beside the adapter's folder and not in it, so that fetching the adapter does not fetch the merged model.
    """
    return f"{writer_folder(attempt, writer)}-merged"


def checkpoints_prefix(output: Uri, checkpoints: Uri | None, job: str, fingerprint: str) -> Uri:
    """The folder of one run's checkpoints: under checkpoint.uri if it is set, else beside the adapter."""
    return run_prefix(checkpoints or output, job, fingerprint).child(CHECKPOINTS_FOLDER)


def checkpoint_folder(step: int, writer: str, measured: int = 0) -> str:
    """The name of one checkpoint's folder in the run's folder of checkpoints. The names sort by what was done.

    Args:
        step: optimizer steps done.
        writer: UID of the writing pod.
        measured: before the first step, the pairs that the reference model was asked about.
    """
    done = f"{step:08d}" if step else f"{step:08d}-{measured:012d}"
    return f"{done}-{writer[:_WRITER_DIGITS]}"
