"""What the index says at a glance: who won and by how much, what changed since the last run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lib.report.changes import Changes, compare
from lib.report.results import Json, Metric, Node, Result, mapping, read_result
from lib.report.tables import digits, is_ceiling, merge_seeds, shown

__all__ = ["Win", "data_above", "find_wins", "is_data", "since_last_run"]

DATA_VERBS = ("simulate", "prepare")  # NN_verb_object: these notebooks make data, others learn
FIRST_TOLD = ("ndcg@10", "auc")  # where several metrics have as many rivals, these speak first


@dataclass(frozen=True, slots=True)
class Win:
    """The best row of one metric on one set of data, and the next one."""

    data: tuple[str, ...]
    first: Metric
    second: Metric
    ceiling: Metric | None
    decimals: int
    rivals: int

    @property
    def weight(self) -> tuple[int, int]:
        """What decides which metric of a data set is told: rivals, then how usual it is."""
        name = self.first.name
        return self.rivals, -FIRST_TOLD.index(name) if name in FIRST_TOLD else -len(FIRST_TOLD)

    @property
    def value(self) -> str:
        return shown(self.first.value or 0.0, self.decimals)

    @property
    def lead(self) -> str:
        """The distance to the next row, absolute and relative to it."""
        first, second = self.first.value or 0.0, self.second.value or 0.0
        relative = f" ({abs(first - second) / abs(second):.1%})" if second else ""
        return shown(abs(first - second), self.decimals) + relative

    @property
    def verdict(self) -> str:
        a, b = self.first, self.second
        if a.low is None or a.high is None or b.low is None or b.high is None:
            return "no intervals"
        return "intervals overlap" if a.low <= b.high and b.low <= a.high else "intervals apart"


def is_data(node: Node) -> bool:
    """True for notebooks that make or prepare data, by the verb in their name."""
    return node.notebook[3:].split("_")[0] in DATA_VERBS


def data_above(nodes: Sequence[Node]) -> dict[str, tuple[str, ...]]:
    """For each node the data nodes that it stands on, without those that these stand on."""
    by_name = {node.name: node for node in nodes}
    above: dict[str, set[str]] = {}

    def look(name: str) -> set[str]:
        if name not in above:
            above[name] = set()  # results of different ages may use each other
            uses = {use for use in by_name[name].uses if use in by_name}
            above[name] = uses.union(*(look(use) for use in uses))
        return above[name]

    for name in by_name:
        look(name)
    data = {name: [up for up in sorted(ups) if is_data(by_name[up])] for name, ups in above.items()}
    return {name: tuple(up for up in ups if not any(up in above[other] for other in ups))
            for name, ups in data.items()}  # fmt: skip


def find_wins(nodes: Sequence[Node]) -> list[Win]:
    """One line per set of data: its metric with the most rivals.

    Only rows that were measured on the same data, with the same n, compete.
    """
    data = data_above(nodes)
    groups: dict[tuple[tuple[str, ...], object], list[Metric]] = {}
    for node in nodes:
        counts = node.result is not None and node.state != "failed" and not is_data(node)
        for metric in node.result.metrics if node.result and counts else ():
            if metric.better and metric.value is not None and metric.segment == "all":
                where = data[node.name] or (node.name,)
                kind = (metric.name, metric.better, metric.unit, metric.n)
                groups.setdefault((where, kind), []).append(
                    replace(metric, row=metric.row or node.name)
                )
    wins: dict[tuple[str, ...], Win] = {}
    for (where, _), metrics in groups.items():
        win = _win(where, merge_seeds(metrics))
        if win and (win.data not in wins or win.weight > wins[win.data].weight):
            wins[win.data] = win
    return list(wins.values())


def _win(data: tuple[str, ...], metrics: list[Metric]) -> Win | None:
    ranked = sorted((m for m in metrics if not is_ceiling(m)), key=lambda m: -m.gain)
    ceiling = next((m for m in metrics if is_ceiling(m)), None)
    if len(ranked) < 2:
        return None
    return Win(data, ranked[0], ranked[1], ceiling, digits(ranked), len(ranked))


def since_last_run(
    home: Path, profile: str, nodes: Sequence[Node], history: Sequence[Json]
) -> tuple[object, list[Changes], list[str]]:
    """When the compared run started, what differs from it, and which nodes cannot be compared.

    The compared run is the newest one with any other result than today's.
    """
    today = {node.name: node.result for node in nodes if node.result}
    for run in reversed(history):
        keys = {name: str(mapping(entry).get("key") or "")[:12]
                for name, entry in run["nodes"].items()
                if mapping(entry).get("state") not in ("failed", "blocked")}  # fmt: skip
        other = {n: key for n, key in keys.items() if key and n in today and key != today[n].key}
        if other:
            return run.get("started"), *_compared(home / "data" / "store" / profile, today, other)
    return None, [], []


def _compared(
    store: Path, today: Mapping[str, Result], other: Mapping[str, str]
) -> tuple[list[Changes], list[str]]:
    old = {name: read_result(store / name / key) for name, key in other.items()}
    changes = [compare(result, today[name]) for name, result in old.items() if result]
    return changes, [name for name, result in old.items() if not result]
