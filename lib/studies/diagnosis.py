"""A click model beyond one number: where it is calibrated, what drifts, which events it reads."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib.data.clicks import Clicks
from lib.evaluate.logistic import to_logits
from lib.models.dare_click import DAREClick
from lib.studies.clicks import ClickSource, sigmoid
from lib.studies.figures import COLOURS, style
from lib.studies.rungs import Part, Rung
from lib.studies.sequence_clicks import Checkpoints

__all__ = ["attention_figure", "calibration_by_segment", "distribution_figure", "drift_table",
           "kept_by_age", "kept_figure", "kept_tokens", "rung_of_probabilities"]  # fmt: skip

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
AGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # events ago, upper ends


def rung_of_probabilities(like: Rung, name: str, oof: Floats, holdout: Floats) -> Rung:
    """A rung that says these true probabilities, such as the ceiling, on the rows of another."""
    return replace(
        like,
        name=name,
        oof=replace(like.oof, logits=to_logits(oof)),
        holdout=replace(like.holdout, logits=to_logits(holdout)),
        test=np.zeros(0), test_rows=np.zeros(0, np.int64), curves=[], epochs=[], parameters=0,
        seconds=0.0,
    )  # fmt: skip


def distribution_figure(rung: Rung) -> Figure:
    """Balanced probabilities of held-out rows with and without a click, each class to mass 1."""
    p, clicked = rung.balanced(rung.holdout.logits), rung.holdout.labels > 0
    edges = np.linspace(0, 1, 41)
    with style():
        figure = Figure()
        axes = figure.subplots()
        for mask, name, colour in zip(
            (~clicked, clicked), ("no click", "click"), COLOURS[:2], strict=True
        ):
            axes.hist(p[mask], bins=edges.tolist(), density=True, histtype="step", linewidth=1.8,
                      color=colour, label=f"{name} ({mask.sum():,})")  # fmt: skip
        axes.set(xlabel="balanced probability, held-out day", ylabel="density within the class")
        axes.legend()
    return figure


def calibration_by_segment(
    clicks: Clicks, part: Part, fields: Sequence[str], *, min_rows: int
) -> pl.DataFrame:
    """Clicks that were expected and that came, for each value of a field and kind of visitor.

    ``z``: (came − expected) in standard deviations of independent clicks with these chances.
    """
    p = sigmoid(part.logits)
    local = clicks.take(part.rows, max_len=1).categorical - clicks.field_offsets
    groups = {"visitor": part.segment} if len(np.unique(part.segment)) > 1 else {}
    for name in fields:
        if name not in clicks.fields:
            raise ValueError(f"fields: {name!r} is no field: {', '.join(clicks.fields)}")
        groups[name] = local[:, clicks.fields.index(name)].astype(str)
    lines = []
    for name, values in groups.items():
        for value in np.unique(values):
            mask = values == value
            if mask.sum() < min_rows:
                continue
            expected, came = p[mask].sum(), int((part.labels[mask] > 0).sum())
            spread = float(np.sqrt((p[mask] * (1 - p[mask])).sum()))
            lines.append(
                {"field": name, "value": value, "rows": int(mask.sum()), "expected": expected,
                 "came": came, "expected / came": expected / came if came else None,
                 "z": (came - expected) / spread}
            )  # fmt: skip
    return pl.DataFrame(lines, schema_overrides={"expected / came": pl.Float64})


def drift_table(clicks: Clicks, before: Ints, after: Ints) -> pl.DataFrame:
    """How far each column moved between two sets of rows.

    Fields: population stability index Σ (q − p) ln(q / p), half a row added to every id. Numbers:
    difference of means in standard deviations of ``before``.
    """
    old, new = (clicks.take(rows, max_len=1) for rows in (before, after))
    lines = []
    for place, name in enumerate(clicks.fields):
        offset, size = int(clicks.field_offsets[place]), int(clicks.field_sizes[place])
        shares = []
        for rows in (old, new):
            counts = np.bincount(rows.categorical[:, place] - offset, minlength=size) + 0.5
            shares.append(counts / counts.sum())
        index = float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
        lines.append({"column": name, "kind": "field", "stability index": index, "shift": None})
    deviation = old.numeric.std(axis=0, dtype=np.float64)
    moved = new.numeric.mean(axis=0, dtype=np.float64) - old.numeric.mean(axis=0, dtype=np.float64)
    shift = moved / np.where(deviation > 0, deviation, 1)
    lines += [
        {"column": name, "kind": "number", "stability index": None, "shift": float(value)}
        for name, value in zip(clicks.layout.numeric_names, shift, strict=True)
    ]
    schema = {"stability index": pl.Float64, "shift": pl.Float64}
    return pl.DataFrame(lines, schema_overrides=schema)


def attended(checkpoints: Checkpoints, rows: Ints) -> tuple[Ints, Ints, Ints, Floats]:
    """Over events that count: row, age (0 newest), token; and the weight, NaN where not kept."""
    model, max_len = checkpoints.models[0], checkpoints.recipe.max_len
    if not isinstance(model, DAREClick):
        raise ValueError(f"{type(model).__name__} has no DARE encoder to look into; give a model "
                         "of 60_train_dare_qnn with max_len above 0")  # fmt: skip
    batch = ClickSource(
        checkpoints.clicks, rows, batch=len(rows), seed=0, max_len=max_len, shuffle=False
    ).take(rows)
    with torch.no_grad():
        found = model.encoder.attend(batch)
        weights = torch.full(found.scores.shape, torch.nan)
        kept = torch.where(found.kept.counted, found.weights, torch.nan)
        weights.scatter_(1, found.kept.places, kept)
        ages = model.encoder.ages(batch)
    row, place = found.counted.nonzero(as_tuple=True)
    return (
        row.numpy(),
        ages[row, place].numpy(),
        batch["sequence"][row, place].long().numpy(),
        weights[row, place].double().numpy(),
    )


def kept_by_age(checkpoints: Checkpoints, rows: Ints) -> pl.DataFrame:
    """Of the events of an age, which share is kept, and how much weight each of those gets."""
    _, ages, _, weights = attended(checkpoints, rows)
    bucket = np.searchsorted(AGES, ages, side="right")
    kept = ~np.isnan(weights)
    lines = []
    for number in np.unique(bucket):
        here = bucket == number
        low, high = (0, *AGES)[number], (*AGES, 1 << 30)[number] - 1
        some = weights[here & kept]
        lines.append(
            {"events ago": str(low) if low == high else f"{low}-{high}", "events": int(here.sum()),
             "kept": float(kept[here].mean()), "weight": float(some.mean()) if len(some) else None}
        )  # fmt: skip
    return pl.DataFrame(lines, schema_overrides={"weight": pl.Float64})


def kept_tokens(checkpoints: Checkpoints, rows: Ints, *, most: int = 12) -> pl.DataFrame:
    """Which tokens draw the most weight for how often they occur; tokens as in the file."""
    _, _, tokens, weights = attended(checkpoints, rows)
    drawn = np.nan_to_num(weights)
    size = int(tokens.max(initial=0)) + 1
    events = np.bincount(tokens, minlength=size)
    mass = np.bincount(tokens, weights=drawn, minlength=size)
    least = max(10, len(tokens) // (20 * max(1, int((events > 0).sum()))))
    frame = pl.DataFrame({"token": np.arange(size) - 2, "events": events, "mass": mass})
    frame = frame.filter(pl.col("events") >= least)
    share = (pl.col("mass") / mass.sum()) / (pl.col("events") / events.sum())
    return frame.select("token", "events", share.alias("weight over frequency")).sort(
        "weight over frequency", descending=True
    )[:most]


def kept_figure(table: pl.DataFrame) -> Figure:
    """Bars of the share kept by age."""
    with style():
        figure = Figure()
        axes = figure.subplots()
        axes.bar(table["events ago"].to_list(), table["kept"].to_list())
        axes.set(xlabel="events ago, 0 is the newest", ylabel="share of events kept")
        axes.grid(axis="x", visible=False)
    return figure


def attention_figure(checkpoints: Checkpoints, rows: Ints) -> Figure:
    """A line per visitor, newest event left; grey was read and not kept."""
    row, ages, _, weights = attended(checkpoints, rows)
    image = np.full((len(rows), int(ages.max(initial=0)) + 1), np.nan)
    there = np.zeros_like(image)
    image[row, ages], there[row, ages] = weights, 1.0
    with style():
        figure = Figure(figsize=(8, 1.2 + 0.22 * len(rows)))
        axes = figure.subplots()
        axes.imshow(np.where(there > 0, 0.25, np.nan), cmap="Greys", vmin=0, vmax=1, aspect="auto",
                    interpolation="nearest")  # fmt: skip
        drawn = axes.imshow(image, cmap="viridis", aspect="auto", interpolation="nearest")
        figure.colorbar(drawn, label="weight")
        axes.set(xlabel="events ago", ylabel="visitor")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=False)
    return figure
