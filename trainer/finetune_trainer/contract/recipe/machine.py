"""The machine that a training requests: GPUs, pods and GPU memory, as known before a pod runs."""

from pydantic import Field

from finetune_trainer.contract.wire import Wire


class MachineSpec(Wire):
    """The devices of the training pods, set by the operator or the command line. They do not change the result."""

    gpus: int | None = Field(None, ge=0, description="GPUs of one pod; 0 trains on the CPU.")
    nodes: int = Field(1, ge=1, description="Pods that train together.")
    gpu_memory_bytes: int | None = Field(None, ge=0, description="Memory of one GPU in bytes, if it is known.")

    @property
    def processes(self) -> int:
        """Number of processes of all pods if `model.deviceMap` is none: one for each GPU, or one in a pod without."""
        return self.nodes * max(1, self.gpus or 1)
