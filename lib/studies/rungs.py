"""A rung of the ladder: what one model said of rows it never saw, what it cost, what was decided.

A rung's folder holds ``oof.parquet`` (row, fold, label, segment, logit), ``holdout.parquet``,
``test.npy`` with ``test_rows.npy``, ``config.json``, ``statistics.json``, ``rung.json`` and
``models/`` with weights and logs. Logits are of the true probability everywhere; the balanced one
is the same logit shifted by the click rate of the training rows.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from lib.data.files import open_manifest, read_json, write_atomic, write_json, write_manifest
from lib.evaluate.clicks import describe_predictions
from lib.evaluate.gates import Decision
from lib.studies.click_view import ReadsClicks
from lib.studies.clicks import balancing_shift, sigmoid
from lib.studies.crossfit import Folds, Protocol

__all__ = ["Part", "Rung", "make_rung", "open_rung", "prediction_statistics", "save_rung",
           "segment_rows", "statistics_table"]  # fmt: skip

KIND = "rung"
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Labelled rows, and what the model says of them."""

    rows: Ints
    labels: npt.NDArray[np.int8]
    segment: npt.NDArray[np.str_]  # "new" or "returning"; all "" where there is no sequence
    logits: Floats

    def within(self, segment: str) -> "Part":
        """The rows of one segment; of all for "all"."""
        if segment == "all":
            return self
        kept = self.segment == segment
        return Part(rows=self.rows[kept], labels=self.labels[kept], segment=self.segment[kept],
                    logits=self.logits[kept])  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Rung:
    name: str
    oof: Part
    fold: npt.NDArray[np.int16]  # of each row of oof
    holdout: Part
    test_rows: Ints
    test: Floats
    rate: float  # click rate of the training rows
    seconds: float
    parameters: int
    epochs: list[int]
    curves: list[list[float]]

    def balanced(self, logits: Floats) -> Floats:
        """Balanced probabilities of logits of the true one."""
        return sigmoid(logits + balancing_shift(self.rate))

    @property
    def segments(self) -> list[str]:
        """ "all", and the others that have rows."""
        return ["all", *sorted({name for name in np.unique(self.oof.segment) if name})]


def segment_rows(clicks: ReadsClicks, rows: Ints, *, new_below: int) -> npt.NDArray[np.str_]:
    """ "new" for a visitor with fewer than ``new_below`` events, else "returning".

    The log names no visitor, so the length of the behaviour sequence stands for acquaintance.
    """
    if not clicks.layout.n_tokens:
        return np.full(len(rows), "")
    found = clicks.take(rows, max_len=max(new_below, 1)).sequence
    assert found is not None
    return np.where(np.diff(found[0]) < new_below, "new", "returning")


def make_rung(
    name: str, folds: Folds, clicks: ReadsClicks, protocol: Protocol, *, new_below: int
) -> Rung:
    """Put the answers of the folds beside labels and segments; the folds' models vote by logit."""
    holdout = protocol.holdout
    train = clicks.rows("train")
    return Rung(
        name=name,
        oof=_part(clicks, folds.rows, folds.logits, new_below),
        fold=folds.fold,
        holdout=_part(clicks, holdout, folds.holdout.mean(axis=0), new_below),
        test_rows=protocol.test,
        test=folds.test.mean(axis=0),
        rate=float(np.mean(np.asarray(clicks.label[train]) > 0)),
        seconds=folds.seconds,
        parameters=folds.parameters,
        epochs=folds.epochs,
        curves=folds.curves,
    )


def _part(clicks: ReadsClicks, rows: Ints, logits: Floats, new_below: int) -> Part:
    return Part(
        rows=rows,
        labels=np.asarray(clicks.label[rows]),
        segment=segment_rows(clicks, rows, new_below=new_below),
        logits=logits,
    )


def save_rung(
    folder: Path,
    rung: Rung,
    *,
    config: Mapping[str, Any],
    decisions: Mapping[str, Decision] | None = None,
) -> None:
    """Write the folder of a rung; models and logs stand in it already."""
    oof = _frame(rung.oof).with_columns(pl.Series("fold", rung.fold))
    for name, frame in (("oof", oof), ("holdout", _frame(rung.holdout))):
        write_atomic(folder / f"{name}.parquet", lambda file, f=frame: f.write_parquet(file))  # type: ignore[misc]
    for name, array in (("test", rung.test), ("test_rows", rung.test_rows)):
        write_atomic(folder / f"{name}.npy", lambda file, a=array: np.save(file, a))  # type: ignore[misc]
    write_json(folder / "config.json", dict(config))
    write_json(folder / "statistics.json", prediction_statistics(rung))
    told = {
        "name": rung.name, "rate": rung.rate, "seconds": rung.seconds, "epochs": rung.epochs,
        "parameters": rung.parameters, "curves": rung.curves,
        "decisions": {name: asdict(each) for name, each in (decisions or {}).items()},
    }  # fmt: skip
    write_json(folder / "rung.json", told)
    write_manifest(folder, KIND, {"counts": {"oof": len(rung.oof.rows)}})


def open_rung(folder: Path) -> tuple[Rung, dict[str, Any]]:
    """A rung as another notebook left it, and its decisions."""
    open_manifest(folder, KIND)
    told = cast(dict[str, Any], read_json(folder / "rung.json"))
    oof = pl.read_parquet(folder / "oof.parquet")
    return Rung(
        name=told["name"],
        oof=_of_frame(oof),
        fold=oof["fold"].to_numpy(),
        holdout=_of_frame(pl.read_parquet(folder / "holdout.parquet")),
        test_rows=np.load(folder / "test_rows.npy", allow_pickle=False),
        test=np.load(folder / "test.npy", allow_pickle=False),
        rate=told["rate"],
        seconds=told["seconds"],
        parameters=told["parameters"],
        epochs=told["epochs"],
        curves=told["curves"],
    ), told["decisions"]


def prediction_statistics(rung: Rung) -> dict[str, dict[str, float]]:
    """Mean, spread and quantiles of both outputs on each set of rows."""
    sets = {"out of fold": rung.oof.logits, "hold-out": rung.holdout.logits, "test": rung.test}
    return {
        f"{name}, {kind}": describe_predictions(probability)
        for name, logits in sets.items()
        if len(logits)
        for kind, probability in (("true", sigmoid(logits)), ("balanced", rung.balanced(logits)))
    }


def statistics_table(rung: Rung) -> pl.DataFrame:
    """One line per output and set of rows."""
    return pl.DataFrame([{"output": k, **row} for k, row in prediction_statistics(rung).items()])


def _frame(part: Part) -> pl.DataFrame:
    return pl.DataFrame(
        {"row": part.rows, "label": part.labels, "segment": part.segment.astype(str),
         "logit": part.logits}
    )  # fmt: skip


def _of_frame(frame: pl.DataFrame) -> Part:
    return Part(
        rows=frame["row"].to_numpy(),
        labels=frame["label"].to_numpy(),
        segment=frame["segment"].to_numpy().astype(str),
        logits=frame["logit"].to_numpy(),
    )
