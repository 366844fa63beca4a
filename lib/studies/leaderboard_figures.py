"""Pictures of the leaderboard: what language models add, and quality against cost."""

from collections.abc import Collection, Mapping

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from lib.studies.figures import COLOURS, name_dots, spread_costs, style

__all__ = ["gain_figure", "pareto_figure"]

LOOKS = {"better": (COLOURS[2], "^"), "worse": (COLOURS[1], "v"), "no difference shown": ("#6b737d", "o")}  # fmt: skip # noqa: E501


def gain_figure(table: pl.DataFrame) -> Figure:
    """Each comparison: a dot with its interval around nought; shape and colour say the verdict."""
    measured = table.filter(pl.col("gain").is_not_null())
    in_points = measured["points"].is_not_null().all()
    with style():
        figure = Figure(figsize=(8, 1.4 + 0.42 * max(2, len(measured))))
        axes = figure.subplots()
        for place, line in enumerate(measured.iter_rows(named=True)):
            unit = "points" if in_points else "gain"
            scale = 100 / (1 if in_points else line["base"] or 1.0)
            ends = [scale * line[f"{unit}_{end}" if in_points else end] for end in ("low", "high")]
            colour, marker = LOOKS[line["verdict"]]
            axes.plot(ends, [place, place], color=colour, marker="|", linewidth=2)
            axes.plot(scale * line[unit], place, marker, color=colour, markersize=8)
        for verdict, (colour, marker) in LOOKS.items():
            if verdict in measured["verdict"].to_list():
                axes.plot([], [], marker, color=colour, label=verdict)
        axes.axvline(0.0, color="#1d2126", linewidth=1, marker="")
        axes.set_yticks(range(len(measured)), [f"{row}\nagainst {other}" for row, other in
                        measured.select("row", "against").iter_rows()], fontsize=8.5)  # fmt: skip
        axes.set_ylim(max(1, len(measured)) - 0.5, -0.5)
        axes.set_xlabel("gain in % of the gap from the trivial row to the ceiling" if in_points
                        else "gain in % of the counterpart's value")  # fmt: skip
        axes.grid(axis="y", visible=False)
        if len(measured):
            figure.legend(loc="outside upper right", ncols=3)
    return figure


def pareto_figure(
    boards: Mapping[str, pl.DataFrame], marked: Collection[str], better: Mapping[str, str]
) -> Figure:
    """A panel per table: value against seconds, the front as a line, ``marked`` rows as stars.

    Names stand beside the front and the marked rows; ``better`` says which way is up.
    """
    with style():
        figure = Figure(figsize=(8, 3.9 * max(1, len(boards))))
        panels = figure.subplots(max(1, len(boards)), 1, squeeze=False).ravel()
        names = []
        for axes, (data, board) in zip(panels, boards.items(), strict=False):
            paid = board.filter(pl.col("seconds").is_not_null())
            up = "share" if paid["share"].is_not_null().any() else "value"
            named: dict[str, tuple[float, float]] = {}
            for line in paid.sort("seconds").iter_rows(named=True):
                star = line["row"] in marked
                seconds = max(float(line["seconds"]), 1e-3)
                colour = COLOURS[1] if star else COLOURS[0] if line["front"] else "#b9bec4"
                axes.plot(seconds, line[up], "*" if star else "o", color=colour,
                          markersize=11 if star else 7)  # fmt: skip
                if star or line["front"] or line["row"] == line["cheap"]:
                    named[line["row"]] = (seconds, line[up])
            front = paid.filter(pl.col("front")).sort("seconds")
            axes.plot(np.maximum(front["seconds"].to_numpy(), 1e-3), front[up].to_numpy(),
                      color=COLOURS[0], marker="", linewidth=1, linestyle="--")  # fmt: skip
            if up == "value" and better.get(data) == "lower":
                axes.invert_yaxis()
            axes.set(title=data, xlabel="seconds, with all that it stands on",
                     ylabel="share of the gap" if up == "share" else "value")  # fmt: skip
            axes.margins(x=0.25, y=0.15)
            spread_costs(axes)
            names.append(named)
        for axes, named in zip(panels, names, strict=False):  # now every panel has its place
            name_dots(axes, named)
    return figure
