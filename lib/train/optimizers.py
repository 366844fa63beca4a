"""AdamW for what is dense, and row optimizers that read and write only the rows of the batch.

Lazy Adam keeps two moments per table and moves only touched rows, as torch.optim.SparseAdam does:
a row that is absent from a batch keeps its moments as they are. It is not dense Adam (a row does
not drift on by momentum) and overfits less on click logs. Row-wise Adagrad keeps one number a row.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lib.models.tables import Table, lazy_tables
from lib.train.plan import Plan
from lib.train.sharding import whole

__all__ = ["Optimizer", "Touched", "lazy_adam_", "parameter_groups", "row_adagrad_"]

Touched = tuple[str, Table, Tensor, Tensor]  # name, table, rows (R), gradients (R, D)


class Optimizer:
    """Both kinds of optimizer of one model, stepped together with one learning-rate share."""

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        self.plan = plan
        self.tables = lazy_tables(model)
        groups = parameter_groups(model, plan)
        self.dense_parameters = [p for group in groups for p in group["params"]]
        self.base_rates = [group["lr"] for group in groups]
        self.dense = None
        if groups:
            self.dense = torch.optim.AdamW(
                groups, betas=(plan.beta1, plan.beta2), eps=plan.epsilon, fused=plan.fused
            )
        self.table_rate = plan.table_learning_rate or plan.learning_rate
        self.state = {name: row_state(table, plan.tables) for name, table in self.tables.items()}
        self.steps = 0

    def touched(self) -> list[Touched]:
        """Rows and gradients of every lazy table since the last call."""
        found = []
        for name, table in self.tables.items():
            if table.weight.grad is not None:
                raise ValueError(
                    f"table {name!r} is lazy, yet its whole weight has a gradient: it is used "
                    "beside its lookup. Make it Table(..., lazy=False)"
                )
            part = table.take_touched()
            if part is not None:
                found.append((name, table, *part))
        return found

    def clip(self, touched: list[Touched], largest: float) -> Tensor:
        """Scale all gradients so that their joint norm is at most ``largest``; the norm before."""
        dense = [p.grad for p in self.dense_parameters if p.grad is not None]
        gradients = [*dense, *(gradient for *_, gradient in touched)]
        norm = whole(torch.nn.utils.get_total_norm(gradients))
        scale = (largest / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale)
        return norm

    @torch.no_grad()
    def step(self, touched: list[Touched], share: float) -> None:
        """One update at ``share`` of every learning rate; gradients are cleared."""
        self.steps += 1
        if self.dense is not None:
            for group, rate in zip(self.dense.param_groups, self.base_rates, strict=True):
                group["lr"] = rate * share
            self.dense.step()
        rate = self.table_rate * share
        for name, table, rows, gradient in touched:
            if self.plan.table_decay:
                kept = table.weight.index_select(0, rows).mul_(1 - rate * self.plan.table_decay)
                table.weight.index_copy_(0, rows, kept)
            if self.plan.tables == "lazy_adam":
                lazy_adam_(
                    table.weight, rows, gradient, self.state[name], self.steps, rate, self.plan
                )
            else:
                row_adagrad_(table.weight, rows, gradient, self.state[name], rate, self.plan)
        self.clear()

    def clear(self) -> None:
        """Forget all gradients, also those of a step that was given up."""
        if self.dense is not None:
            self.dense.zero_grad(set_to_none=True)
        for table in self.tables.values():
            table.touched = []

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of the state under a stable name, the live one and not a copy."""
        for name, parts in self.state.items():
            for key, tensor in parts.items():
                yield f"table.{name}.{key}", tensor
        if self.dense is not None:
            for index, parameter in enumerate(self.dense_parameters):
                for key, tensor in sorted(self.dense.state[parameter].items()):
                    yield f"dense.{index}.{key}", tensor

    def load(self, tensors: dict[str, Tensor], steps: int) -> None:
        """Put a state saved from ``tensors()`` back in place."""
        self.steps = steps
        for name, tensor in tensors.items():
            kind, rest = name.split(".", 1)
            owner, key = rest.rsplit(".", 1)
            if kind == "table":
                self.state[owner][key].copy_(tensor)
            elif self.dense is not None:
                self.dense.state[self.dense_parameters[int(owner)]][key] = tensor


def parameter_groups(model: nn.Module, plan: Plan) -> list[dict[str, Any]]:
    """Dense trainable parameters by learning rate and decay; vectors and norms never decay."""
    lazy = {id(table.weight) for table in lazy_tables(model).values()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    unmatched = {group.match for group in plan.groups}
    for name, parameter in model.named_parameters():
        if id(parameter) in lazy or not parameter.requires_grad:
            continue
        rate, decay = plan.learning_rate, plan.weight_decay
        for group in plan.groups:
            if group.match in name:
                unmatched.discard(group.match)
                rate = group.learning_rate
                decay = plan.weight_decay if group.weight_decay is None else group.weight_decay
                break
        key = rate, decay if parameter.ndim > 1 else 0.0
        groups.setdefault(key, []).append(parameter)
    if unmatched:
        raise ValueError(f"groups match no trainable parameter: {sorted(unmatched)}; check names")
    return [{"params": ps, "lr": lr, "weight_decay": wd} for (lr, wd), ps in groups.items()]


def row_state(table: Table, kind: str) -> dict[str, Tensor]:
    if kind == "lazy_adam":
        return {"m": torch.zeros_like(table.weight), "v": torch.zeros_like(table.weight)}
    return {"square": torch.zeros(len(table.weight), device=table.weight.device)}


def lazy_adam_(
    weight: Tensor,  # (V, D)
    rows: Tensor,  # (R) distinct
    gradient: Tensor,  # (R, D)
    state: dict[str, Tensor],
    step: int,  # from 1
    rate: float,
    plan: Plan,
) -> None:
    """Adam on the given rows only, in place."""
    m = state["m"].index_select(0, rows).lerp_(gradient, 1 - plan.beta1)
    v = state["v"].index_select(0, rows).mul_(plan.beta2)
    v.addcmul_(gradient, gradient, value=1 - plan.beta2)
    state["m"].index_copy_(0, rows, m)
    state["v"].index_copy_(0, rows, v)
    divisor = v.sqrt_().div_(math.sqrt(1 - plan.beta2**step)).add_(plan.epsilon)
    weight.index_add_(0, rows, m.div_(divisor), alpha=-rate / (1 - plan.beta1**step))


def row_adagrad_(
    weight: Tensor,
    rows: Tensor,
    gradient: Tensor,
    state: dict[str, Tensor],
    rate: float,
    plan: Plan,
) -> None:
    """Adagrad with one accumulator per row: the running sum of its mean squared gradients."""
    square = state["square"].index_select(0, rows).add_(gradient.square().mean(dim=1))
    state["square"].index_copy_(0, rows, square)
    weight.index_add_(0, rows, gradient / (square.sqrt() + plan.epsilon)[:, None], alpha=-rate)
