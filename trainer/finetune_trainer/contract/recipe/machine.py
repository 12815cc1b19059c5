"""What is known of the machine that a training gets, before there is one."""

from pydantic import Field

from finetune_trainer.contract.wire import Wire


class MachineSpec(Wire):
    """The training pod's devices, as the one who starts it knows them. They do not shape the result."""

    gpus: int | None = Field(None, ge=0, description="GPUs of one pod; 0 trains on the CPU.")
    nodes: int = Field(1, ge=1, description="Pods that train together.")
    gpu_memory_bytes: int | None = Field(None, ge=0, description="Memory of one GPU, where it is known.")

    @property
    def processes(self) -> int:
        """Processes in all, one a GPU, or one a pod without GPUs, where the model's layers are not spread."""
        return self.nodes * max(1, self.gpus or 1)
