"""Rules on several fields that concern the `model` section."""

from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.recipe.dataset import Switch
from finetune_trainer.contract.recipe.lora import LoraVariant
from finetune_trainer.contract.recipe.model import Attention, DeviceMap, QuantizationType, Sharding
from finetune_trainer.contract.rule import Rule
from finetune_trainer.contract.uri import Scheme, scheme_of

RULES: tuple[Rule[Recipe], ...] = (
    Rule(
        path="model.revision",
        holds=lambda recipe: recipe.model.revision is None or scheme_of(recipe.model.uri) is Scheme.HF,
        cel="!has(self.model.revision) || self.model.uri.startsWith('hf://')",
        message="only hf:// models have revisions: remove the field",
    ),
    Rule(
        path="model.cache",
        holds=lambda recipe: recipe.model.cache is None or scheme_of(recipe.model.uri) in (Scheme.HF, Scheme.S3),
        cel="!has(self.model.cache) || self.model.uri.startsWith('hf://') || self.model.uri.startsWith('s3://')",
        message="only hf:// and s3:// models are fetched: remove the field",
    ),
    Rule(
        path="model.attention",
        holds=lambda recipe: (
            recipe.model.attention is not Attention.VARLEN or recipe.dataset.packing is not Switch.DISABLED
        ),
        given=("model.attention", "dataset.packing"),
        cel="self.model.attention != 'varlen' || self.dataset.packing != 'disabled'",
        message="varlen is for packed rows, and dataset.packing is disabled: use auto, or pack",
    ),
    Rule(
        path="model.deviceMap",
        holds=lambda recipe: recipe.model.device_map is DeviceMap.NONE or recipe.machine.gpus != 0,
        given=("resources.gpus",),
        cel="self.model.deviceMap == 'none' || self.resources.gpus > 0",
        message="spreads layers over GPUs, and resources.gpus is 0: remove the field",
    ),
    Rule(
        path="model.deviceMap",
        holds=lambda recipe: recipe.model.device_map is DeviceMap.NONE or recipe.machine.nodes == 1,
        given=("resources.nodes",),
        cel="self.model.deviceMap == 'none' || self.resources.nodes == 1",
        message="spreads layers over the GPUs of one pod: set resources.nodes to 1, or use model.sharding",
    ),
    Rule(
        path="model.sharding",
        holds=lambda recipe: recipe.model.sharding is Sharding.NONE or recipe.model.device_map is DeviceMap.NONE,
        cel="self.model.sharding == 'none' || self.model.deviceMap == 'none'",
        message="is for several processes, and model.deviceMap spreads the layers in one: remove one of the two",
    ),
    Rule(
        path="model.sharding",
        holds=lambda recipe: (
            recipe.model.sharding is Sharding.NONE
            or recipe.model.device_map is not DeviceMap.NONE
            or recipe.machine.processes > 1
        ),
        given=("resources.gpus", "resources.nodes"),
        cel="self.model.sharding == 'none' || self.model.deviceMap != 'none' || self.resources.gpus > 1 || "
        "self.resources.nodes > 1",
        message="divides the weights over several processes, and there is one: raise resources.gpus or resources.nodes",
    ),
    Rule(
        # bitsandbytes moves int8 weights to its own layer state in the first forward pass, under other names.
        path="model.sharding",
        holds=lambda recipe: (
            recipe.model.sharding is Sharding.NONE or recipe.model.quantization.type is not QuantizationType.INT8
        ),
        given=("model.quantization.type",),
        cel="self.model.sharding == 'none' || self.model.quantization.type != 'int8'",
        message="does not work on int8 weights: use nf4, fp4 or none in model.quantization.type",
    ),
    Rule(
        # PEFT computes the weights' norms when it creates the adapter, before any forward pass gathers a layer.
        path="model.sharding",
        holds=lambda recipe: recipe.model.sharding is Sharding.NONE or recipe.lora.variant is not LoraVariant.DORA,
        given=("lora.variant",),
        cel="self.model.sharding == 'none' || self.lora.variant != 'dora'",
        message="does not work with lora.variant dora, which needs all weights at once to begin: use lora or rslora",
    ),
)
