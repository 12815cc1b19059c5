"""The estimate: all parts of a training's memory, for one size of its micro-batches."""

from dataclasses import dataclass

from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.recipe.lora import LoraSpec
from finetune_trainer.contract.recipe.model import ComputeDtype, Quantization, Sharding
from finetune_trainer.contract.recipe.training import Optimizer
from finetune_trainer.memory.activations import Masking, MicroBatchShape, Precision, saved_bytes, transient_bytes
from finetune_trainer.memory.shape import ModelShape
from finetune_trainer.memory.trainable import optimizer_bytes, trained_bytes, trained_tensors
from finetune_trainer.memory.weights import WeightSharding, model_bytes, sharded_bytes

GIB = 1 << 30
_CUDA_CONTEXT = 3 * GIB // 4
"""The CUDA context with the libraries' kernels and workspaces: half a GiB on recent GPUs and some, in no allocator's
count."""
_FRAGMENTATION = 0.05
"""Share of the tensors that come and go by which torch's allocator holds more than it hands out."""
_CPU_PROCESS = 5 * GIB // 8
"""Python, torch and its friends before there is a model (measured, 540 MiB), and the C library's slack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSetup:
    """All that the memory depends on besides the model and the micro-batch.

    Attributes:
        quantization: of the base model.
        lora: the adapter.
        optimizer: the optimizer.
        precision: how numbers are held.
        masking: how rows are kept apart.
        sharding: how the base model is sharded; None where each process has all of it.
    """

    quantization: Quantization
    lora: LoraSpec
    optimizer: Optimizer
    precision: Precision
    masking: Masking
    sharding: WeightSharding | None = None

    @classmethod
    def of(
        cls, recipe: Recipe, *, cuda: bool, width: int | None = None, masking: Masking | None = None
    ) -> "TrainingSetup":
        """The recipe's.

        Args:
            recipe: the recipe.
            cuda: on a GPU.
            width: bytes of a number of the products; by default the recipe's, where auto is 2 on a GPU and 4 elsewhere.
            masking: by default the recipe's.
        """
        quantization = recipe.model.quantization
        chosen = width or _width(quantization.compute_dtype, cuda=cuda)
        return cls(
            quantization=quantization,
            lora=recipe.lora,
            optimizer=recipe.training.optimizer,
            precision=Precision(width=chosen, cuda=cuda, quantization=quantization.type),
            masking=masking or Masking.of(recipe.model.attention),
            sharding=WeightSharding(
                processes=recipe.machine.processes, ignored_modules=tuple(recipe.lora.modules_to_save or ())
            )
            if recipe.model.sharding is Sharding.FULL
            else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes of the device's memory at the highest point of a step.

    Attributes:
        model: the frozen weights, or what this process has of them.
        adapter: the trained weights.
        gradients: their gradients.
        optimizer: the optimizer's state.
        activations: what a micro-batch saves for its backward pass.
        workspace: what comes and goes: logits, gradients of a layer, dequantized weights.
        reserve: what the process takes by itself, and the allocator's waste.
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
        """All parts."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, int]:
        """Bytes of each part by its name."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __str__(self) -> str:
        return ", ".join(f"{name} {size / GIB:.2f}" for name, size in self.parts().items()) + " GiB"


def estimate(shape: ModelShape, setup: TrainingSetup, micro_batch: MicroBatchShape) -> MemoryEstimate:
    """The memory of a training whose largest micro-batch has this shape."""
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
