"""Pictures of the ladder. Data in, figures out."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib.studies.figures import COLOURS, MARKERS, name_dots, spread_costs, style
from lib.studies.judging import Judged
from lib.studies.rungs import Rung

__all__ = ["cost_figure", "curve_figure", "grid_figure", "importance_figure", "recall_figure",
           "score_figure"]  # fmt: skip


def curve_figure(rungs: Sequence[Rung], *, ylabel: str = "Score on rows that choose") -> Figure:
    """A thin line per fold, coloured by rung."""
    with style():
        figure = Figure()
        axes = figure.subplots()
        for place, rung in enumerate(rungs):
            for number, curve in enumerate(rung.curves):
                axes.plot(np.arange(1, len(curve) + 1), curve, linewidth=1.2,
                          marker="o" if len(curve) == 1 else "",  # one epoch has no line
                          color=COLOURS[place % len(COLOURS)],
                          label=rung.name if number == 0 else None)  # fmt: skip
        axes.set(xlabel="epoch or round", ylabel=ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if any(len(rung.curves[0]) for rung in rungs if rung.curves):
            axes.legend()
    return figure


def importance_figure(table: pl.DataFrame) -> Figure:
    """Bars with the spread over folds, most important on top."""
    shown = table.reverse()
    with style():
        figure = Figure(figsize=(7, 0.8 + 0.24 * len(shown)))
        axes = figure.subplots()
        axes.barh(shown["feature"].to_list(), shown["share of gain"].to_list(),
                  xerr=shown["spread"].to_list(), error_kw={"linewidth": 1})  # fmt: skip
        axes.set_xlabel("share of gain, mean and spread over folds")
        axes.grid(axis="y", visible=False)
    return figure


def score_figure(
    judged: Sequence[Judged],
    *,
    metric: str,
    xlabel: str,
    notes: Mapping[str, str] | None = None,
    ceiling: float | None = None,
) -> Figure:
    """A line per rung: out of fold and hold-out with intervals; a note of what was decided."""
    names = list(dict.fromkeys(j.rung for j in judged))
    with style():
        figure = Figure(figsize=(8.5, 1.3 + 0.55 * len(names)))
        axes = figure.subplots()
        for offset, part, colour, marker in (
            (-0.14, "out of fold", COLOURS[0], MARKERS[0]),
            (0.14, "hold-out", COLOURS[1], MARKERS[1]),
        ):
            found = [j for j in judged if j.part == part and j.segment == "all"]
            for number, each in enumerate(found):
                place = names.index(each.rung) + offset
                interval = each.intervals[metric]
                axes.plot([interval.low, interval.high], [place, place], color=colour, marker="|")
                axes.plot(each.values[metric], place, marker=marker, color=colour, linestyle="",
                          label=part if number == 0 else None)  # fmt: skip
        if ceiling is not None:
            axes.axvline(ceiling, color=COLOURS[2], marker="", label="ceiling, hold-out")
        for place, name in enumerate(names):
            if notes and name in notes:
                axes.annotate(notes[name], (1.01, place), xycoords=("axes fraction", "data"),
                              va="center", fontsize=8)  # fmt: skip
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel(xlabel)
        axes.grid(axis="y", visible=False)
        figure.legend(loc="outside upper right", ncols=3)
    return figure


def grid_figure(values: Iterable[float], rows: Sequence[int], columns: Sequence[int]) -> Figure:
    """Average precision by embedding width (down) and cross layers (across), numbers in cells."""
    table = np.asarray(list(values)).reshape(len(rows), len(columns))
    with style():
        figure = Figure(figsize=(1.6 + 1.3 * len(columns), 1.4 + 0.7 * len(rows)))
        axes = figure.subplots()
        low, high = table.min(), table.max()
        step = high - low + 1e-9  # half of the colours: the dark ones would hide the numbers
        axes.imshow(table, cmap="Blues", aspect="auto", vmin=low - step, vmax=high + 2 * step)
        for (down, across), value in np.ndenumerate(table):
            axes.annotate(f"{value:.4f}", (across, down), ha="center", va="center")
        axes.set_xticks(range(len(columns)), [str(c) for c in columns])
        axes.set_yticks(range(len(rows)), [str(r) for r in rows])
        axes.set(xlabel="cross layers", ylabel="embedding width")
        axes.grid(visible=False)
    return figure


def recall_figure(hits: Mapping[str, Mapping[int, npt.NDArray[np.bool_]]]) -> Figure:
    """Recall against K, a line per retriever."""
    with style():
        figure = Figure()
        axes = figure.subplots()
        for name, each in hits.items():
            axes.plot(list(each), [float(found.mean()) for found in each.values()], label=name)
        axes.set(xlabel="K", ylabel="recall@K", ylim=(0, None))
        axes.set_xticks(sorted({k for each in hits.values() for k in each}))
        axes.legend()
    return figure


def cost_figure(table: pl.DataFrame) -> Figure:
    """Score against seconds of training, a named point per rung."""
    with style():
        figure = Figure()
        axes = figure.subplots()
        points = {row["rung"]: (max(float(row["seconds"]), 1e-2), float(row["score"]))
                  for row in table.rows(named=True)}  # fmt: skip
        for seconds, score in points.values():
            axes.plot(seconds, score, "o", color=COLOURS[0])
        axes.set(xlabel="seconds of training, all folds", ylabel="Score out of fold")
        axes.margins(x=0.2, y=0.1)
        spread_costs(axes)
        name_dots(axes, points)
    return figure
