"""Parameters in pieces on several devices (FSDP2), and their whole form in checkpoints."""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from lib.train.optimizers import lazy_tables

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
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def copy_into(live: Tensor, value: Tensor) -> None:
    """Put a whole value into a live tensor, sharded or not."""
    if isinstance(live, DTensor):
        live.copy_(distribute_tensor(value.to(live.device), live.device_mesh, live.placements))
    else:
        live.copy_(value)
