"""View models of tables: metrics with intervals, data frames from parquet. No HTML here."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lib.report.results import Metric

__all__ = ["Cell", "Table", "best", "cut", "data_table", "digits", "interval", "is_ceiling",
           "merge_seeds", "metric_tables", "shown"]  # fmt: skip

MAX_ROWS, MAX_CHARACTERS, MAX_METRICS = 100, 160, 12
ARROWS = {"higher": "↑", "lower": "↓", None: ""}


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: text, a muted note behind it, and what kind of cell it is."""

    text: str
    note: str = ""
    number: bool = False
    header: bool = False
    best: bool = False
    missing: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    caption: str
    columns: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


def is_ceiling(metric: Metric) -> bool:
    """Rows that state what the true probabilities reach take no part in "best"."""
    return "ceiling" in metric.row.lower()


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


def digits(column: Sequence[Metric]) -> int:
    """Decimals that show half an interval's width with two digits; else 4 significant ones."""
    values = [m.value for m in column if m.value is not None]
    if all(value == round(value) for value in values):
        return 0
    widths = sorted(m.high - m.low for m in column if m.low is not None and m.high is not None)
    widths = [width for width in widths if width > 0]
    scale = widths[len(widths) // 2] / 2 if widths else max(map(abs, values)) / 100
    return min(8, max(0, 1 - math.floor(math.log10(scale))))


def shown(value: float, decimals: int = 0) -> str:
    """A number with fixed decimals and a real minus sign; thousands are set off from 10 000 on.

    >>> shown(-1234567.8, 1), shown(0.5, 3), shown(3000)
    ('−1\\u202f234\\u202f567.8', '0.500', '3000')
    """
    if value and abs(value) < 10.0 ** -(decimals + 1):
        return f"{value:.1e}".replace("-", "−")
    text = f"{value:,.{decimals}f}".replace(",", "\u202f" if abs(value) >= 10_000 else "")
    return text.replace("-", "−")


def interval(metric: Metric, decimals: int) -> str:
    if metric.low is None or metric.high is None:
        return ""
    return f"[{shown(metric.low, decimals)}, {shown(metric.high, decimals)}]"


def best(metrics: Sequence[Metric]) -> list[Metric]:
    """The best rows of each metric and segment, where at least two compete."""
    groups: dict[object, list[Metric]] = {}
    for metric in metrics:
        if metric.better and metric.value is not None and not is_ceiling(metric):
            groups.setdefault((metric.name, metric.segment), []).append(metric)
    rivals = [group for group in groups.values() if len(group) > 1]
    return [m for group in rivals for m in group if m.gain == max(r.gain for r in group)]


def metric_tables(metrics: Sequence[Metric]) -> list[Table]:
    """All metrics of a node: those over everything first, then those of segments."""
    found = merge_seeds(metrics)
    parts = {"Metrics": [m for m in found if m.segment == "all"],
             "Metrics by segment": [m for m in found if m.segment != "all"]}  # fmt: skip
    return [_metric_table(caption, part) for caption, part in parts.items() if part]


def _metric_table(caption: str, found: list[Metric]) -> Table:
    """One line per metric, or one per row where several rows compare."""
    names = list(dict.fromkeys(m.name for m in found))
    lines = list(dict.fromkeys((m.row, m.segment) for m in found))
    dense = 2 * len(found) >= len(names) * len(lines)
    wide = len(lines) > 1 and dense and len(names) <= MAX_METRICS
    notes = [f"{ARROWS[word]} {word} is better." for word in ("higher", "lower")
             if any(m.better == word for m in found)]  # fmt: skip
    notes += ["Brackets: 95 % interval."] if any(m.low is not None for m in found) else []
    if any(len(m.seeds) > 1 for m in found):
        notes.append("Several seeds: their mean, and the span of all their intervals.")
    heads, rows = _wide(found, names, lines) if wide else _long(found, several=len(lines) > 1)
    alone = f" of {lines[0][0]}" if len(lines) == 1 and lines[0][0] else ""
    return Table(f"{caption}{alone}", heads, rows, tuple(notes))


Rows = tuple[tuple[Cell, ...], tuple[tuple[Cell, ...], ...]]


def _long(found: list[Metric], *, several: bool) -> Rows:
    top, rows = best(found), []
    for metric in found:
        decimals = digits([metric])
        where = (Cell(metric.row or "–"), Cell(metric.segment)) if several else ()
        value = replace(_value(metric, decimals, metric in top), note="")
        span = _or(interval(metric, decimals), "no interval")
        rows.append((Cell(_title(metric), header=True), *where, value, span, *_size(metric)))
    heads = [Cell("metric"), *([Cell("row"), Cell("segment")] if several else [])]
    numbers = [Cell(name, number=True) for name in ("value", "95 % interval", "n", "seed")]
    return _without_empty([*heads, *numbers], rows)


def _wide(found: list[Metric], names: list[str], lines: list[tuple[str, str]]) -> Rows:
    top, at = best(found), {(m.name, m.row, m.segment): m for m in found}
    columns = {name: [m for m in found if m.name == name] for name in names}
    rows = []
    for row, segment in lines:
        cells = [Cell(row or "–", header=True), Cell(segment)]
        for name in names:
            metric = at.get((name, row, segment))
            cells.append(_value(metric, digits(columns[name]), metric in top) if metric
                         else Cell("not measured", number=True, missing=True))  # fmt: skip
        rows.append(
            (*cells, *_size(next(m for m in found if (m.row, m.segment) == (row, segment))))
        )
    numbers = [_title(columns[name][0]) for name in names] + ["n", "seed"]
    heads = [Cell("row"), Cell("segment"), *(Cell(name, number=True) for name in numbers)]
    return _without_empty(heads, rows)


def _without_empty(heads: list[Cell], rows: list[tuple[Cell, ...]]) -> Rows:
    """Leave out columns in which no row has anything to say."""
    silent = {"row": {"–"}, "segment": {"all"}, "95 % interval": {"no interval"},
              "n": {"not given"}, "seed": {"not given"}}  # fmt: skip
    columns = zip(*rows, strict=True)
    keep = [i for i, (head, column) in enumerate(zip(heads, columns, strict=True))
            if i == 0 or {cell.text for cell in column} - silent.get(head.text, set())]  # fmt: skip
    return tuple(heads[i] for i in keep), tuple(tuple(row[i] for i in keep) for row in rows)


def _title(metric: Metric) -> str:
    unit = f" ({metric.unit})" if metric.unit else ""
    return f"{metric.name}{unit} {ARROWS[metric.better]}".rstrip()


def _value(metric: Metric, decimals: int, is_best: bool) -> Cell:
    if metric.value is None:
        return Cell("no value", number=True, missing=True)
    text = shown(metric.value, decimals)
    return Cell(text, note=interval(metric, decimals), number=True, best=is_best)


def _or(text: str, reason: str) -> Cell:
    return Cell(text or reason, number=True, missing=not text)


def _size(metric: Metric) -> tuple[Cell, Cell]:
    n = "" if metric.n is None else shown(metric.n)
    return _or(n, "not given"), _or(", ".join(map(str, metric.seeds)), "not given")


def data_table(path: Path, caption: str) -> Table:
    """A parquet file as a table; long ones and long texts are cut, and the notes say so."""
    import pyarrow.parquet as parquet  # 0.1 s, needed only where a page is rendered

    file = parquet.ParquetFile(path)
    total = file.metadata.num_rows
    batch = next(file.iter_batches(batch_size=MAX_ROWS), None)
    names = [name for name in file.schema_arrow.names if not name.startswith("__index_level")]
    columns = [_column(batch.column(name).to_pylist() if batch else []) for name in names]
    numeric = [all(cell.number or cell.missing for cell in column) for column in columns]
    heads = tuple(Cell(name, number=flag) for name, flag in zip(names, numeric, strict=True))
    columns = [[replace(cell, number=flag) for cell in column]
               for column, flag in zip(columns, numeric, strict=True)]  # fmt: skip
    rows = [(replace(row[0], header=True), *row[1:]) for row in zip(*columns, strict=True)]
    note = (f"The first {MAX_ROWS} of {shown(total)} rows.",) if total > MAX_ROWS else ()
    return Table(caption, heads, tuple(rows), note)


def _column(values: Sequence[object]) -> list[Cell]:
    """Floats get the fewest decimals that keep four significant digits of the largest."""
    floats = [v for v in values if isinstance(v, float) and math.isfinite(v)]
    largest = max(map(abs, floats), default=0.0)
    most = min(8, max(0, 3 - math.floor(math.log10(largest)))) if largest else 0
    same = [d for d in range(most) if all(round(v, d) == round(v, most) for v in floats)]
    decimals = min([*same, most])
    return [_plain(value, decimals) for value in values]


def _plain(value: object, decimals: int) -> Cell:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Cell("missing", missing=True)
    if isinstance(value, bool):
        return Cell("yes" if value else "no")
    if not isinstance(value, int | float):
        return Cell(cut(str(value), MAX_CHARACTERS))
    if not math.isfinite(value):
        return Cell("infinite" if value > 0 else "−infinite", number=True)
    return Cell(shown(value, decimals if isinstance(value, float) else 0), number=True)


def cut(text: str, length: int) -> str:
    """The first ``length`` characters, saying how many there were.

    >>> cut("abcdef", 3)
    'abc… (6 characters)'
    """
    return text if len(text) <= length else f"{text[:length]}… ({len(text)} characters)"
