"""Gradients and parameters of all processes: one all-reduce a step, one broadcast before the first."""

from collections.abc import Iterator, Sequence

import torch

from finetune_trainer.distributed.process_group import ProcessGroup

_BUCKET = 16 * 1024 * 1024
"""Numbers that are summed at a time: 64 MiB beside the gradients."""


def all_reduce_gradients(parameters: Sequence[torch.nn.Parameter], process_group: ProcessGroup) -> None:
    """Makes every parameter's gradient the sum over the processes, in float32.

    A parameter that has a gradient nowhere keeps none: an optimizer's weight decay would move it.
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
    """Gives every process the parameters of process 0."""
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
