"""Rules on several fields that concern the `lora` section."""

from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.recipe.lora import ALL_LINEAR, LoraVariant
from finetune_trainer.contract.recipe.model import QuantizationType
from finetune_trainer.contract.rule import Rule
from finetune_trainer.contract.rules.cel import cel_value
from finetune_trainer.contract.uri import Scheme, scheme_of

RULES: tuple[Rule[Recipe], ...] = (
    Rule(
        path="lora.targetModules",
        holds=lambda recipe: ALL_LINEAR not in recipe.lora.target_modules or len(recipe.lora.target_modules) == 1,
        cel="!has(self.lora.targetModules) || self.lora.targetModules.size() == 1 || "
        f"!({cel_value(ALL_LINEAR)} in self.lora.targetModules)",
        message=f"{ALL_LINEAR} stands alone: remove it or the other names",
    ),
    Rule(
        # PEFT dequantises the weights to compute their norms. bitsandbytes then no longer finds their scales (peft
        # 0.21).
        path="lora.variant",
        holds=lambda recipe: (
            recipe.lora.variant is not LoraVariant.DORA or recipe.model.quantization.type is not QuantizationType.INT8
        ),
        given=("lora.variant", "model.quantization.type"),
        cel="self.lora.variant != 'dora' || self.model.quantization.type != 'int8'",
        message="dora does not work on int8 weights: use nf4, fp4 or none in model.quantization.type, or another "
        "variant",
    ),
    Rule(
        path="lora.modulesToSave",
        holds=lambda recipe: not set(recipe.lora.modules_to_save or ()) & set(recipe.lora.target_modules),
        given=("lora.targetModules",),
        cel="!has(self.lora.modulesToSave) || !self.lora.modulesToSave.exists(name, name in self.lora.targetModules)",
        message="a module is trained whole or gets an adapter, not both: remove it here or from targetModules",
    ),
    Rule(
        path="lora.initialAdapterRevision",
        holds=lambda recipe: (
            recipe.lora.initial_adapter_revision is None or scheme_of(recipe.lora.initial_adapter_uri) is Scheme.HF
        ),
        cel="!has(self.lora.initialAdapterRevision) || "
        "(has(self.lora.initialAdapterUri) && self.lora.initialAdapterUri.startsWith('hf://'))",
        message="only hf:// adapters have revisions: remove the field",
    ),
    Rule(
        path="lora.initialAdapterRevision",
        holds=lambda recipe: (
            recipe.lora.initial_adapter_revision is None or recipe.lora.initial_adapter_uri != recipe.model.uri
        ),
        cel="!has(self.lora.initialAdapterRevision) || !has(self.lora.initialAdapterUri) || "
        "self.lora.initialAdapterUri != self.model.uri",
        message="model.uri is the same repository, and model.revision is for both: remove the field",
    ),
)
