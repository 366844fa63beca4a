"""What pages are made from: nodes with their newest result or failure, in reading order."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib.pipeline.store import Json, Result, Store, read_mapping
from lib.pipeline.surroundings import title_of
from lib.report.metrics import Metric, read_metrics

__all__ = ["Node", "State", "gather", "places"]

State = Mapping[str, object]  # state, reason, notebook, uses, used_by, title; all optional
NODE_NAME = re.compile(r"[A-Za-z0-9_][\w-]*", re.ASCII)  # it becomes the name of a file
DATA_VERBS = ("simulate", "prepare")  # NN_verb_object: these notebooks make data, others learn


@dataclass(frozen=True, slots=True)
class Node:
    """What one page is made from."""

    name: str
    state: str = "not run"
    title: str = ""
    notebook: str = ""
    uses: tuple[str, ...] = ()
    used_by: tuple[str, ...] = ()
    reason: str = ""
    result: Result | None = None
    error: Json = field(default_factory=dict)

    @property
    def record(self) -> Json:
        return self.result.record if self.result else {}

    @property
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
        note = str(self.record.get("note") or "")
        return note if self.state in ("done", "stale") else self.reason or note or "has not run yet"


def gather(store: Store, states: Mapping[str, State]) -> list[Node]:
    """The nodes of a profile by the number of their notebook, else in the order given."""
    for name in states:
        if not NODE_NAME.fullmatch(name):
            raise ValueError(f"node name {name!r}: expected letters, digits, `_`, `-`; rename it")
    nodes = [_node(store, name, state) for name, state in states.items()]
    return sorted(nodes, key=lambda node: node.notebook[:2])


def _node(store: Store, name: str, given: State) -> Node:
    result, state = store.current(name), str(given.get("state") or "not run")
    result = result if result and result.record else None
    record = result.record if result else {}
    notebook = Path(str(given.get("notebook") or record.get("notebook") or "")).stem
    try:
        title = title_of(read_mapping(store.home.notebook(notebook)))
    except (KeyError, TypeError):  # absent, or no notebook
        title = ""
    uses, used_by = (tuple(map(str, names)) if isinstance(names, Iterable) else ()
                     for names in (given.get("uses"), given.get("used_by")))  # fmt: skip
    return Node(name, state, str(given.get("title") or title or record.get("title") or name),
                notebook, uses, used_by, str(given.get("reason") or ""), result,
                store.failure(name) or {} if state == "failed" else {})  # fmt: skip


def places(nodes: Sequence[Node]) -> dict[str, tuple[int, float]]:
    """Column and row of each node in a drawing of the graph.

    Column = longest way from a start; within a column, near the mean row of what is used.
    """
    uses = {node.name: {use for use in node.uses if use != node.name} for node in nodes}
    depth = dict.fromkeys(uses, 0)
    for _ in nodes:  # at most as many rounds as nodes, also where results use each other
        for name, used in uses.items():
            depth[name] = min(len(nodes), max((depth[use] + 1 for use in used & depth.keys()),
                                              default=0))  # fmt: skip
    columns = [[n for n in uses if depth[n] == d] for d in sorted(set(depth.values()))]
    tallest, rows = max(map(len, columns), default=0), dict[str, float]()
    for column in columns:

        def wish(name: str) -> float:
            known = [rows[use] for use in uses[name] if use in rows]
            return sum(known) / len(known) if known else 0.0

        for row, name in enumerate(sorted(column, key=wish)):
            rows[name] = row + (tallest - len(column)) / 2
    return {name: (x, rows[name]) for x, column in enumerate(columns) for name in column}
