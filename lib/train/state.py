"""Everything that changes while a model trains, in one record that a checkpoint can hold."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lib.train.averaging import Average
from lib.train.optimizers import Optimizer
from lib.train.plan import Plan
from lib.train.precision import Precision, choose_precision
from lib.train.sources import Batch, Source

__all__ = ["Best", "Losses", "Run", "TrainingDiverged", "changing_tensors", "open_run"]

Loss = Callable[..., Tensor | Mapping[str, Tensor]]  # loss(model, batch), averaged over its terms
Losses = dict[str, Tensor]


class TrainingDiverged(RuntimeError):
    """The loss or the deciding metric is not a finite number, in float32 too."""


@dataclass(frozen=True, slots=True)
class Best:
    """The best validation so far and a real copy of the weights that reached it."""

    epoch: int
    step: int
    score: float
    weights: dict[str, Tensor]


@dataclass(slots=True)
class Run:
    """One training run between its first step and its last."""

    model: nn.Module
    source: Source
    plan: Plan
    forward: Callable[[Batch], Mapping[str, Tensor]]  # named losses of one batch
    count: Callable[[Batch], int | Tensor]  # terms a loss averages over
    device: torch.device
    optimizer: Optimizer
    average: Average | None
    precision: Precision
    total_steps: int
    rank: int = 0
    world: int = 1

    epoch: int = 0  # the next batch is batch `position` of `epoch`
    position: int = 0
    step: int = 0  # optimizer steps taken
    pieces: int = 1  # parts of a batch that pass through the model one after another
    stopped: bool = False
    sums: dict[str, Tensor] = field(default_factory=dict)  # losses since the last validation
    summed_steps: int = 0
    rows: int = 0  # of all processes
    terms: float = 0.0
    stale: int = 0  # validations since the best one
    reductions: int = 0  # of the learning rate by the plateau schedule
    best: Best | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)  # what the run did differently from its plan
    earlier_seconds: float = 0.0  # before the last resume
    started: float = field(default_factory=time.perf_counter)
    saved: float = field(default_factory=time.perf_counter)
    saved_step: int = 0

    @property
    def finished(self) -> bool:
        return self.stopped or self.step >= self.total_steps

    @property
    def seconds(self) -> float:
        return self.earlier_seconds + time.perf_counter() - self.started

    def next_batches(self) -> Iterator[list[Batch]]:
        """What is left of this epoch, as lists of ``accumulate`` batches, one list per step."""
        group: list[Batch] = []
        left = len(self.source) - self.position
        for batch in self.source.batches(self.epoch, self.position, self.rank, self.world):
            group.append(batch)
            left -= 1
            if len(group) == self.plan.accumulate or left == 0:
                yield group
                group = []
        if left:
            raise ValueError(f"a source of {len(self.source)} batches ended {left} too early")

    def advance(self, n_batches: int, losses: Losses) -> None:
        """Count one optimizer step and the losses it had."""
        self.step += 1
        self.position += n_batches
        if self.position >= len(self.source):
            self.epoch, self.position = self.epoch + 1, 0
        self.summed_steps += 1
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value

    def is_validation_due(self) -> bool:
        every = self.plan.validate_every
        due = self.step % every == 0 if every else self.position == 0
        return due or self.finished

    def change(self, message: str) -> None:
        """Remember a departure from the plan; it ends in the result and on the page."""
        self.changes.append(f"step {self.step}: {message}")


def open_run(
    model: nn.Module,
    source: Source,
    plan: Plan,
    *,
    forward: Callable[[Batch], Mapping[str, Tensor]],
    count: Callable[[Batch], int | Tensor],
    rank: int,
    world: int,
) -> Run:
    """A run before its first step."""
    given = getattr(source, "batch", None)
    if plan.batch is not None and given is not None and given != plan.batch:
        raise ValueError(f"batch: the plan says {plan.batch}, the source {given}; make them equal")
    if len(source) < 1:
        raise ValueError("the source has no batches; expected at least one per epoch")
    device = next(model.parameters()).device
    per_epoch = math.ceil(len(source) / plan.accumulate)
    total = plan.steps if plan.steps is not None else per_epoch * (plan.epochs or 0)
    return Run(
        model=model,
        source=source,
        plan=plan,
        forward=forward,
        count=count,
        device=device,
        optimizer=Optimizer(model, plan),
        average=Average(model, plan.average) if plan.average else None,
        precision=choose_precision(plan.precision, device, model),
        total_steps=total,
        rank=rank,
        world=world,
    )


def changing_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Trainable parameters and saved buffers by name, shared ones once, frozen weights never.

    >>> list(changing_tensors(nn.Linear(2, 1)))
    ['bias', 'weight']
    """
    frozen = {
        name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad
    }
    found: dict[str, Tensor] = {}
    owners: set[int] = set()
    for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
        if name in frozen or id(tensor) in owners or not isinstance(tensor, Tensor):
            continue
        owners.add(id(tensor))
        found[name] = tensor
    return found
