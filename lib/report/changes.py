"""What differs between two results of a node: the parts of their keys, and metrics that moved.

A metric has moved when its new value lies outside the old interval and the old value outside the
new one. Where neither has an interval, a relative change above 5 % counts; times and speeds depend
on what else the machine does, so for them it is 50 %.
"""

from dataclasses import dataclass

from lib.pipeline.plan import changes
from lib.pipeline.store import Result
from lib.report.metrics import Metric, read_metrics

__all__ = ["Changes", "MetricChange", "compare", "describe"]

WITHOUT_INTERVAL = 0.05
TIMING, TIMING_UNITS = 0.5, ("s", "ms", "min", "h")


@dataclass(frozen=True, slots=True)
class MetricChange:
    """One metric before and after; ``None`` where that side does not have it."""

    old: Metric | None
    new: Metric | None

    @property
    def any(self) -> Metric:
        return self.new or self.old or Metric("")

    @property
    def moved(self) -> bool:
        """True beyond the interval, and for a metric that appeared or vanished."""
        old, new = self.old, self.new
        if old is None or new is None:
            return True
        sides = [not side.low <= value <= side.high for side, value in
                 ((old, new.value), (new, old.value))
                 if side.low is not None and side.high is not None]  # fmt: skip
        if sides:
            return all(sides)
        limit = TIMING if new.unit in TIMING_UNITS or new.unit.endswith("/s") else WITHOUT_INTERVAL
        return abs(new.value - old.value) > max(limit, 1e-12) * max(abs(old.value), abs(new.value))

    @property
    def verdict(self) -> str:
        if self.old is None or self.new is None:
            return "new" if self.old is None else "gone"
        if not self.new.better:
            return "changed"
        return "better" if self.new.gain > self.old.gain else "worse"


@dataclass(frozen=True, slots=True)
class Changes:
    """All differences of one node; ``causes`` are those that ``--explain`` would name."""

    node: str
    causes: tuple[str, ...]
    metrics: tuple[MetricChange, ...]

    @property
    def moved(self) -> tuple[MetricChange, ...]:
        return tuple(change for change in self.metrics if change.moved)

    def summary(self) -> str:
        """One line: the causes, then how many metrics moved."""
        counted = f"{len(self.moved)} of {len(self.metrics)} changed metrics beyond the interval"
        return "; ".join([*self.causes, counted if self.metrics else "the same metrics"])

    def __bool__(self) -> bool:
        return bool(self.metrics or self.causes)


def compare(old: Result, new: Result) -> Changes:
    """Everything that differs from ``old`` to ``new``; equal values are left out."""
    before, after = ({(m.name, m.row, m.segment): m for m in read_metrics(side)}
                     for side in (old, new))  # fmt: skip
    pairs = [MetricChange(before.get(key), after.get(key)) for key in {**before, **after}]
    moved = tuple(pair for pair in pairs if pair.old != pair.new)
    return Changes(new.node, changes(old.parts, new.parts), moved)


def describe(differences: Changes) -> list[str]:
    """The differences as plain lines for a terminal.

    >>> describe(Changes("sasrec", ("param.epochs 3 → 5",), (MetricChange(None, Metric("auc")),)))
    ['param.epochs 3 → 5', 'metric auc: absent → 0 (new)']
    """
    lines = list(differences.causes)
    for change in differences.metrics:
        sides = [f"{side.value:.6g}" if side else "absent" for side in (change.old, change.new)]
        note = change.verdict if change.moved else "within its interval"
        name = f"{change.any.name} {change.any.where}".rstrip()
        lines.append(f"metric {name}: {' → '.join(sides)} ({note})")
    return lines
