"""What a run tells while it goes: a progress report, history.csv, TensorBoard scalars."""

import csv
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from lib.data.files import write_atomic
from lib.train.state import Run
from lib.train.step import learning_rate_share

__all__ = ["Report", "Reporter", "write_history"]


class Report(Protocol):
    """``report(done, total, loss=..., seconds_left=..., message=...)``, such as run.progress."""

    def __call__(self, done: int, total: int, /, **values: float | str) -> object: ...


class Reporter:
    """Sends progress at most twice a second and writes logs; only the first process does."""

    def __init__(self, run: Run, report: Report | None, logs: Path | None) -> None:
        self.run, self.report, self.logs = run, report, logs
        self.told = 0.0
        self.told_changes = len(run.changes)
        self.from_step, self.from_rows, self.since = run.step, run.rows, time.perf_counter()
        self.board = None
        if logs is not None and run.rank == 0:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self.board = SummaryWriter(str(logs / "tensorboard"), purge_step=run.step)

    def after_step(self) -> None:
        run, now = self.run, time.perf_counter()
        new = run.changes[self.told_changes :]
        self.told_changes = len(run.changes)
        if run.rank or not (new or run.finished or now - self.told >= 0.5):
            return
        self.told = now
        seconds = max(now - self.since, 1e-9)
        values: dict[str, float | str] = {
            # of this process's rows: sums hold its share of the mean over all processes
            "loss": float(sum(run.sums.values())) * run.world / max(run.summed_steps, 1),
            "epoch": run.epoch,
            "rows_per_second": (run.rows - self.from_rows) / seconds,
            "seconds_left": (run.total_steps - run.step)
            * seconds
            / max(run.step - self.from_step, 1),
        }
        if run.summed_steps == 0 and run.history:  # a validation has just emptied the sums
            values["loss"] = run.history[-1]["loss"]
        if run.best and run.plan.metric:
            values[f"best_{run.plan.metric}"] = run.best.score
        if new:
            values["message"] = "; ".join(new)
        if self.report:
            self.report(run.step, run.total_steps, **values)
        if self.board:
            self.board.add_scalar("train/loss", values["loss"], run.step)
            rate = run.plan.learning_rate * learning_rate_share(run)
            self.board.add_scalar("train/learning_rate", rate, run.step)

    def after_validation(self) -> None:
        if self.run.rank or self.logs is None:
            return
        write_history(self.logs / "history.csv", self.run.history)
        for name, value in self.run.history[-1].items():
            if self.board:
                self.board.add_scalar(f"validation/{name}", value, self.run.step)

    def close(self) -> None:
        if self.board:
            self.board.close()


def write_history(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """One row per validation, columns in order of first appearance."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(history)
    write_atomic(path, text.getvalue().encode())
