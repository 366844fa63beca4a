"""The exponential average of weights, exact from the first step and lazy on tables.

After t steps the average is sum_i (1-d) d^(t-i) w_i / (1 - d^t): dividing by the sum of the shares
is the warm-up, so the average of one step is that step and never holds the initial weights.

Averaging a table of millions of rows at each step would read it all. A row that is not touched
keeps its weight, and the average of a constant has a closed form, so a row is brought up to date
only when it is touched next or read: sum(t) = d^k sum(t-k) + (1 - d^k) w.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lib.models.tables import Table, lazy_tables
from lib.train.optimizers import Touched

__all__ = ["Average"]


class Average:
    """Averages of every trainable parameter; buffers are taken as they are."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.tables = lazy_tables(model)
        lazy = {id(table.weight) for table in self.tables.values()}
        self.parameters = {
            name: p for name, p in model.named_parameters() if p.requires_grad and id(p) not in lazy
        }
        self.means = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.table_means = {name: t.weight.detach().clone() for name, t in self.tables.items()}
        self.settled = {  # the step up to which each row's average is exact
            name: torch.zeros(len(t.weight), dtype=torch.int32, device=t.weight.device)
            for name, t in self.tables.items()
        }

    @torch.no_grad()
    def before_step(self, touched: list[Touched]) -> None:
        """Bring the rows that are about to change up to date with the weight they had."""
        for name, table, rows, _ in touched:
            self.settle(name, table, rows)

    @torch.no_grad()
    def after_step(self) -> None:
        """Take one optimizer step into the average; table rows follow when they are next needed."""
        self.steps += 1
        share = (1 - self.decay) / (1 - self.decay**self.steps)
        for name, parameter in self.parameters.items():
            self.means[name].lerp_(parameter, share)

    def settle(self, name: str, table: Table, rows: Tensor) -> None:
        """Advance rows to the current step, their weight having been constant since."""
        if self.steps == 0:
            return
        since = self.settled[name].index_select(0, rows).double()
        kept = self.decay ** (self.steps - since) * (1 - self.decay**since)
        share = (1 - kept / (1 - self.decay**self.steps))[:, None]
        mean = self.table_means[name].index_select(0, rows)
        mean.lerp_(table.weight.index_select(0, rows), share.to(mean.dtype))
        self.table_means[name].index_copy_(0, rows, mean)
        self.settled[name].index_fill_(0, rows, self.steps)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model with averaged weights inside the block, with its own ones after it."""
        with torch.no_grad():
            self.swap()
        try:
            yield
        finally:
            with torch.no_grad():
                self.swap()

    def swap(self) -> None:
        """Exchange weights and averages in place; every row of a table is settled first."""
        pairs = [(p, self.means[name]) for name, p in self.parameters.items()]
        for name, table in self.tables.items():
            self.settle(name, table, torch.arange(len(table.weight), device=table.weight.device))
            pairs.append((table.weight, self.table_means[name]))
        for weight, mean in pairs:
            held = weight.clone()
            weight.copy_(mean)
            mean.copy_(held)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of the state under a stable name, the live one and not a copy."""
        parts = (("mean", self.means), ("table", self.table_means), ("settled", self.settled))
        for kind, tensors in parts:
            for name, tensor in tensors.items():
                yield f"{kind}.{name}", tensor

    def load(self, tensors: dict[str, Tensor], steps: int) -> None:
        """Put a state saved from ``tensors()`` back in place."""
        self.steps = steps
        for name, live in self.tensors():
            live.copy_(tensors[name])
