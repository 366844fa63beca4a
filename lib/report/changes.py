"""What differs between two results of a node: metrics beyond their intervals, parameters, causes.

A metric has moved when its new value lies outside the old interval and the old value outside the
new one. Where neither has an interval, a relative change above 5 % counts; times and speeds depend
on what else the machine does, so for them it is 50 %.
"""

from dataclasses import dataclass

from lib.pipeline.store import Json, Result, mapping
from lib.report.metrics import Metric, read_metrics
from lib.report.text import short

__all__ = ["Changes", "MetricChange", "compare", "describe"]

WITHOUT_INTERVAL = 0.05
TIMING, TIMING_UNITS = 0.5, ("s", "ms", "min", "h")
Differences = tuple[tuple[str, str, str], ...]  # name, old, new; "absent" for a gap


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
        if old is None or new is None or old.value is None or new.value is None:
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
        if self.old.value is None or self.new.value is None or not self.new.better:
            return "changed"
        return "better" if self.new.gain > self.old.gain else "worse"


@dataclass(frozen=True, slots=True)
class Changes:
    """All differences of one node."""

    node: str
    metrics: tuple[MetricChange, ...]
    parameters: Differences
    components: Differences

    @property
    def moved(self) -> tuple[MetricChange, ...]:
        return tuple(change for change in self.metrics if change.moved)

    def summary(self) -> str:
        """One line: parameters, then code, inputs and environment, then how many metrics moved."""
        causes = [f"parameter {name} {old} → {new}" for name, old, new in self.parameters]
        kinds: dict[str, list[str]] = {}
        for name, _, _ in self.components:
            kind = "environment" if name in ("lock", "python", "device") else "code"
            kind = "input" if name.startswith("input.") else kind
            kinds.setdefault(kind, []).append(name.removeprefix("input.").replace("code", "cells"))
        for kind, names in kinds.items():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            causes.append(f"{kind} {', '.join(names[:3])}{more}")
        counted = f"{len(self.moved)} of {len(self.metrics)} changed metrics beyond the interval"
        return "; ".join([*causes, counted if self.metrics else "the same metrics"])

    def __bool__(self) -> bool:
        return bool(self.metrics or self.parameters or self.components)


def compare(old: Result, new: Result) -> Changes:
    """Everything that differs from ``old`` to ``new``; equal values are left out."""
    before, after = ({(m.name, m.row, m.segment, m.seeds): m for m in read_metrics(side)}
                     for side in (old, new))  # fmt: skip
    pairs = [MetricChange(before.get(key), after.get(key)) for key in {**before, **after}]
    parameters = [mapping(side.record.get("parameters")) for side in (old, new)]
    causes = [{name: value for name, value in side.parts.items()
               if not name.startswith("param.") and name not in ("seed", "schema")}
              for side in (old, new)]  # fmt: skip
    return Changes(new.node, tuple(pair for pair in pairs if pair.old != pair.new),
                   _differences(*parameters), _differences(*causes))  # fmt: skip


def _differences(old: Json, new: Json) -> Differences:
    def shown(side: Json, name: str) -> str:
        return short(side[name]) if name in side else "absent"

    return tuple((name, shown(old, name), shown(new, name)) for name in sorted({**old, **new})
                 if old.get(name) != new.get(name))  # fmt: skip


def describe(changes: Changes) -> list[str]:
    """The differences as plain lines for a terminal.

    >>> describe(Changes("sasrec", (), (("epochs", "3", "5"),), ()))
    ['parameter epochs: 3 -> 5']
    """
    lines = [f"parameter {name}: {old} -> {new}" for name, old, new in changes.parameters]
    lines += [f"cause {name}: {old} -> {new}" for name, old, new in changes.components]
    for change in changes.metrics:
        old, new = ("absent" if side is None or side.value is None else f"{side.value:.6g}"
                    for side in (change.old, change.new))  # fmt: skip
        note = change.verdict if change.moved else "within its interval"
        name = f"{change.any.name} {change.any.where}".rstrip()
        lines.append(f"metric {name}: {old} -> {new} ({note})")
    return lines
