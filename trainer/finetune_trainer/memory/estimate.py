"""The estimate of a training's memory, by part, for one size of its micro-batches."""

from dataclasses import dataclass

from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.recipe.lora import LoraSpec
from finetune_trainer.contract.recipe.model import ComputeDtype, Quantization, Sharding
from finetune_trainer.contract.recipe.training import Optimizer
from finetune_trainer.memory.activations import Masking, MicroBatchShape, Precision, saved_bytes, transient_bytes
from finetune_trainer.memory.shape import ModelShape
from finetune_trainer.memory.trainable import FLOAT32, optimizer_bytes, trained_bytes, trained_tensors
from finetune_trainer.memory.weights import WeightSharding, model_bytes, sharded_bytes

GIB = 1 << 30
_CUDA_CONTEXT = 3 * GIB // 4
"""Bytes of the CUDA context with the libraries' kernels and workspaces. It is a little more than half a GiB on recent
GPUs, and no allocator counts it."""
_FRAGMENTATION = 0.05
"""Memory that torch's allocator reserves but does not use, as a share of activations and workspace."""
_CPU_PROCESS = 5 * GIB // 8
"""Bytes of a process without a model: Python, torch and the other libraries (540 MiB, measured), and memory that the C
library keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSetup:
    """The settings on which the memory depends, besides the model's sizes and the micro-batch.

    Attributes:
        quantization: quantisation of the base model.
        lora: the adapter.
        optimizer: the optimizer.
        precision: number formats and device.
        masking: the method that keeps rows separate.
        sharding: how the base model is sharded; None if each process has all of it.
    """

    quantization: Quantization
    lora: LoraSpec
    optimizer: Optimizer
    precision: Precision
    masking: Masking
    sharding: WeightSharding | None = None

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        *,
        cuda: bool,
        width: int | None = None,
        masking: Masking | None = None,
        fused_norms: bool = False,
    ) -> "TrainingSetup":
        """The setup of a recipe.

        Args:
            recipe: the recipe.
            cuda: whether the training runs on a GPU.
            width: bytes of a number of the compute type. By default the recipe decides; its auto is 2 on a GPU, else 4.
            masking: the masking. By default the recipe decides.
            fused_norms: whether the model's norms are fused.
        """
        quantization = recipe.model.quantization
        chosen = width or _width(quantization.compute_dtype, cuda=cuda)
        return cls(
            quantization=quantization,
            lora=recipe.lora,
            optimizer=recipe.training.optimizer,
            precision=Precision(width=chosen, cuda=cuda, quantization=quantization.type, fused_norms=fused_norms),
            masking=masking or Masking.of(recipe.model.attention, kernel=not cuda or chosen < FLOAT32),
            sharding=WeightSharding(
                processes=recipe.machine.processes, ignored_modules=tuple(recipe.lora.modules_to_save or ())
            )
            if recipe.model.sharding is Sharding.FULL
            else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """The peak of the device's memory in a step, in bytes by part.

    Attributes:
        model: the frozen weights; with sharding, the part in one process.
        adapter: the trained weights.
        gradients: the gradients of the trained weights.
        optimizer: the optimizer's state.
        activations: the tensors that a micro-batch saves for its backward pass.
        workspace: temporary tensors: logits, gradients of a layer, dequantized weights.
        reserve: memory of the process itself (CUDA context or libraries), and the allocator's fragmentation.
    """

    model: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    workspace: int
    reserve: int

    @property
    def total(self) -> int:
        """Sum of all parts, in bytes."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, int]:
        """Name of each part -> bytes."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __str__(self) -> str:
        return ", ".join(f"{name} {size / GIB:.2f}" for name, size in self.parts().items()) + " GiB"


def estimate(shape: ModelShape, setup: TrainingSetup, micro_batch: MicroBatchShape) -> MemoryEstimate:
    """The memory of a training.

    Args:
        shape: the model's sizes.
        setup: the settings of the training.
        micro_batch: the size of the largest micro-batch.
    """
    tensors = trained_tensors(shape, setup.lora)
    adapter = trained_bytes(tensors)
    saved = saved_bytes(shape, setup.lora, setup.precision, setup.masking, micro_batch)
    transient = transient_bytes(shape, setup.lora, setup.precision, setup.masking, micro_batch)
    return MemoryEstimate(
        model=_model_bytes(shape, setup),
        adapter=adapter,
        gradients=adapter,
        optimizer=optimizer_bytes(tensors, setup.optimizer),
        activations=saved,
        workspace=transient,
        reserve=_CUDA_CONTEXT + int(_FRAGMENTATION * (saved + transient)) if setup.precision.cuda else _CPU_PROCESS,
    )


def _model_bytes(shape: ModelShape, setup: TrainingSetup) -> int:
    if setup.sharding is None:
        return model_bytes(shape, setup.quantization, setup.precision.width)
    return sharded_bytes(shape, setup.quantization, setup.precision.width, setup.sharding)


def _width(dtype: ComputeDtype, *, cuda: bool) -> int:
    if dtype is ComputeDtype.AUTO:
        return 2 if cuda else 4
    return 4 if dtype is ComputeDtype.FLOAT32 else 2
