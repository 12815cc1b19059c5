"""The price list: which price counts for a job, and what GPU time costs."""

from decimal import Decimal
from typing import Any

import pytest

from finetune_operator.api.gpuprice import gpu_price, with_cost
from finetune_operator.api.resources import Resources
from finetune_operator.api.scheduling import Scheduling

L4 = "nvidia.com/gpu.product=NVIDIA-L4"
H100 = "nvidia.com/gpu.product=NVIDIA-H100"
PRICES = {"nvidia.com/gpu": Decimal("2.50"), L4: Decimal("0.80"), H100: Decimal(4)}


def affinity(*products: str) -> dict[str, Any]:
    return {"requiredNodeLabels": [{"key": "nvidia.com/gpu.product", "operator": "In", "values": list(products)}]}


@pytest.mark.parametrize(
    ("resources", "scheduling", "price"),
    [
        ({}, {}, "2.50"),
        ({"gpus": 0}, {}, None),
        ({"gpuResource": "amd.com/gpu"}, {}, None),
        ({}, {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"}}, "0.80"),
        ({"gpuResource": "amd.com/gpu"}, {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"}}, "0.80"),
        ({}, {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-T4"}}, "2.50"),
        ({}, {"affinity": affinity("NVIDIA-L4", "NVIDIA-H100")}, "4"),
    ],
)
def test_the_price_of_a_job(resources: dict[str, Any], scheduling: dict[str, Any], price: str | None) -> None:
    found = gpu_price(PRICES, Resources.model_validate(resources), Scheduling.model_validate(scheduling))
    assert found == (None if price is None else Decimal(price))


def test_cost_adds_up_at_the_price_of_each_attempt() -> None:
    first = with_cost(None, "2.50", 3600)
    assert first == "2.5000"
    assert with_cost(first, "0.80", 1800) == "2.9000"
    assert with_cost(first, None, 1800) == first, "an attempt without a price adds nothing"
    assert with_cost(None, None, 1800) is None


def test_a_status_that_somebody_else_has_written_makes_no_cost() -> None:
    assert with_cost("1.0000", "Infinity", 3600) == "1.0000"
    assert with_cost("no number", "2", 3600) == "2.0000"
