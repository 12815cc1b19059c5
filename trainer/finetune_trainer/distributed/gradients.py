"""Sums the gradients over all processes in every step, and broadcasts the parameters before the first step."""

from collections.abc import Iterator, Sequence

import torch

from finetune_trainer.distributed.process_group import ProcessGroup

_BUCKET = 16 * 1024 * 1024
"""Numbers of one all-reduce. In float32 they need 64 MiB beside the gradients."""


def all_reduce_gradients(parameters: Sequence[torch.nn.Parameter], process_group: ProcessGroup) -> None:
    """Replaces every parameter's gradient by its sum over the processes, computed in float32.

    A parameter without a gradient in any process keeps None. With a gradient of zero, weight decay would change the
    parameter.

    Raises:
        TrainerError: PEER_FAILED.
    """
    local_counts = torch.tensor([float(parameter.grad is not None) for parameter in parameters])
    counts: list[float] = process_group.all_reduce(local_counts).tolist()
    with_gradient = [parameter for parameter, has_gradient in zip(parameters, counts, strict=True) if has_gradient]
    for bucket in _buckets(with_gradient):
        parts = [
            torch.zeros(parameter.numel(), device=parameter.device)
            if parameter.grad is None
            else parameter.grad.reshape(-1).float()
            for parameter in bucket
        ]
        device = parts[0].device
        flat = process_group.all_reduce(torch.cat([part.to(device) for part in parts]))
        for parameter, total in zip(bucket, torch.split(flat, [part.numel() for part in parts]), strict=True):
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
            parameter.grad.copy_(total.view_as(parameter))


def broadcast_parameters(parameters: Sequence[torch.nn.Parameter], process_group: ProcessGroup) -> None:
    """Copies the parameters of process 0 to every process.

    Raises:
        TrainerError: PEER_FAILED.
    """
    with torch.no_grad():
        for parameter in parameters:
            process_group.broadcast(parameter.data)


def _buckets(parameters: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    bucket: list[torch.nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if bucket and size + parameter.numel() > _BUCKET:
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += parameter.numel()
    if bucket:
        yield bucket
