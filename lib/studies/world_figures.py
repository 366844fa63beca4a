"""Pictures of a world's shape: how unequal its items and people are, how a rate runs over hours."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from lib.studies.figures import style

__all__ = ["plot_rates", "plot_spread"]


def plot_spread(popularity: ArrayLike, lengths: ArrayLike) -> Figure:
    """Purchases by rank of the item, and how many people have how many; both on log scales.

    >>> len(plot_spread([9, 3, 1], [4, 4, 5]).axes)
    2
    """
    counts = np.asarray(popularity)
    with style():
        figure = Figure(figsize=(8, 3.4))
        left, right = figure.subplots(1, 2)
        left.loglog(np.arange(1, len(counts) + 1), counts + 0.5, marker="")
        left.set(xlabel="item, most popular first", ylabel="purchases + ½", title="Popularity")
        right.hist(np.asarray(lengths), bins=40, log=True)
        right.set(xlabel="purchases of one person", ylabel="people", title="Length of histories")
    return figure


def plot_rates(places: Sequence[int], rates: ArrayLike, *, xlabel: str, ylabel: str) -> Figure:
    """A rate over ordered places, such as hours.

    >>> len(plot_rates([0, 1], [0.1, 0.2], xlabel="hour", ylabel="rate").axes)
    1
    """
    with style():
        figure = Figure()
        axes = figure.subplots()
        axes.plot(np.asarray(places), np.asarray(rates))
        axes.set(xlabel=xlabel, ylabel=ylabel)
    return figure
