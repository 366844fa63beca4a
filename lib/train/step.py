"""One optimizer step: forward and backward in pieces, repair what can be repaired, update."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from lib.train.group import any_process, sum_over_processes, sum_rows_over_processes
from lib.train.memory import MEMORY_ERRORS, halve_pieces, is_out_of_memory, split_batch
from lib.train.optimizers import Touched
from lib.train.precision import mixed
from lib.train.schedule import share_at
from lib.train.sources import Batch
from lib.train.state import Losses, Run, TrainingDiverged

__all__ = ["count_of", "count_rows", "learning_rate_share", "take_step"]


def take_step(run: Run, batches: Sequence[Batch]) -> None:
    """Train on ``batches`` as one effective batch."""
    moved = [to_device(batch, run.device) for batch in batches]
    while True:
        try:
            losses = accumulate_gradients(run, moved)
        except MEMORY_ERRORS as error:
            if not is_out_of_memory(error):
                raise
            halve_pieces(run, moved, error)  # or raises, where halves cannot help
            continue
        touched = collect_touched(run)
        if is_finite(run, losses, touched):
            break
        fall_back(run, losses)
    if run.average:
        run.average.before_step(touched)
    run.optimizer.step(touched, learning_rate_share(run))
    if run.average:
        run.average.after_step()
    run.advance(len(batches), losses)


def accumulate_gradients(run: Run, batches: Sequence[Batch]) -> Losses:
    """Gradients of the mean over all terms of all batches of all processes; the mean losses."""
    pieces = [piece for batch in batches for piece in split_batch(batch, run.pieces)]
    counts = [run.count(piece) for piece in pieces]
    totals = sum_over_processes([sum(counts), sum(count_rows(p) for p in pieces)], run.device)
    losses: Losses = {}
    for index, (piece, count) in enumerate(zip(pieces, counts, strict=True)):
        share = count / totals[0].clamp(min=1)  # of this piece in the mean
        with hold_exchange(run, last=index == len(pieces) - 1):
            with mixed(run.precision, run.device):
                parts = run.forward(piece)
            # DistributedDataParallel divides by the number of processes, hence the factor
            (
                sum(parts.values(), torch.zeros((), device=run.device)) * (share * run.world)
            ).backward()
        for name, value in parts.items():
            value = value.detach().double() * share
            losses[name] = losses[name] + value if name in losses else value
    run.terms += float(totals[0])
    run.rows += int(totals[1])
    return losses


def collect_touched(run: Run) -> list[Touched]:
    touched = run.optimizer.touched()
    if run.world == 1:
        return touched
    return sum_rows_over_processes(run.optimizer.tables, touched, run.world)


def is_finite(run: Run, losses: Losses, touched: list[Touched]) -> bool:
    """Whether losses, and gradients where they are clipped, are finite in every process."""
    finite = torch.stack(list(losses.values())).isfinite().all()
    if run.plan.clip is not None:
        finite = finite & run.optimizer.clip(touched, run.plan.clip).isfinite()
    return not any_process(not bool(finite), run.device)


def fall_back(run: Run, losses: Losses) -> None:
    """Repeat the step in float32 and stay there; without a finer precision left, give up."""
    run.optimizer.clear()
    values = {name: float(value) for name, value in losses.items()}
    if run.precision == "float32":
        raise TrainingDiverged(
            f"epoch {run.epoch}, step {run.step}: losses {values} or their gradients are not "
            "finite in float32; lower the learning rate, clip gradients, or check the inputs"
        )
    run.precision = "float32"
    run.change(f"losses {values} or gradients not finite in bfloat16, float32 from here on")


def learning_rate_share(run: Run) -> float:
    """Share of every learning rate in the step to come."""
    reduced = run.plan.plateau_factor**run.reductions if run.plan.schedule == "plateau" else 1.0
    return share_at(run.step, run.total_steps, run.plan) * reduced


def hold_exchange(run: Run, *, last: bool) -> AbstractContextManager[Any]:
    """Processes exchange gradients in the backward pass of the last piece only."""
    no_sync = getattr(run.forward, "no_sync", None)
    return nullcontext() if last or no_sync is None else no_sync()


def count_rows(batch: Batch) -> int:
    """Rows of a batch, the terms of a loss that averages over rows."""
    for value in batch.values():
        if isinstance(value, Tensor):
            return len(value)
    raise ValueError(f"a batch needs at least one tensor, however it holds {sorted(batch)}")


class count_of:  # reads as a verb where it is used: count=count_of("targets")
    """Counts the entries of one tensor that are not ``padding``, such as target positions."""

    def __init__(self, name: str, *, padding: int = 0) -> None:
        self.name, self.padding = name, padding

    def __call__(self, batch: Batch) -> Tensor:
        return (batch[self.name] != self.padding).sum()


def to_device(batch: Batch, device: torch.device) -> Mapping[str, Any]:
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }
