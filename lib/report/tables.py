"""View models of tables: metrics with intervals, data frames from parquet. No HTML here."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lib.report.metrics import Metric
from lib.report.text import cut, short

__all__ = ["Cell", "Table", "best", "data_table", "digits", "interval", "metric_cell",
           "metric_tables", "plain_table", "shown"]  # fmt: skip

MAX_ROWS, MAX_CHARACTERS, MAX_METRICS = 100, 160, 12
ARROWS = {"higher": "↑", "lower": "↓", None: ""}
Row = tuple["Cell", ...]


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
    heads: Sequence[str]
    rows: Sequence[Row]
    notes: Sequence[str] = ()

    @property
    def columns(self) -> Row:
        """The heads as cells: to the right where numbers stand below."""
        numeric = [any(row[i].number for row in self.rows) for i in range(len(self.heads))]
        return tuple(Cell(head, number=n) for head, n in zip(self.heads, numeric, strict=True))


def digits(column: Iterable[Metric]) -> int:
    """Decimals that show half an interval's width with two digits; else 4 significant ones."""
    column = list(column)
    values = [m.value for m in column]
    if all(value == round(value) for value in values):
        return 0
    widths = sorted(m.high - m.low for m in column if m.low is not None and m.high is not None)
    widths = [width for width in widths if width > 0]
    scale = widths[len(widths) // 2] / 2 if widths else max(map(abs, values)) / 100
    return min(8, max(0, 1 - math.floor(math.log10(scale))))


def shown(value: float | None, decimals: int = 0) -> str:
    """A number with fixed decimals and a real minus sign; thousands are set off from 10 000 on.

    >>> shown(-1234567.8, 1), shown(0.5, 3), shown(3000), shown(None)
    ('−1\\u202f234\\u202f567.8', '0.500', '3000', '')
    """
    if value is None:
        return ""
    if value and abs(value) < 10.0 ** -(decimals + 1):
        return f"{value:.1e}".replace("-", "−")
    text = f"{value:,.{decimals}f}".replace(",", "\u202f" if abs(value) >= 10_000 else "")
    return text.replace("-", "−")


def interval(metric: Metric, decimals: int) -> str:
    if metric.low is None or metric.high is None:
        return ""
    return f"[{shown(metric.low, decimals)}, {shown(metric.high, decimals)}]"


def number(text: str, gap: str = "") -> Cell:
    """A cell for a number, or for the reason why there is none."""
    return Cell(text or gap, number=True, missing=not text)


def metric_cell(
    metric: Metric | None, decimals: int, *, gap: str = "", is_best: bool = False
) -> Cell:
    """The value of a metric with its interval."""
    if metric is None:
        return number("", gap)
    text, note = shown(metric.value, decimals), interval(metric, decimals)
    return Cell(text, note, number=True, best=is_best)


def best(metrics: Iterable[Metric]) -> list[Metric]:
    """The best rows of each metric, segment and set of rows, where at least two compete."""
    groups: dict[object, list[Metric]] = {}
    for metric in metrics:
        if metric.better and not metric.is_ceiling:
            groups.setdefault((metric.name, metric.segment, metric.n), []).append(metric)
    rivals = [group for group in groups.values() if len(group) > 1]
    return [m for group in rivals for m in group if m.gain == max(r.gain for r in group)]


def metric_tables(metrics: Sequence[Metric]) -> list[Table]:
    """All metrics of a node: those over everything first, then those of segments."""
    parts = {"Metrics": [m for m in metrics if m.segment == "all"],
             "Metrics by segment": [m for m in metrics if m.segment != "all"]}  # fmt: skip
    return [_metric_table(caption, part) for caption, part in parts.items() if part]


def _metric_table(caption: str, found: list[Metric]) -> Table:
    """One line per metric, or one per row where several rows compare."""
    names = list(dict.fromkeys(m.name for m in found))
    lines = list(dict.fromkeys((m.row, m.segment) for m in found))
    dense = 2 * len(found) >= len(names) * len(lines)
    notes = [f"{ARROWS[word]} {word} is better." for word in ("higher", "lower")
             if any(m.better == word for m in found)]  # fmt: skip
    notes += ["Brackets: 95 % interval."] if any(m.low is not None for m in found) else []
    top = best(found)
    if len(lines) > 1 and dense and len(names) <= MAX_METRICS:
        heads, rows = _wide(found, top, names, lines)
    else:
        heads, rows = _long(found, top)
    alone = f" of {lines[0][0]}" if len(lines) == 1 and lines[0][0] else ""
    # columns in which no row has anything to say are left out
    silent = {"row": {"–", lines[0][0] if alone else ""}, "segment": {"all"},
              "n": {"not given"}, "seed": {"not given"}}  # fmt: skip
    keep = [i for i, head in enumerate(heads)
            if i == 0 or {row[i].text for row in rows} - silent.get(head, set())]  # fmt: skip
    return Table(f"{caption}{alone}", [heads[i] for i in keep],
                 [tuple(row[i] for i in keep) for row in rows], notes)  # fmt: skip


def _long(found: list[Metric], top: list[Metric]) -> tuple[list[str], list[Row]]:
    rows = list[Row]()
    for metric in found:
        value = metric_cell(metric, digits([metric]), is_best=metric in top)
        where = (Cell(metric.row or "–"), Cell(metric.segment))
        rows.append((Cell(_title(metric), header=True), *where, value, *_size(metric)))
    return ["metric", "row", "segment", "value", "n", "seed"], rows


def _wide(
    found: list[Metric], top: list[Metric], names: list[str], lines: list[tuple[str, str]]
) -> tuple[list[str], list[Row]]:
    columns = [[m for m in found if m.name == name] for name in names]
    rows = list[Row]()
    for line in lines:
        at = {m.name: m for m in found if (m.row, m.segment) == line}
        cells = [metric_cell(metric, digits(column), gap="not measured", is_best=metric in top)
                 for column in columns for metric in [at.get(column[0].name)]]  # fmt: skip
        size = _size(next(iter(at.values())))
        rows.append((Cell(line[0] or "–", header=True), Cell(line[1]), *cells, *size))
    return ["row", "segment", *(_title(column[0]) for column in columns), "n", "seed"], rows


def _title(metric: Metric) -> str:
    unit = f" ({metric.unit})" if metric.unit else ""
    return f"{metric.name}{unit} {ARROWS[metric.better]}".rstrip()


def _size(metric: Metric) -> tuple[Cell, Cell]:
    seed = "" if metric.seed is None else str(metric.seed)
    return number(shown(metric.n), "not given"), number(seed, "not given")


def plain_table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Values as they are; what is empty says so."""
    lines = [(Cell(short(first), header=True),
              *(Cell("none", missing=True) if v in (None, "") else Cell(short(v)) for v in rest))
             for first, *rest in rows]  # fmt: skip
    return Table(caption, heads, lines)


def data_table(path: Path, caption: str) -> Table:
    """A parquet file as a table; long ones and long texts are cut, and the notes say so."""
    import pyarrow.parquet as parquet  # 0.1 s, needed only where a page is rendered

    file = parquet.ParquetFile(path)
    total = file.metadata.num_rows
    batch = next(file.iter_batches(batch_size=MAX_ROWS), None)
    heads = [name for name in file.schema_arrow.names if not name.startswith("__index_level")]
    columns = [_column(batch.column(name).to_pylist()) for name in heads] if batch else []
    rows = [(replace(first, header=True), *rest) for first, *rest in zip(*columns, strict=True)]
    note = (f"The first {MAX_ROWS} of {shown(total)} rows.",) if total > MAX_ROWS else ()
    return Table(caption, heads, tuple(rows), note)


def _column(values: Sequence[object]) -> list[Cell]:
    """Floats get the fewest decimals that keep four significant digits of the largest."""
    floats = [v for v in values if isinstance(v, float) and math.isfinite(v)]
    largest = max(map(abs, floats), default=0.0)
    most = min(8, max(0, 3 - math.floor(math.log10(largest)))) if largest else 0
    same = [d for d in range(most) if all(round(v, d) == round(v, most) for v in floats)]
    cells = [_plain(value, min([*same, most])) for value in values]
    numeric = all(cell.number or cell.missing for cell in cells)
    return [replace(cell, number=numeric) for cell in cells]


def _plain(value: object, decimals: int) -> Cell:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Cell("missing", missing=True)
    if isinstance(value, bool):
        return Cell("yes" if value else "no")
    if not isinstance(value, int | float):
        return Cell(cut(value, MAX_CHARACTERS))
    if not math.isfinite(value):
        return Cell("infinite" if value > 0 else "−infinite", number=True)
    return Cell(shown(value, decimals if isinstance(value, float) else 0), number=True)
