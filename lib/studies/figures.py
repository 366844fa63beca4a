"""The plots many notebooks share, and their style. Data in, ``Figure`` out; nothing is saved here.

Colours are those of Okabe and Ito, which stay apart for colour-blind readers; series also differ by
marker. Cards are white, because the pages show them on white in light and dark.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike

__all__ = ["COLOURS", "MARKERS", "Row", "name_dots", "plot_cost", "plot_groups",
           "plot_intervals", "plot_learning", "plot_reliability", "spread_costs",
           "style"]  # fmt: skip

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
INK, SOFT = "#1d2126", "#6b737d"

STYLE: Any = {
    "figure.facecolor": "white", "figure.dpi": 100, "savefig.dpi": 150, "figure.figsize": (7, 3.9),
    "figure.constrained_layout.use": True, "font.size": 10, "axes.titlesize": 11,
    "axes.titlelocation": "left", "axes.titleweight": "bold", "axes.titlepad": 10,
    "axes.edgecolor": SOFT, "axes.labelcolor": INK, "text.color": INK, "axes.linewidth": 0.8,
    "xtick.color": SOFT, "ytick.color": SOFT, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": "#e6e6e6", "grid.linewidth": 0.7, "axes.axisbelow": True,
    "legend.frameon": False, "lines.linewidth": 1.8, "lines.markersize": 5,
    "axes.prop_cycle": cycler(color=COLOURS) + cycler(marker=MARKERS),
}  # fmt: skip


class Row(NamedTuple):
    """One line of ``plot_intervals``."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None


@contextmanager
def style() -> Iterator[None]:
    """Draw in the house style inside the ``with`` block, and in no other place."""
    with mpl.rc_context(STYLE):
        yield


def plot_learning(
    curves: Mapping[str, Sequence[float]], *, ylabel: str, xlabel: str = "epoch",
    best: Mapping[str, int] | None = None, first: int = 1,
) -> Figure:  # fmt: skip
    """One line per named curve; ``best`` rings the step that was kept, ``first`` is the step of the
    first value: 0 where that one was measured before training.

    >>> len(plot_learning({"train": [0.7, 0.6], "valid": [0.7, 0.65]}, ylabel="loss").axes)
    1
    """
    with style():
        figure = Figure()
        axes = figure.subplots()
        for name, values in curves.items():
            steps = np.arange(first, first + len(values))
            (line,) = axes.plot(steps, values, label=name, markevery=max(1, len(values) // 12))
            if best and name in best:  # the colour is told, else the ring takes the next line's
                kept = best[name]
                axes.plot(kept, values[kept - first], "o", markersize=12, markerfacecolor="none",
                          color=line.get_color())  # fmt: skip
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if len(curves) > 1:  # beside the lines: inside it would lie on them
            figure.legend(loc="outside right upper")
    return figure


def plot_intervals(
    rows: Sequence[Row], *, xlabel: str, baseline: float | None = None, ceiling: float | None = None
) -> Figure:
    """A dot with its interval per row, first row on top; lines for the baseline and the ceiling.

    >>> [text.get_text() for text in plot_intervals([Row("A", 0.7)], xlabel="AUC").axes[0].texts]
    ['0.7000']
    """
    with style():
        figure = Figure(figsize=(7, 1.1 + 0.34 * max(2, len(rows))))
        axes = figure.subplots()
        for place, row in enumerate(rows):
            if row.low is not None and row.high is not None:
                axes.plot([row.low, row.high], [place, place], color=COLOURS[0], marker="|",
                          markersize=7, linewidth=2)  # fmt: skip
            axes.plot(row.value, place, "o", color=COLOURS[0], markersize=7)
            axes.annotate(f"{row.value:z.4f}", (row.value, place), xytext=(0, 6),
                          textcoords="offset points", ha="center", fontsize=8)  # fmt: skip
        for value, name, colour, dashes in (
            (baseline, "baseline", SOFT, (0, (4, 3))), (ceiling, "ceiling", COLOURS[1], "-")
        ):  # fmt: skip
            if value is not None:
                axes.axvline(value, color=colour, linestyle=dashes, linewidth=1.3, marker="")
                axes.annotate(f"{name} {value:.4f}" if value else f"{name} 0", (value, 1),
                              xycoords=("data", "axes fraction"), xytext=(0, 3),
                              textcoords="offset points", ha="center", va="bottom",
                              color=colour, fontsize=8.5)  # fmt: skip
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.7)
        axes.set_xlabel(xlabel)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.08)
    return figure


def plot_cost(points: Mapping[str, tuple[float, float]], *, xlabel: str, ylabel: str) -> Figure:
    """What each row costs (x, logarithmic) and what it reaches (y), each dot with its name.

    >>> len(plot_cost({"A": (3.0, 0.1)}, xlabel="s", ylabel="NDCG").axes[0].texts)
    1
    """
    with style():
        figure = Figure()
        axes = figure.subplots()
        for place, (cost, value) in enumerate(points.values()):
            axes.plot(cost, value, MARKERS[place % 8], color=COLOURS[place % 8], markersize=8)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.margins(x=0.2, y=0.15)
        spread_costs(axes)
        name_dots(axes, points)
    return figure


def spread_costs(axes: Axes) -> None:
    """A logarithmic axis of costs with its numbers written out, 2 and 5 too where there is room."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def name_dots(axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Write each name beside its dot, as near as it fits without covering a dot or another name.

    A name that had to move away is joined to its dot by a thin line.

    >>> from lib.studies.figures import plot_cost
    >>> near = plot_cost({"one": (10.0, 0.5), "other": (10.1, 0.5)}, xlabel="s", ylabel="AUC")
    >>> first, second = (text.get_window_extent() for text in near.axes[0].texts[:2])
    >>> bool(first.overlaps(second))
    False
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # dots have their places from here on
    dots = [axes.transData.transform(np.column_stack(line.get_data())) for line in axes.get_lines()]
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for places in dots for x, y in places]
    for name, xy in sorted(points.items(), key=lambda point: -point[1][0]):  # room is on the right
        text = axes.annotate(name, xy, (7, 6), textcoords="offset points", fontsize=8, va="center")
        for height in (away * side for away in range(6, 200, 3) for side in (1, -1)):
            text.xyann = (7, height)
            if not any(text.get_window_extent().overlaps(box) for box in taken):
                break
        taken.append(text.get_window_extent())
        if abs(text.xyann[1]) > 12:
            line = {"arrowstyle": "-", "color": SOFT, "linewidth": 0.6}
            axes.annotate("", xy, xytext=text.xyann, textcoords="offset points", arrowprops=line)


def plot_reliability(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]], *, log: bool = False
) -> Figure:
    """Observed against predicted rate per bin; ``curves``: name -> (predicted, observed, count).

    Dots grow with the number of rows behind them; ``log`` suits rare events.
    """
    with style():
        figure = Figure(figsize=(5.2, 4.8))
        axes = figure.subplots()
        for place, (name, (predicted, observed, count)) in enumerate(curves.items()):
            counts = np.asarray(count, dtype=float)
            sizes = 12 + 90 * counts / max(counts.max(initial=0), 1)
            colour, mark = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
            axes.plot(predicted, observed, color=colour, marker="", linewidth=1)
            axes.scatter(predicted, observed, s=sizes, color=colour, marker=mark, label=name,
                         edgecolors="white", linewidths=0.6)  # fmt: skip
        if log:
            axes.set(xscale="log", yscale="log")
        low = min(axes.get_xlim()[0], axes.get_ylim()[0])
        high = max(axes.get_xlim()[1], axes.get_ylim()[1])
        axes.plot([low, high], [low, high], color=SOFT, linestyle="--", marker="", linewidth=1,
                  label="perfect", zorder=0)  # fmt: skip
        axes.set(xlabel="predicted probability", ylabel="observed rate", xlim=(low, high),
                 ylim=(low, high), aspect="equal")  # fmt: skip
        axes.legend()
    return figure


def plot_groups(
    panels: Mapping[str, ArrayLike], groups: Sequence[str], *, seed: int = 0, max_points: int = 4000
) -> Figure:
    """Points in two dimensions, one panel per map (perplexity, seed, model), coloured by group.

    Groups beyond the eight largest are drawn together as "other". Axes carry no numbers, because
    sizes and distances of clusters mean nothing in a t-SNE map.
    """
    names = np.asarray(groups, dtype=str)
    labels, counts = np.unique(names, return_counts=True)
    main = labels[np.argsort(-counts, kind="stable")][: len(COLOURS) - (len(labels) > len(COLOURS))]
    keep = np.arange(len(names))
    if len(keep) > max_points:
        keep = np.random.default_rng(seed).choice(len(keep), max_points, replace=False)
    with style():
        down, across = -(-len(panels) // 2), min(2, len(panels))
        figure = Figure(figsize=(3.9 * across + 1.6, 3.7 * down))
        grid = figure.subplots(down, across, squeeze=False).ravel()
        size = float(np.clip(6000 / max(1, len(keep)), 6, 30))
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        for axes, (title, points) in zip(grid, panels.items(), strict=False):
            xy, chosen = np.asarray(points)[keep], names[keep]
            for place, label in enumerate([*main, "other"]):
                mask = chosen == label if label in main else ~np.isin(chosen, main)
                colour = "#b9bec4" if label not in main else COLOURS[place]
                if mask.any():
                    axes.scatter(xy[mask, 0], xy[mask, 1], s=size, color=colour, label=label,
                                 marker=MARKERS[place % 8], alpha=0.75, linewidths=0)  # fmt: skip
            axes.set(title=title, xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", markerscale=2)
    return figure
