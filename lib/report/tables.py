"""View models of tables: metrics with intervals, data frames from parquet. No HTML here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


from lib.report.results import Metric

__all__ = ["Cell", "Score", "Table", "data_table", "is_ceiling", "metric_table", "scores", "shown"]

MAX_ROWS, MAX_CHARACTERS = 100, 160
ARROWS = {"higher": " ↑", "lower": " ↓"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: text, a muted note behind it, and whether it is a number, a header, the best."""

    text: str
    note: str = ""
    number: bool = False
    header: bool = False
    best: bool = False
    missing: bool = False
    link: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    caption: str
    columns: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """A metric of one row over all its seeds: mean, and the span that covers every interval."""

    name: str
    row: str
    segment: str
    value: float | None
    low: float | None
    high: float | None
    n: int | None
    unit: str
    better: str | None
    seeds: tuple[int, ...] = field(default=())

    @property
    def gain(self) -> float:
        """The value with its sign turned so that more is better; missing values come last."""
        if self.value is None:
            return -math.inf
        return -self.value if self.better == "lower" else self.value


def is_ceiling(row: str) -> bool:
    """Rows that state what the true probabilities reach take no part in "best"."""
    return "ceiling" in row.lower()


def scores(metrics: Sequence[Metric]) -> list[Score]:
    """Put the seeds of one metric, row and segment together.

    >>> scores([Metric("auc", "A", "all", 0.7, seed=1), Metric("auc", "A", "all", 0.8, seed=2)])[0]
    Score(name='auc', row='A', segment='all', value=0.75, low=0.7, high=0.8, n=None, unit='', \
better=None, seeds=(1, 2))
    """
    groups: dict[tuple[str, str, str], list[Metric]] = {}
    for metric in metrics:
        groups.setdefault((metric.name, metric.row, metric.segment), []).append(metric)
    return [_score(group) for group in groups.values()]


def _score(group: list[Metric]) -> Score:
    first, values = group[0], [m.value for m in group if m.value is not None]
    lows = [m.low if m.low is not None else m.value for m in group]
    highs = [m.high if m.high is not None else m.value for m in group]
    has_interval = bool(values) and (len(values) > 1 or first.low is not None)
    return Score(
        first.name,
        first.row,
        first.segment,
        math.fsum(values) / len(values) if values else None,
        min((low for low in lows if low is not None), default=None) if has_interval else None,
        max((high for high in highs if high is not None), default=None) if has_interval else None,
        max((m.n for m in group if m.n is not None), default=None),
        first.unit,
        first.better,
        tuple(sorted({m.seed for m in group if m.seed is not None})),
    )


def digits(column: Sequence[Score]) -> int:
    """Decimals that show the interval's width with two digits; 4 significant ones without."""
    values = [s.value for s in column if s.value is not None]
    if all(value == round(value) for value in values):
        return 0
    widths = sorted(s.high - s.low for s in column if s.low is not None and s.high is not None)
    widths = [width for width in widths if width > 0]
    scale = widths[len(widths) // 2] if widths else max(map(abs, values)) / 100
    return min(8, max(0, 1 - math.floor(math.log10(scale)))) if scale else 3


def shown(value: float, decimals: int) -> str:
    """A number with fixed decimals and a real minus sign; thousands are set off from 10 000 on.

    >>> shown(-1234567.8, 1), shown(0.5, 3), shown(3000, 0)
    ('−1\\u202f234\\u202f567.8', '0.500', '3000')
    """
    if value and abs(value) < 10.0 ** -(decimals + 1):
        return f"{value:.1e}".replace("-", "−")
    text = f"{value:,.{decimals}f}".replace(",", "\u202f" if abs(value) >= 10_000 else "")
    return text.replace("-", "−")


def interval(score: Score, decimals: int) -> str:
    if score.low is None or score.high is None:
        return ""
    return f"[{shown(score.low, decimals)}, {shown(score.high, decimals)}]"


def metric_table(metrics: Sequence[Metric], caption: str) -> Table | None:
    """All metrics of a node: one line per metric, or one line per row where there are several."""
    found = scores(metrics)
    if not found:
        return None
    names = list(dict.fromkeys(s.name for s in found))
    lines = list(dict.fromkeys((s.row, s.segment) for s in found))
    dense = len(found) >= 0.5 * len(names) * len(lines)
    wide = len(lines) > 1 and dense and len(names) <= 12
    table = _wide(found, names, lines, caption) if wide else _long(found, caption)
    notes = [f"{arrow.strip()} {word} is better." for word, arrow in ARROWS.items()
             if any(s.better == word for s in found)]  # fmt: skip
    if any(s.low is not None for s in found):
        notes.append("Brackets: 95 % interval.")
    if any(len(s.seeds) > 1 for s in found):
        notes.append("Several seeds: their mean, and the span of all their intervals.")
    return Table(table.caption, table.columns, table.rows, tuple(notes))


def _long(found: list[Score], caption: str) -> Table:
    best = _best(found)
    several = len({(s.row, s.segment) for s in found}) > 1
    rows = []
    for score in found:
        decimals = digits([score])
        value = _value(score, decimals, score in best, with_interval=False)
        where = (Cell(score.row or "–"), Cell(score.segment)) if several else ()
        unit = f" ({score.unit})" if score.unit else ""
        name = Cell(score.name + unit + ARROWS.get(score.better or "", ""), header=True)
        span = interval(score, decimals)
        rows.append((name, *where, value, _text(span, "no interval"), *_size(score)))
    heads = ["metric", *(["row", "segment"] if several else []), "value", "95 % interval"]
    row = found[0].row
    caption = caption if several or not row else f"{caption} of {row}"
    return Table(caption, _heads([*heads, "n", "seeds"], numbers=len(heads) - 2), tuple(rows))


def _wide(
    found: list[Score], names: list[str], lines: list[tuple[str, str]], caption: str
) -> Table:
    best, at = _best(found), {(s.name, s.row, s.segment): s for s in found}
    columns = {name: [s for s in found if s.name == name] for name in names}
    segmented = len({segment for _, segment in lines}) > 1
    rows = []
    for row, segment in lines:
        cells = [Cell(row or "–", header=True), *([Cell(segment)] if segmented else [])]
        for name in names:
            score = at.get((name, row, segment))
            number = score and _value(score, digits(columns[name]), score in best)
            cells.append(number or Cell("not measured", missing=True))
        first = next(s for s in found if (s.row, s.segment) == (row, segment))
        rows.append((*cells, *_size(first)))
    heads = ["row", *(["segment"] if segmented else [])]
    titles = [_title(columns[name][0]) for name in names]
    return Table(caption, _heads([*heads, *titles, "n", "seeds"], len(heads)), tuple(rows))


def _title(score: Score) -> str:
    return (
        score.name + (f" ({score.unit})" if score.unit else "") + ARROWS.get(score.better or "", "")
    )


def _best(found: list[Score]) -> list[Score]:
    """The best rows of each metric and segment, where at least two compete."""
    groups: dict[tuple[str, str], list[Score]] = {}
    for score in found:
        if score.better and score.value is not None and not is_ceiling(score.row):
            groups.setdefault((score.name, score.segment), []).append(score)
    rivals = [group for group in groups.values() if len(group) > 1]
    return [s for group in rivals for s in group if s.gain == max(r.gain for r in group)]


def _value(score: Score, decimals: int, best: bool, *, with_interval: bool = True) -> Cell:
    if score.value is None:
        return Cell("no value", missing=True)
    note = interval(score, decimals) if with_interval else ""
    return Cell(shown(score.value, decimals), note=note, number=True, best=best)


def _text(text: str, missing: str) -> Cell:
    return Cell(text, number=True) if text else Cell(missing, missing=True)


def _size(score: Score) -> tuple[Cell, Cell]:
    n = "" if score.n is None else shown(score.n, 0)
    seeds = ", ".join(map(str, score.seeds))
    return _text(n, "not given"), _text(seeds, "not given")


def _heads(names: Sequence[str], numbers: int) -> tuple[Cell, ...]:
    return tuple(Cell(name, number=index >= numbers) for index, name in enumerate(names))


def data_table(path: Path, caption: str) -> Table:
    """A parquet file as a table; long ones and long texts are cut, and the caption says so."""
    import pyarrow.parquet as parquet  # 0.1 s, needed only where a page is rendered

    file = parquet.ParquetFile(path)
    total = file.metadata.num_rows
    batch = next(file.iter_batches(batch_size=MAX_ROWS), None)
    names = [name for name in file.schema_arrow.names if not name.startswith("__index_level")]
    lists = {name: batch.column(name).to_pylist() if batch else [] for name in names}
    columns = [_column(lists[name]) for name in names]
    numeric = [bool(column) and all(c.number or c.missing for c in column) for column in columns]
    heads = tuple(Cell(name, number=flag) for name, flag in zip(names, numeric, strict=True))
    rows = [list(row) for row in zip(*columns, strict=True)]
    for row in rows:
        row[0] = Cell(row[0].text, header=True, number=numeric[0], missing=row[0].missing)
    note = f"The first {MAX_ROWS} of {shown(total, 0)} rows." if total > MAX_ROWS else ""
    return Table(caption, heads, tuple(map(tuple, rows)), (note,) if note else ())


def _column(values: Sequence[object]) -> list[Cell]:
    """One column, floats with the decimals that four significant digits of the largest need."""
    floats = [v for v in values if isinstance(v, float) and math.isfinite(v)]
    largest = max(map(abs, floats), default=0.0)
    whole = all(v == round(v) for v in floats)
    decimals = 0 if whole else min(8, max(0, 3 - math.floor(math.log10(largest))))
    return [_plain(value, decimals) for value in values]


def _plain(value: object, decimals: int) -> Cell:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Cell("missing", missing=True)
    if isinstance(value, bool) or not isinstance(value, int | float):
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
