"""How long a proposed profile will take: rates measured on finished runs, times the work here.

``docs/results/own_data.json`` holds, for each notebook, the seconds of finished nodes and their
work (multiplications, cells, positions: what its time grows with, see the planned nodes). An
estimate is a fixed part and the rest in proportion to the work: good for an order of magnitude.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.studies.proposal_text import PlannedNode

__all__ = ["Cost", "estimate", "read_rates", "tell_cost", "told_time"]

RATES = Path("docs") / "results" / "own_data.json"
FIXED = 5.0  # seconds of a notebook that has nothing to do: kernel, imports, page


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of each node; those whose notebook was never measured are not in it."""

    seconds: Mapping[str, float]
    unknown: tuple[str, ...]
    basis: str

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def read_rates(root: Path) -> dict[str, Any]:
    """What was measured; nothing where the file is not there."""
    path = root / RATES
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}


def rate_of(measured: Sequence[Mapping[str, Any]]) -> float:
    """Seconds for a unit of work: of the run with the most work, which figures and tables blur
    least.

    >>> rate_of([{"work": 10.0, "seconds": 4.0}, {"work": 100.0, "seconds": 20.0}])
    0.2
    """
    most = max(measured, key=lambda run: run["work"])
    return float(most["seconds"]) / max(most["work"], 1.0)


def estimate(nodes: Sequence[PlannedNode], rates: Mapping[str, Any]) -> Cost:
    """Seconds of each node at the measured rates."""
    known = rates.get("notebooks", {})
    seconds = {
        node.name: FIXED + node.work * rate_of(known[node.notebook])
        for node in nodes if known.get(node.notebook)
    }  # fmt: skip
    unknown = tuple(node.name for node in nodes if node.name not in seconds)
    busy = ", busy with other work" if rates.get("machine_was_busy") else ""
    basis = f"{RATES.as_posix()}: {rates.get('machine', 'no machine named')}{busy}" if known else ""
    return Cost(seconds, unknown, basis)


def tell_cost(cost: Cost, nodes: Sequence[PlannedNode]) -> list[str]:
    """The estimate in words, with what it rests on."""
    if not cost.seconds:
        return [f"time: not estimated; {RATES.as_posix()} holds no measured rates"]
    slowest = sorted(cost.seconds, key=lambda name: -cost.seconds[name])[:3]
    parts = ", ".join(f"{name} {told_time(cost.seconds[name])}" for name in slowest)
    memory = max(node.memory_gb for node in nodes)
    part = "all nodes" if not cost.unknown else "the nodes that were measured"
    lines = [
        f"time: about {told_time(cost.total)} of computing for {part} ({parts}); memory: below "
        f"{max(1, round(memory + 0.5))} GB for the largest node",
        f"  rests on {cost.basis}; epochs may end early, other machines differ by factors",
    ]
    if cost.unknown:
        lines.append(f"  not measured and not counted: {', '.join(cost.unknown)}")
    return lines


def told_time(seconds: float) -> str:
    """A duration for a reader.

    >>> told_time(42), told_time(600), told_time(9000)
    ('1 min', '10 min', '2.5 h')
    """
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{max(1, round(seconds / 60))} min"
