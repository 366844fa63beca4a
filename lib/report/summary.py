"""What the index says at a glance: who is ahead, by how much, what changed since the last run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from typing import NamedTuple

from lib.pipeline.store import Store
from lib.report.changes import Changes, compare
from lib.report.metrics import Metric
from lib.report.nodes import Node
from lib.report.tables import Cell, Table, digits, metric_cell, number, shown
from lib.report.text import cut

__all__ = ["Since", "Win", "data_above", "find_wins", "moved_table", "since_last_run", "win_table"]

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
    paired: str = ""  # the leaderboard's verdict on the second beside the first, where it has one

    @property
    def weight(self) -> tuple[int, int]:
        """What decides which metric of a data set is told: rivals, then how usual it is."""
        name = self.first.name
        return self.rivals, -FIRST_TOLD.index(name) if name in FIRST_TOLD else -len(FIRST_TOLD)

    @property
    def value(self) -> str:
        return shown(self.first.value, self.decimals)

    @property
    def lead(self) -> str:
        """The distance to the next row, absolute and relative to it."""
        first, second = self.first.value, self.second.value
        relative = f" ({abs(first - second) / abs(second):.1%})" if second else ""
        return shown(abs(first - second), self.decimals) + relative

    @property
    def verdict(self) -> str:
        """Of paired values where there are some; else two intervals apart leave no doubt."""
        if self.paired:
            return "ahead" if self.paired == "worse" else "no clear difference"
        a, b = self.first, self.second
        if a.low is None or a.high is None or b.low is None or b.high is None:
            return "no intervals"
        return "no clear difference" if a.low <= b.high and b.low <= a.high else "ahead"


def data_above(nodes: Sequence[Node]) -> dict[str, tuple[str, ...]]:
    """For each node the data nodes that it stands on, without those that these stand on."""
    by_name = {node.name: node for node in nodes}
    uses = {node.name: set(node.uses) & by_name.keys() for node in nodes}
    above = dict[str, set[str]]()
    for name in TopologicalSorter(uses).static_order():
        above[name] = uses[name].union(*(above[up] for up in uses[name]))
    data = {name: [up for up in sorted(ups) if by_name[up].is_data] for name, ups in above.items()}
    return {name: tuple(up for up in ups if not any(up in above[other] for other in ups))
            for name, ups in data.items()}  # fmt: skip


def find_wins(nodes: Sequence[Node]) -> list[Win]:
    """One line per set of data: its metric with the most rivals.

    Only rows that were measured on the same data, with the same n, compete; a row that several
    nodes measured counts as the last of them has it.
    """
    data, verdicts = data_above(nodes), paired_verdicts(nodes)
    groups: dict[tuple[tuple[str, ...], object], dict[str, Metric]] = {}
    for node in nodes:
        counts = node.state != "failed" and not node.is_data
        for metric in node.metrics if counts else ():
            if metric.better and metric.segment == "all":
                kind = (metric.name, metric.better, metric.unit, metric.n)
                named = replace(metric, row=metric.row or node.name)
                groups.setdefault((data[node.name] or (node.name,), kind), {})[named.row] = named
    wins: dict[tuple[str, ...], Win] = {}
    for (where, _), rows in groups.items():
        ranked = sorted((m for m in rows.values() if not m.is_ceiling), key=lambda m: -m.gain)
        if len(ranked) > 1:
            ceiling = next((m for m in rows.values() if m.is_ceiling), None)
            first, second = ranked[:2]
            paired = verdicts.get((first.name, first.n, first.row, second.row), "")
            win = Win(where, first, second, ceiling, digits(ranked), len(ranked), paired)
            if where not in wins or win.weight > wins[where].weight:
                wins[where] = win
    return list(wins.values())


def paired_verdicts(nodes: Sequence[Node]) -> dict[tuple[str, int | None, str, str], str]:
    """(measure, n, best row, other row) -> what a leaderboard of rankings says of the other."""
    found: dict[tuple[str, int | None, str, str], str] = {}
    for node in nodes:
        path = node.result.folder / "outputs" / "leaderboard.parquet" if node.result else None
        if path is None or not path.is_file():
            continue
        import pyarrow.parquet as parquet  # 0.1 s, needed only where there is a leaderboard

        measure = str(node.record["parameters"].get("measure"))
        for line in parquet.read_table(path).to_pylist():
            if line["data"] == "ranking" and line.get("best_verdict"):
                best, row = (str(line[name]).rpartition(": ")[2] for name in ("best", "row"))
                found[measure, line["n"], best, row] = str(line["best_verdict"])
    return found


class Since(NamedTuple):
    """The newest run with any other result than today's, and what differs from it."""

    started: object = None
    changes: tuple[Changes, ...] = ()
    gone: tuple[str, ...] = ()  # nodes that cannot be compared


def since_last_run(store: Store, nodes: Sequence[Node]) -> Since:
    """What changed since the newest run that left something else than what is there today."""
    today = {node.name: node.result for node in nodes if node.result}
    for run in reversed(store.runs()):
        keys = {name: entry["key"] for name, entry in run["nodes"].items()
                if name in today and entry["state"] not in ("failed", "blocked")}  # fmt: skip
        other = {name: store.result(name, key) for name, key in keys.items()
                 if key and key != today[name].key}  # fmt: skip
        if other:
            changes = [compare(old, today[name]) for name, old in other.items() if old]
            gone = tuple(name for name, old in other.items() if not old)
            return Since(run["started"], tuple(changes), gone)
    return Since()


def win_table(wins: Sequence[Win]) -> Table:
    heads = ("data", "metric", "best row", "value", "next best", "value", "lead", "verdict",
             "ceiling", "n")  # fmt: skip
    rows = []
    for win in wins:
        first, second, ceiling = win.first, win.second, win.ceiling
        named = f"{first.name} ({first.unit})" if first.unit else first.name
        rows.append((
            Cell(" + ".join(win.data), header=True), Cell(cut(named, 60)), Cell(cut(first.row, 60)),
            metric_cell(first, win.decimals), Cell(cut(second.row, 60)),
            number(shown(second.value, win.decimals)), number(win.lead), Cell(win.verdict),
            number(shown(ceiling.value if ceiling else None, win.decimals), "not known"),
            number(shown(first.n), "not given"),
        ))  # fmt: skip
    caption = "On each data set, the metric that most rows compete in: the best row and the next."
    notes = ("Brackets: 95 % interval.", "Ahead: the difference paired by user is beyond nought; "
             "where no leaderboard paired the two, their intervals are apart.")  # fmt: skip
    return Table(caption, heads, rows, notes)


def moved_table(changes: Sequence[Changes], limit: int = 15) -> Table:
    moved = [(change.node, metric) for change in changes for metric in change.moved]
    rows = []
    for node, change in moved[:limit]:
        decimals = digits([side for side in (change.old, change.new) if side])
        names = (cut(change.any.name, 60), cut(change.any.where, 60) or "–")
        sides = [metric_cell(side, decimals, gap="absent") for side in (change.old, change.new)]
        rows.append((Cell(node, header=True), *map(Cell, names), *sides, Cell(change.verdict)))
    more = [f"{len(moved) - limit} more: `run_all.py diff` lists all."] * (len(moved) > limit)
    heads = ("node", "metric", "row", "before", "now", "verdict")
    return Table("Metrics beyond their intervals", heads, rows, more)
