"""The one training loop: any module, any source of batches, any loss.

    result = train(model, source, loss, plan=plan, validate=validate, scratch=folder, report=report)

It never sees a test split. ``loss(model, batch)`` answers one tensor or named ones whose sum is
minimised; ``validate(model)`` answers named numbers, of which ``plan.metric`` decides.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from lib.train.checkpoint import load_checkpoint, save_checkpoint
from lib.train.group import gather_json, group_size, is_grouped, sum_over_processes
from lib.train.launch import launch, prepare_forward
from lib.train.memory import peak_memory
from lib.train.plan import Plan
from lib.train.progress import Report, Reporter
from lib.train.sharding import copy_into, whole
from lib.train.sources import Batch, Source
from lib.train.state import Best, Loss, Run, TrainingDiverged, changing_tensors, open_run
from lib.train.step import count_rows, take_step

__all__ = ["Result", "train"]

STEPS_BETWEEN_SAVES = 1_000  # of several processes, besides validations
Validate = Callable[[nn.Module], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Result:
    """What a training run leaves besides the weights in the model."""

    history: list[dict[str, float]]  # one row per validation
    best_epoch: int  # epochs finished when the best weights were reached
    best_score: float | None
    steps: int
    seconds: float
    rows_per_second: float
    terms_per_second: float  # tokens or positions, where `count` counts them
    peak_memory: int  # bytes
    precision: str  # the one it ended in
    changes: list[str]  # departures from the plan: float32 fall-back, smaller pieces


def train(
    model: nn.Module,
    source: Source,
    loss: Loss,
    *,
    plan: Plan,
    validate: Validate | None = None,
    scratch: Path | None = None,
    report: Report | None = None,
    logs: Path | None = None,
    count: Callable[[Batch], int | Tensor] = count_rows,
) -> Result:
    """Train by the plan, resuming from ``scratch``; the model is left with its best weights.

    ``count`` says over how many terms of a batch the loss is a mean, so that pieces, accumulated
    batches and processes weigh as they would in one large batch. ``logs`` gets history.csv and
    TensorBoard scalars. The global generators are seeded from the plan.
    """
    if plan.processes * plan.machines > 1 and not is_grouped():
        rest = {"validate": validate, "logs": logs, "count": count}
        return launch(train, model, source, loss, plan=plan, scratch=scratch, report=report, **rest)
    run = start(model, source, loss, plan, count)
    load_checkpoint(run, scratch)
    reporter = Reporter(run, report, logs)
    while not run.finished:
        for batches in run.next_batches():
            take_step(run, batches)
            if run.is_validation_due():
                judge(run, validate)
                reporter.after_validation()
            if is_save_due(run):
                save_checkpoint(run, scratch)
            reporter.after_step()
            if run.finished:
                break
    reporter.close()
    return finish(run)


def start(
    model: nn.Module,
    source: Source,
    loss: Loss,
    plan: Plan,
    count: Callable[[Batch], int | Tensor],
) -> Run:
    """A run before its first step, with the model's switches set."""
    rank, world = group_size()
    torch.manual_seed(plan.seed * 1_000 + rank)  # each process has dropout masks of its own
    if plan.gradient_checkpointing:
        enable = getattr(model, "gradient_checkpointing_enable", None)
        if enable is None:
            raise ValueError(
                f"gradient_checkpointing=True, but {type(model).__name__} has no method "
                "gradient_checkpointing_enable(); offer one or switch it off"
            )
        enable()
    if plan.compile:
        model.compile()
    forward = prepare_forward(model, loss, plan)
    model.train()
    return open_run(model, source, plan, forward=forward, count=count, rank=rank, world=world)


def judge(run: Run, validate: Validate | None) -> None:
    """Validate, extend the history, keep the best weights, and decide whether to stop."""
    row: dict[str, float] = {"epoch": run.epoch, "step": run.step}
    row |= mean_losses(run)
    with judged_weights(run):
        row |= validated(run, validate)
        score = row.get(run.plan.metric) if run.plan.metric else None
        if run.plan.metric and score is None:
            raise ValueError(
                f"metric {run.plan.metric!r} is not in what validate() answered: {sorted(row)}"
            )
        if run.plan.metric is None or is_better(score, run):
            run.stale = 0
            run.best = Best(run.epoch, run.step, score or 0.0, copy_weights(run.model))
        else:
            run.stale += 1
            run.reductions += run.plan.schedule == "plateau"
    if run.average and run.plan.judged == "both":
        row |= {f"plain_{name}": value for name, value in validated(run, validate).items()}
    row["seconds"] = run.seconds
    run.history.append(row)
    run.stopped = run.plan.patience is not None and run.stale >= run.plan.patience


def mean_losses(run: Run) -> dict[str, float]:
    """Means of the losses since the last validation; ``loss`` is their sum."""
    told = cast(list[list[str]], gather_json(sorted(run.sums), run.device))
    names = sorted({name for names in told for name in names})  # a process may have had no rows
    totals = sum_over_processes([run.sums.get(name, 0.0) for name in names], run.device)
    means = {name: float(t) / run.summed_steps for name, t in zip(names, totals, strict=True)}
    run.sums, run.summed_steps = {}, 0
    parts = {f"loss_{name}": value for name, value in means.items() if name != "loss"}
    return {"loss": sum(means.values())} | parts


def judged_weights(run: Run) -> AbstractContextManager[None]:
    return run.average.applied() if run.average and run.plan.judged != "plain" else nullcontext()


def validated(run: Run, validate: Validate | None) -> dict[str, float]:
    """The answer of ``validate``, asked in one process unless the model is spread over all."""
    if validate is None:
        return {}
    scores: dict[str, float] = {}
    if run.rank == 0 or run.plan.sharding == "shard":
        run.model.eval()
        with torch.no_grad():
            scores = {name: float(value) for name, value in validate(run.model).items()}
        run.model.train()
    return cast(dict[str, float], gather_json(scores, run.device)[0])


def is_better(score: float | None, run: Run) -> bool:
    if score is None or not math.isfinite(score):
        raise TrainingDiverged(
            f"epoch {run.epoch}, step {run.step}: metric {run.plan.metric}={score} must be finite"
        )
    if run.best is None:
        return True
    return score > run.best.score if run.plan.better == "higher" else score < run.best.score


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    """A real copy: a state_dict is live, and would follow the training on."""
    return {
        name: whole(tensor.detach()).to("cpu", copy=True)
        for name, tensor in changing_tensors(model).items()
    }


def is_save_due(run: Run) -> bool:
    """After each validation, every so many steps, and when enough time has passed."""
    every = run.plan.checkpoint_every
    if run.finished or run.is_validation_due() or (every and run.step % every == 0):
        return True
    if run.world > 1:  # clocks differ between processes, and all of them must take part
        return run.step - run.saved_step >= STEPS_BETWEEN_SAVES
    return time.perf_counter() - run.saved >= run.plan.checkpoint_seconds


def finish(run: Run) -> Result:
    """Restore the best weights and sum up."""
    if run.best:
        tensors = changing_tensors(run.model)
        for name, value in run.best.weights.items():
            copy_into(tensors[name], value)
    run.model.eval()
    decided = run.best is not None and run.plan.metric is not None
    return Result(
        history=run.history,
        best_epoch=run.best.epoch if run.best else run.epoch,
        best_score=run.best.score if run.best and decided else None,
        steps=run.step,
        seconds=run.seconds,
        rows_per_second=run.rows / run.seconds,
        terms_per_second=run.terms / run.seconds,
        peak_memory=peak_memory(run.device),
        precision=run.precision,
        changes=run.changes,
    )
