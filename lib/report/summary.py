"""What the index says at a glance: who won and by how much, what changed since the last run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.report.changes import Changes, compare
from lib.report.results import Json, Node, Result, read_result
from lib.report.tables import Score, digits, interval, is_ceiling, scores, shown

__all__ = ["Win", "data_nodes", "find_wins", "since_last_run"]

LAST_DATA_NOTEBOOK = 19  # notebooks 00 to 19 make or prepare data; all later ones learn from it


@dataclass(frozen=True, slots=True)
class Win:
    """The best row of one metric on one set of data, and its distance to the next."""

    data: tuple[str, ...]
    metric: str
    unit: str
    n: int | None
    winner: str
    node: str
    value: str
    span: str
    second: str
    second_value: str
    lead: str
    separate: bool | None  # True where the intervals do not overlap; None without intervals
    ceiling: str
    rivals: int


def is_data(node: Node) -> bool:
    """True for notebooks 00 to 19, by the number in their name."""
    number = node.notebook[:2]
    return number.isdigit() and int(number) <= LAST_DATA_NOTEBOOK


def data_nodes(nodes: Sequence[Node]) -> dict[str, tuple[str, ...]]:
    """For each node the nearest nodes above it that made its data."""
    by_name, found = {node.name: node for node in nodes}, dict[str, tuple[str, ...]]()

    def look(name: str, path: tuple[str, ...]) -> tuple[str, ...]:
        uses = [use for use in by_name[name].uses if use in by_name and use not in path]
        direct = [use for use in uses if is_data(by_name[use])]
        above = [data for use in uses if use not in direct for data in look(use, (*path, use))]
        return tuple(dict.fromkeys(direct or above))

    for name in by_name:
        found[name] = look(name, (name,))
    return found


def find_wins(nodes: Sequence[Node]) -> list[Win]:
    """One line per set of data and population: its metric with the most rivals (first on ties)."""
    data = data_nodes(nodes)
    groups: dict[tuple[object, ...], list[tuple[str, Score]]] = {}
    for node in nodes:
        if node.result is None or node.state == "failed":
            continue
        for score in scores(node.result.metrics):
            if score.better and score.value is not None and score.segment == "all":
                where = data[node.name] or (node.name,)
                key = (where, score.name, score.better, score.unit, score.n)
                label = score if score.row else _named(score, node.name)
                groups.setdefault(key, []).append((node.name, label))
    best: dict[tuple[object, ...], Win] = {}
    for (where, *_, n), entries in groups.items():
        win = _win(where, entries)  # type: ignore[arg-type]
        if win and (where not in best or win.rivals > best[where].rivals):
            best[where] = win
    return list(best.values())


def _named(score: Score, row: str) -> Score:
    return Score(score.name, row, score.segment, score.value, score.low, score.high, score.n,
                 score.unit, score.better, score.seeds)  # fmt: skip


def _win(where: tuple[str, ...], entries: list[tuple[str, Score]]) -> Win | None:
    rows: dict[str, tuple[str, Score]] = {}
    for node, score in entries:  # a row measured by two nodes competes once, with its later value
        rows[score.row] = (node, score)
    ceilings = [score for _, score in rows.values() if is_ceiling(score.row)]
    ranked = sorted(
        (e for e in rows.values() if not is_ceiling(e[1].row)), key=lambda e: -e[1].gain
    )
    if len(ranked) < 2:
        return None
    (node, first), (_, second) = ranked[:2]
    decimals = digits([score for _, score in ranked])
    assert first.value is not None
    assert second.value is not None
    lead = abs(first.value - second.value)
    relative = f" ({lead / abs(second.value):.1%})" if second.value else ""
    edges = (first.low, first.high, second.low, second.high)
    overlap = None
    if None not in edges:
        low, high, low2, high2 = edges  # type: ignore[misc]
        overlap = low <= high2 and low2 <= high  # type: ignore[operator]
    return Win(
        where, first.name, first.unit, first.n, first.row, node,
        shown(first.value, decimals), interval(first, decimals),
        second.row, shown(second.value, decimals), shown(lead, decimals) + relative,
        None if overlap is None else not overlap,
        shown(ceilings[-1].value, decimals) if ceilings and ceilings[-1].value is not None else "",
        len(ranked),
    )  # fmt: skip


def since_last_run(
    home: Path, profile: str, nodes: Sequence[Node], history: Sequence[Json]
) -> tuple[str, list[Changes], list[str]]:
    """When the compared run started, the nodes whose results differ from then, and what cannot
    be compared. The compared run is the newest one with any other result than today's.
    """
    today = {node.name: node.result for node in nodes if node.result}
    for run in reversed(history):
        keys = {name: _key(entry) for name, entry in run["nodes"].items() if _key(entry)}
        differing = {n: key for n, key in keys.items() if n in today and key != today[n].key}
        if differing:
            return _compared(home, profile, run, today, differing)
    return "", [], []


def _compared(
    home: Path, profile: str, run: Json, today: Mapping[str, Result], differing: dict[str, str]
) -> tuple[str, list[Changes], list[str]]:
    changes, gone = [], []
    for name, key in differing.items():
        old = read_result(home / "data" / "store" / profile / name / key)
        if old:
            changes.append(compare(old, today[name]))
        else:
            gone.append(name)
    return str(run.get("started") or ""), changes, gone


def _key(entry: object) -> str:
    return str(entry.get("key") or "")[:12] if isinstance(entry, dict) else ""
