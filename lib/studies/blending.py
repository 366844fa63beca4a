"""Submissions side by side: who knows something that the others do not, and what weights do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.figure import Figure

from lib.evaluate import ensemble
from lib.evaluate.clicks import score
from lib.studies.figures import COLOURS, MARKERS, style
from lib.studies.submissions import align_submissions

__all__ = ["Entries", "agreement_figure", "open_entries", "score_entries", "weight_curves",
           "weight_figure"]  # fmt: skip

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Entries:
    """Submissions on the same ids, and the same models on labelled rows where all have them."""

    test: dict[str, Floats]
    labels: npt.NDArray[np.int8] | None
    held: dict[str, Floats]

    @property
    def names(self) -> list[str]:
        return list(self.test)


def open_entries(folders: Mapping[str, Path], wanted: Sequence[str]) -> Entries:
    """Read each folder's submission.csv and, where every folder has one, holdout.parquet.

    Held-out rows must be the same in all of them: a blend judged on other rows says nothing.
    """
    test = align_submissions(
        {n: folder / "submission.csv" for n, folder in folders.items()}, wanted
    )
    files = {name: folder / "holdout.parquet" for name, folder in folders.items()}
    if not all(file.is_file() for file in files.values()):
        return Entries(test, None, {})
    frames = {name: pl.read_parquet(file).sort("row") for name, file in files.items()}
    first_name, first = next(iter(frames.items()))
    for name, frame in frames.items():
        if not frame.select("row", "label").equals(first.select("row", "label")):
            raise ValueError(
                f"held-out rows of {name!r} ({len(frame)}) differ from those of {first_name!r} "
                f"({len(first)}); write both submissions from the same prepared dataset"
            )
    held = {name: frame["clicked"].to_numpy() for name, frame in frames.items()}
    return Entries(test, first["label"].to_numpy(), held)


def score_entries(entries: Entries) -> list[float]:
    """Score of each submission's model on the held-out rows; empty without labels."""
    if entries.labels is None:
        return []
    return [score(entries.labels, p) for p in entries.held.values()]


def weight_curves(entries: Entries, steps: int) -> pl.DataFrame:
    """Score on the held-out rows while one submission's weight goes from 0 to 1.

    The others share the rest equally, so the curves meet where all weights are equal.
    """
    assert entries.labels is not None
    names, said = entries.names, list(entries.held.values())
    lines = []
    for place, name in enumerate(names):
        for weight in np.linspace(0, 1, steps):
            weights = np.full(len(names), (1 - weight) / (len(names) - 1))
            weights[place] = weight
            found = score(entries.labels, ensemble.weighted(said, weights))
            lines.append({"submission": name, "weight": float(weight), "score": found})
    return pl.DataFrame(lines)


def weight_figure(curves: pl.DataFrame) -> Figure:
    """A line per submission over its weight."""
    with style():
        figure = Figure()
        axes = figure.subplots()
        names = curves["submission"].unique(maintain_order=True)
        for place, name in enumerate(names):
            part = curves.filter(submission=name)
            axes.plot(part["weight"], part["score"], label=name, color=COLOURS[place % 8],
                      marker=MARKERS[place % 8], markersize=4)  # fmt: skip
        axes.axvline(1 / len(names), color="#6b737d", linestyle=(0, (4, 3)), marker="",
                     linewidth=1)  # fmt: skip
        axes.set(xlabel="weight; the others share the rest", ylabel="Score, held-out rows")
        axes.legend()
    return figure


def agreement_figure(said: Mapping[str, Floats], *, most: int = 4_000, seed: int = 0) -> Figure:
    """The first two submissions row by row."""
    (first, a), (second, b), *_ = said.items()
    shown = np.random.default_rng(seed).permutation(len(a))[:most]
    with style():
        figure = Figure(figsize=(5, 4.6))
        axes = figure.subplots()
        axes.plot(a[shown], b[shown], linestyle="", marker=".", markersize=3, alpha=0.4)
        low, high = min(a.min(), b.min()), max(a.max(), b.max())
        axes.plot([low, high], [low, high], marker="", color="#6b737d", linewidth=1)
        axes.set(xlabel=first, ylabel=second)
    return figure
