"""Pictures of a prepared dataset: what the filters left, and how long and how uneven it is."""

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from lib.data.histories import Histories
from lib.studies.figures import COLOURS, style

__all__ = ["plot_funnel", "plot_shape"]


def plot_funnel(steps: pl.DataFrame) -> Figure:
    """Rows left after each step in which users and items were counted, first step on top."""
    counted = steps.drop_nulls("users").reverse()
    with style():
        figure = Figure(figsize=(7, 0.9 + 0.4 * len(counted)))
        axes = figure.subplots()
        bars = axes.barh(counted["step"].to_list(), counted["rows"].to_list(), color=COLOURS[0])
        axes.bar_label(bars, fmt="{:,.0f}", padding=4, fontsize=8)
        axes.set_xlabel("rows left")
        axes.margins(x=0.12)
        axes.grid(axis="y", visible=False)
    return figure


def plot_shape(histories: Histories, longest: int = 60) -> Figure:
    """Left: how many interactions users have. Right: how often items were trained on, by rank."""
    counts = np.sort(histories.counts[1:])[::-1]
    with style():
        figure = Figure(figsize=(9, 3.2))
        left, right = figure.subplots(1, 2)
        left.hist(np.minimum(histories.lengths, longest), bins=30, color=COLOURS[0])
        left.set(xlabel=f"interactions of a user ({longest}: or more)", ylabel="users")
        ranks = np.arange(1, len(counts) + 1)
        right.loglog(ranks, np.maximum(counts, 0.5), color=COLOURS[0], marker="")
        right.set(xlabel="items by popularity", ylabel="training count (0.5: none)")
    return figure
