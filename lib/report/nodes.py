"""What pages are made from: nodes with their newest result or failure, and where to draw them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import TopologicalSorter

from lib.pipeline.store import Json, Result
from lib.report.metrics import Metric, read_metrics, read_record

__all__ = ["Node", "places"]

DATA_VERBS = ("simulate", "prepare")  # NN_verb_object: these notebooks make data, others learn


@dataclass(frozen=True)
class Node:
    """What one page is made from."""

    name: str
    state: str = "not run"
    title: str = ""
    notebook: str = ""
    uses: Sequence[str] = ()
    used_by: Sequence[str] = ()
    reason: str = ""
    result: Result | None = None
    error: Json = field(default_factory=dict)

    @cached_property
    def record(self) -> Json:
        return read_record(self.result)

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        return read_metrics(self.result)

    @property
    def is_data(self) -> bool:
        """True for notebooks that make or prepare data, by the verb in their name."""
        return self.notebook[3:].split("_")[0] in DATA_VERBS

    @property
    def summary(self) -> str:
        """The result in one sentence, or why there is none."""
        if self.state == "failed":
            return str(self.error.get("message") or "failed; no message was left")
        note = str(self.record["note"])
        return note if self.state in ("done", "stale") else self.reason or note or "has not run yet"


def places(nodes: Sequence[Node]) -> dict[str, tuple[int, float]]:
    """Column and row of each node in a drawing of the graph.

    Column = longest way from a start; within a column, near the mean row of what is used.
    """
    names, columns = [node.name for node in nodes], list[list[str]]()
    uses = {node.name: [use for use in node.uses if use in names] for node in nodes}
    sorter = TopologicalSorter(uses)
    sorter.prepare()
    while ready := sorter.get_ready():
        columns.append(sorted(ready, key=names.index))
        sorter.done(*ready)
    tallest, rows = max(map(len, columns), default=0), dict[str, float]()
    for column in columns:
        wish = {name: sum(rows[use] for use in uses[name]) / (len(uses[name]) or 1)
                for name in column}  # fmt: skip
        for row, name in enumerate(sorted(column, key=wish.__getitem__)):
            rows[name] = row + (tallest - len(column)) / 2
    return {name: (x, rows[name]) for x, column in enumerate(columns) for name in column}
