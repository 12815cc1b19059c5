"""What to do about a failure of a local run, where that differs from a job in a cluster."""

from finetune_trainer.contract.failure import FAILURES, FailureReason

_LOCAL = {
    FailureReason.INTERNAL: "Report the error with the last lines above.",
    FailureReason.INVALID_SPEC: "Correct the named fields.",
    FailureReason.NOT_SUPPORTED: "Remove the named fields, or use a later version.",
    FailureReason.MODEL_ACCESS_DENIED: "Accept the model's licence on the Hub, and give a token of that account in "
    "HF_TOKEN.",
    FailureReason.DATASET_ACCESS_DENIED: "Accept the data set's terms on the Hub, and give a token of that account in "
    "HF_TOKEN.",
    FailureReason.STORAGE_ACCESS_DENIED: "Check the keys (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) and the bucket's "
    "policy.",
    FailureReason.STORAGE_UNAVAILABLE: "Check that storage.endpoint or the Hub can be reached from this machine, and "
    "run the command again.",
    FailureReason.GPU_UNAVAILABLE: "Repair the GPU's driver, or change the YAML: resources.gpus: 0 trains on the CPU.",
    FailureReason.GPU_NOT_SUPPORTED: "Use a newer GPU, or change the YAML: resources.gpus: 0 trains on the CPU.",
    FailureReason.HOST_OUT_OF_MEMORY: "Use a machine with more memory, or a smaller model.",
    FailureReason.DISK_FULL: "Free some space, or name another folder with --work.",
    FailureReason.QUALITY_GATE_MISSED: "Train longer, with other data or settings, or lower the gate.",
    FailureReason.PREEMPTED: "Run the same command again: it goes on from the newest checkpoint, if there is one.",
    FailureReason.PEER_FAILED: "Look at the lines above for the process that ended first.",
}


def local_remedy(reason: FailureReason) -> str:
    """What the user of a local run can do, in one or two sentences."""
    return _LOCAL.get(reason, FAILURES[reason].remedy)
