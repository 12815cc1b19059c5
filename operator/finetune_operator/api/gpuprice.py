"""The price of a job's GPUs, by the administrator's price list, and the cost of the time that it has used them.

A key of the list is an extended resource (`nvidia.com/gpu`) or a node label with its value
(`nvidia.com/gpu.product=NVIDIA-L4`). A label is the more exact one and wins. It counts if the job selects it: the
operator does not read nodes.
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

from finetune_operator.api.gpumemory import node_labels
from finetune_operator.api.resources import Resources
from finetune_operator.api.scheduling import Scheduling

_SECONDS_PER_HOUR = 3600
_PLACES = Decimal("0.0001")


def gpu_price(prices: Mapping[str, Decimal], resources: Resources, scheduling: Scheduling) -> Decimal | None:
    """Price of one GPU of the job for one hour; None if the list has none, or if the job requests no GPU.

    If the job allows several labels with a price, the highest counts.
    """
    if resources.gpus == 0:
        return None
    selected = (f"{label}={value}" for label, values in node_labels(scheduling) for value in values)
    by_label = [prices[key] for key in selected if key in prices]
    return max(by_label) if by_label else prices.get(resources.gpu_resource)


def with_cost(cost: str | None, price: str | None, gpu_seconds: int) -> str | None:
    """The cost so far and that of more GPU time.

    Args:
        cost: the cost so far, as in the status; None if there is none.
        price: price of one GPU for one hour, as in the status; None if it has none.
        gpu_seconds: GPUs times seconds.
    """
    more = amount(price)
    if more is None:
        return cost
    total = (amount(cost) or Decimal(0)) + more * gpu_seconds / _SECONDS_PER_HOUR
    return str(total.quantize(_PLACES))


def amount(text: str | None) -> Decimal | None:
    """The amount of money in a text of the status or of the price list; None if it is none."""
    try:
        value = Decimal(text or "")
    except InvalidOperation:
        return None
    return value if value.is_finite() and 0 <= value <= MAX_AMOUNT else None


MAX_AMOUNT = Decimal(10) ** 15
