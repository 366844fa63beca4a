"""Every metric of every complete node, as ``reports/metrics.json`` lists them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from lib.pipeline.profile import Home
from lib.pipeline.store import Json, Result, Store
from lib.report.text import tidy

__all__ = ["COLUMNS", "Metric", "collect", "items", "merge_seeds", "profiles",
           "read_metrics"]  # fmt: skip

COLUMNS = ("profile", "node", "metric", "row", "segment", "value", "low", "high", "n", "seed",
           "unit", "better")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of one node; ``seeds`` has one entry unless several were put together."""

    name: str
    row: str = ""
    segment: str = "all"
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    seeds: tuple[int, ...] = ()
    unit: str = ""
    better: str | None = None

    @property
    def gain(self) -> float:
        """The value with its sign turned so that more is better; missing values come last."""
        value = -math.inf if self.value is None else self.value
        return -value if self.better == "lower" and self.value is not None else value

    @property
    def where(self) -> str:
        """Row and segment in words."""
        return " · ".join(part for part in (self.row, self.segment) if part not in ("", "all"))

    @property
    def is_ceiling(self) -> bool:
        """Rows that state what the true probabilities reach take no part in "best"."""
        return "ceiling" in self.row.lower()


def items(value: object) -> list[Json]:
    """The mappings of a list; what a record should hold but does not counts as empty."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def read_metrics(result: Result | None) -> tuple[Metric, ...]:
    """What a result has measured."""
    entries = items(result.record.get("metrics")) if result else []
    return tuple(_metric(entry) for entry in entries if entry.get("name"))


def _metric(entry: Json) -> Metric:
    numbers = {name: _finite(entry.get(name)) for name in ("value", "low", "high")}
    n, seed, better = _finite(entry.get("n")), _finite(entry.get("seed")), entry.get("better")
    return Metric(
        str(entry["name"]), str(entry.get("row") or ""), str(entry.get("segment") or "all"),
        **numbers, n=None if n is None else int(n), unit=str(entry.get("unit") or ""),
        seeds=() if seed is None else (int(seed),),
        better=str(better) if better in ("higher", "lower") else None,
    )  # fmt: skip


def _finite(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None  # type: ignore[arg-type]


def merge_seeds(metrics: Iterable[Metric]) -> list[Metric]:
    """Seeds of one metric, row and segment as one: the mean, and the span of all intervals.

    >>> two = [Metric("auc", "A", "all", v, seeds=(i,)) for i, v in enumerate([0.5, 0.75])]
    >>> [(m.value, m.low, m.high, m.seeds) for m in merge_seeds(two)]
    [(0.625, 0.5, 0.75, (0, 1))]
    """
    groups: dict[object, list[Metric]] = {}
    for metric in metrics:
        groups.setdefault((metric.name, metric.row, metric.segment), []).append(metric)
    return [group[0] if len(group) == 1 else _merged(group) for group in groups.values()]


def _merged(group: list[Metric]) -> Metric:
    values = [m.value for m in group if m.value is not None]
    edges = [e for m in group for e in (m.low, m.high, m.value) if e is not None]
    return replace(
        group[0], value=math.fsum(values) / len(values) if values else None,
        low=min(edges, default=None), high=max(edges, default=None),
        n=max((m.n for m in group if m.n is not None), default=None),
        seeds=tuple(sorted({seed for m in group for seed in m.seeds})),
    )  # fmt: skip


def profiles(home: Path) -> list[str]:
    """Profiles that have something in the store."""
    return sorted(path.name for path in Home(home).store.glob("*") if path.is_dir())


def collect(home: Path, profile: str) -> list[dict[str, object]]:
    """The metrics of one profile, one dict per number, in the order of nodes and notebooks."""
    store = Store(Home(home), profile)
    return [{
        "profile": profile, "node": folder.name, "metric": tidy(m.name), "row": tidy(m.row),
        "segment": tidy(m.segment), "value": m.value, "low": m.low, "high": m.high, "n": m.n,
        "seed": m.seeds[0] if m.seeds else None, "unit": tidy(m.unit), "better": m.better,
    } for folder in sorted(store.root.glob("*"))
      for m in read_metrics(store.current(folder.name))]  # fmt: skip
