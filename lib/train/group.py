"""What the processes of one run tell each other. With a single process nothing is sent."""

import json
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from lib.models.tables import Table, merge_rows
from lib.train.optimizers import Touched

__all__ = [
    "any_process",
    "gather_json",
    "gather_tensors",
    "group_size",
    "is_grouped",
    "sum_over_processes",
    "sum_rows_over_processes",
]


def is_grouped() -> bool:
    """Whether this process belongs to a group that has been set up."""
    return dist.is_available() and dist.is_initialized()


def group_size() -> tuple[int, int]:
    """Rank of this process and number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if is_grouped() else (0, 1)


def sum_over_processes(values: Sequence[int | float | Tensor], device: torch.device) -> Tensor:
    """The sums of some numbers over all processes, float64."""
    total = torch.stack([torch.as_tensor(v, device=device, dtype=torch.float64) for v in values])
    if is_grouped():
        dist.all_reduce(total)
    return total


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is up in at least one process: all must take the same branch."""
    if not is_grouped():
        return flag
    return bool(sum_over_processes([float(flag)], device)[0] > 0)


def gather_tensors(tensor: Tensor) -> list[Tensor]:
    """The tensors of all processes in rank order; first axes may differ in length."""
    if not is_grouped():
        return [tensor]
    lengths = [
        torch.zeros(1, dtype=torch.int64, device=tensor.device) for _ in range(group_size()[1])
    ]
    dist.all_gather(lengths, torch.tensor([len(tensor)], device=tensor.device))
    longest = max(int(length) for length in lengths)
    padded = tensor.new_zeros(longest, *tensor.shape[1:])
    padded[: len(tensor)] = tensor
    gathered = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(gathered, padded)
    return [part[: int(length)] for part, length in zip(gathered, lengths, strict=True)]


def gather_json(value: object, device: torch.device) -> list[object]:
    """The plain values of all processes in rank order, carried as JSON text."""
    if not is_grouped():
        return [value]
    text = json.dumps(value).encode()
    parts = gather_tensors(torch.frombuffer(bytearray(text), dtype=torch.uint8).to(device))
    return [json.loads(bytes(part.cpu().numpy())) for part in parts]


def sum_rows_over_processes(
    tables: Mapping[str, Table], touched: Sequence[Touched], world: int
) -> list[Touched]:
    """Rows touched anywhere with the mean of their gradients, the same in every process."""
    mine = {name: (rows, gradient) for name, _, rows, gradient in touched}
    summed = []
    for name, table in tables.items():  # the same order everywhere
        weight = table.weight
        rows, gradient = mine.get(
            name, (torch.zeros(0, dtype=torch.int64, device=weight.device), weight[:0].detach())
        )
        parts = gather_tensors(rows), gather_tensors(gradient)
        if any(len(part) for part in parts[0]):
            merged = merge_rows(torch.cat(parts[0]), torch.cat(parts[1]))
            summed.append((name, table, merged[0], merged[1] / world))
    return summed
