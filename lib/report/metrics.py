"""What results hold: their records as the worker wrote them, and every metric of a profile."""

from dataclasses import dataclass
from pathlib import Path

from lib.pipeline.profile import Home
from lib.pipeline.store import Json, Result, Store
from lib.report.text import tidy

__all__ = ["COLUMNS", "Metric", "collect", "profiles", "read_metrics", "read_record"]

COLUMNS = ("profile", "node", "metric", "row", "segment", "value", "low", "high", "n", "seed",
           "unit", "better")  # fmt: skip
SHAPE: Json = {  # of record.json, as far as pages read it
    "title": str, "note": str, "notebook": str, "started": str, "device": str, "seconds": float,
    "peak_memory_bytes": int, "gpu_peak_memory_bytes": int, "parameters": dict, "defaults": list,
    "versions": dict, "git": dict, "inputs": dict,
    "metrics": [{"name": str, "row": str, "segment": str, "value": float, "unit": str}],
    "tables": [{"name": str, "path": str, "caption": str}],
    "figures": [{"name": str, "path": str, "caption": str, "alt": str}],
    "cells": [{"index": int, "title": str, "seconds": float}],
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of one node, as ``run.metric`` recorded it."""

    name: str
    row: str = ""
    segment: str = "all"
    value: float = 0.0
    low: float | None = None
    high: float | None = None
    n: int | None = None
    seed: int | None = None
    unit: str = ""
    better: str | None = None

    @property
    def gain(self) -> float:
        """The value with its sign turned so that more is better."""
        return -self.value if self.better == "lower" else self.value

    @property
    def where(self) -> str:
        """Row and segment in words."""
        return " · ".join(part for part in (self.row, self.segment) if part not in ("", "all"))

    @property
    def is_ceiling(self) -> bool:
        """Rows that state what the true probabilities reach take no part in "best"."""
        return "ceiling" in self.row.lower()


def read_record(result: Result | None) -> Json:
    """All that pages read of a record; what is not as the worker writes it counts as empty."""
    record = result.record if result else {}
    return {name: record[name] if _is_like(record.get(name), shape)
            else [] if isinstance(shape, list) else shape()
            for name, shape in SHAPE.items()}  # fmt: skip


def _is_like(value: object, shape: object) -> bool:
    if isinstance(shape, list):
        return isinstance(value, list) and all(_is_like(item, shape[0]) for item in value)
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(_is_like(value.get(n), s) for n, s in shape.items())
    return isinstance(value, shape)  # type: ignore[arg-type]


def read_metrics(result: Result | None) -> tuple[Metric, ...]:
    """What a result has measured."""
    return tuple(Metric(**{name: entry.get(name) for name in Metric.__slots__})
                 for entry in read_record(result)["metrics"])  # fmt: skip


def profiles(home: Path) -> list[str]:
    """Profiles that have something in the store."""
    return sorted(path.name for path in Home(home).store.glob("*") if path.is_dir())


def collect(home: Path, profile: str) -> list[dict[str, object]]:
    """The metrics of one profile, one dict per number, in the order of nodes and notebooks."""
    store = Store(Home(home), profile)
    return [{
        "profile": profile, "node": folder.name, "metric": tidy(m.name), "row": tidy(m.row),
        "segment": tidy(m.segment), "value": m.value, "low": m.low, "high": m.high, "n": m.n,
        "seed": m.seed, "unit": tidy(m.unit), "better": m.better,
    } for folder in sorted(store.root.glob("*"))
      for m in read_metrics(store.current(folder.name))]  # fmt: skip
