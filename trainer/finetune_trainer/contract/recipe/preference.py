"""The method of a training, and the section `dpo`, the settings of Direct Preference Optimization."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_trainer.contract.rule import decimal
from finetune_trainer.contract.scalar import DECIMAL_LENGTH, Decimal
from finetune_trainer.contract.wire import Wire


class Method(StrEnum):
    """What the adapter is trained for."""

    SFT = "sft"
    """Supervised fine-tuning: the answers of the rows."""
    DPO = "dpo"
    """Direct Preference Optimization: of two answers, the better one."""


class DpoLossType(StrEnum):
    """The loss of a pair, by TRL's names."""

    SIGMOID = "sigmoid"
    """Rafailov et al., 2023, arXiv:2305.18290, equation 7."""
    IPO = "ipo"
    """Azar et al., 2023, arXiv:2310.12036, equation 17, with log-probabilities averaged over an answer's tokens."""
    HINGE = "hinge"
    """Zhao et al., 2023 (SLiC-HF), arXiv:2305.10425, with the margin of DPO."""


Beta = Annotated[
    str,
    Field(max_length=DECIMAL_LENGTH),
    decimal('must be a decimal in quotes above "0", for example "0.1"', above=0.0),
]
LabelSmoothing = Annotated[
    str,
    Field(max_length=DECIMAL_LENGTH),
    decimal('must be a decimal in quotes below "0.5", for example "0.1"', below=0.5),
]


class DpoSpec(Wire):
    """Settings of Direct Preference Optimization."""

    beta: Beta = Field(
        "0.1",
        description="How strongly the adapter is held to the reference model; the larger, the closer it stays. For "
        'lossType ipo it is the regularization tau. Default: "0.1".',
    )
    loss_type: DpoLossType = Field(
        DpoLossType.SIGMOID,
        description="Loss of a pair, by its name in TRL: sigmoid (DPO), ipo or hinge. Default: sigmoid.",
    )
    label_smoothing: LabelSmoothing = Field(
        "0",
        description="Assumed share of pairs whose answers are swapped (conservative DPO). For lossType sigmoid only. "
        'Below "0.5". Default: "0".',
    )
    sft_weight: Decimal = Field(
        "0",
        description="Weight of the supervised loss of the chosen answers, in nats per token, which is added to the "
        'pairs\' loss. Default: "0".',
    )
    reference_free: bool = Field(
        default=False,
        description="Compare the two answers without the reference model, as if it gave both the same probability. "
        "Default: false.",
    )
