"""Parameters in pieces on several devices (FSDP2), and their whole form in checkpoints."""

from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, nn

from lib.models.tables import lazy_tables

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

__all__ = ["copy_into", "shard_model", "whole"]


def shard_model(model: nn.Module) -> None:
    """Split parameters, gradients and optimizer state over all processes, block by block.

    The blocks are the children of the model's longest ModuleList: a transformer's layers.
    """
    from torch.distributed.fsdp import fully_shard

    if lazy_tables(model):
        raise ValueError(
            f"sharding='shard' cannot split lazy tables {sorted(lazy_tables(model))}; "
            "make them lazy=False, or use sharding='replicate'"
        )
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    for block in max(lists, key=len, default=nn.ModuleList()):
        fully_shard(block)
    fully_shard(model)


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor, gathered where it is sharded."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


@torch.no_grad()
def copy_into(live: Tensor, value: Tensor) -> None:
    """Put a whole value into a live tensor, sharded or not."""
    if is_sharded(live):
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(live.device), live.device_mesh, live.placements)
    live.copy_(value)


def is_sharded(tensor: Tensor) -> TypeGuard["DTensor"]:
    """Asked by name, because importing torch.distributed.tensor takes two seconds."""
    return type(tensor).__name__ == "DTensor"
