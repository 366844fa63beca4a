"""What differs between two results of a node: metrics beyond their intervals, parameters, causes.

A metric has moved when its new value lies outside the old interval and the old value outside the
new one. Where neither has an interval, a relative change above 5 % counts; times and speeds depend
on what else the machine does, so for them it is 50 %.
"""

import math
from dataclasses import dataclass

from lib.report.results import Metric, Result

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
        metric = self.new or self.old
        assert metric is not None
        return metric

    @property
    def moved(self) -> bool:
        """True beyond the interval, and for a metric that appeared or vanished."""
        old, new = self.old, self.new
        if old is None or new is None or old.value is None or new.value is None:
            return True
        sides = [_outside(new.value, old), _outside(old.value, new)]
        known = [side for side in sides if side is not None]
        limit = TIMING if new.unit in TIMING_UNITS or new.unit.endswith("/s") else WITHOUT_INTERVAL
        return all(known) if known else _relative(old.value, new.value) > limit

    @property
    def verdict(self) -> str:
        if self.old is None or self.new is None:
            return "new" if self.old is None else "gone"
        if self.old.value is None or self.new.value is None or not self.new.better:
            return "changed"
        risen = self.new.value > self.old.value
        return "better" if risen == (self.new.better == "higher") else "worse"


@dataclass(frozen=True, slots=True)
class Changes:
    """All differences; parameters and components are (name, old, new), "absent" for a gap."""

    node: str
    metrics: tuple[MetricChange, ...]
    parameters: tuple[tuple[str, str, str], ...]
    components: tuple[tuple[str, str, str], ...]

    @property
    def moved(self) -> tuple[MetricChange, ...]:
        return tuple(change for change in self.metrics if change.moved)

    def summary(self) -> str:
        """One line: parameters, then code, inputs and environment, then how many metrics moved."""
        causes = [f"parameter {name} {old} → {new}" for name, old, new in self.parameters]
        kinds: dict[str, list[str]] = {}
        for name, _, _ in self.components:
            is_environment = name in ("lock", "python", "device")
            kind = "environment" if is_environment else "code"
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
    before = {(m.name, m.row, m.segment, m.seeds): m for m in old.metrics}
    after = {(m.name, m.row, m.segment, m.seeds): m for m in new.metrics}
    pairs = [MetricChange(before.get(key), after.get(key)) for key in {**before, **after}]
    return Changes(
        node=new.node,
        metrics=tuple(pair for pair in pairs if pair.old != pair.new),
        parameters=_differences(_values(old), _values(new)),
        components=_differences(_causes(old), _causes(new)),
    )


def describe(changes: Changes) -> list[str]:
    """The differences as plain lines for a terminal.

    >>> describe(Changes("sasrec", (), (("epochs", "3", "5"),), ()))
    ['parameter epochs: 3 -> 5']
    """
    lines = [f"parameter {name}: {old} -> {new}" for name, old, new in changes.parameters]
    lines += [f"cause {name}: {old} -> {new}" for name, old, new in changes.components]
    for change in changes.metrics:
        metric = change.any
        where = " ".join(part for part in (metric.row, metric.segment) if part not in ("", "all"))
        sides = [_shown(change.old), _shown(change.new)]
        note = change.verdict if change.moved else "within its interval"
        lines.append(f"metric {metric.name} {where}".rstrip() + f": {' -> '.join(sides)} ({note})")
    return lines


def _shown(metric: Metric | None) -> str:
    return "absent" if metric is None or metric.value is None else f"{metric.value:.6g}"


def _outside(value: float, metric: Metric) -> bool | None:
    if metric.low is None or metric.high is None:
        return None
    return not metric.low <= value <= metric.high


def _relative(old: float, new: float) -> float:
    if math.isclose(old, new, rel_tol=1e-12):
        return 0.0
    return abs(new - old) / max(abs(old), abs(new))


def _values(result: Result) -> dict[str, object]:
    parameters = result.record.get("parameters")
    return parameters if isinstance(parameters, dict) else {}


def _causes(result: Result) -> dict[str, object]:
    """Parts of the key other than parameters, which are compared by themselves."""
    parts = result.components().items()
    return {k: v for k, v in parts if not k.startswith("param.") and k not in ("seed", "schema")}


def _differences(
    old: dict[str, object], new: dict[str, object]
) -> tuple[tuple[str, str, str], ...]:
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return tuple((name, *(_brief(side, name) for side in (old, new))) for name in sorted(names))  # type: ignore[misc]


def _brief(values: dict[str, object], name: str) -> str:
    if name not in values:
        return "absent"
    text = str(values[name])
    is_hash = len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)
    return text[:12] if is_hash else text
