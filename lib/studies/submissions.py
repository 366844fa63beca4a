"""Submissions: ``ID,clicked`` read, checked against the rows asked for, combined, written.

Every ID exactly once, none missing, none foreign, every probability a number from 0 to 1; what is
wrong is refused with the first five named.  A file lists its rows in the order of the sample.

Combining is one function for folds and for whole submissions.  ``rank_average`` is an order
without a scale, while Score holds a loss: its order takes the sorted values of the logit mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from lib.data.files import write_atomic
from lib.evaluate import ensemble

__all__ = ["METHODS", "Combine", "Method", "align_submissions", "blend_all", "check_ids", "combine",
           "disagreement_table", "read_sample", "read_submission", "write_submission"]  # fmt: skip

Floats = npt.NDArray[np.float64]
Method = Literal["logit_mean", "mean", "geometric", "median", "trimmed", "rank_average", "weighted"]
METHODS: tuple[Method, ...] = get_args(Method)
SHOWN = 5  # wrong ids named in an error


@dataclass(frozen=True, kw_only=True, slots=True)
class Combine:
    """How several predictions become one.

    ``weights`` of the method "weighted", or () to take them from validation scores: softmax over
    ``temperature``.  ``trim``: share cut at each end by "trimmed".
    """

    method: Method
    trim: float = 0.2
    weights: tuple[float, ...] = ()
    temperature: float = 0.01

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method={self.method!r}: expected one of {', '.join(METHODS)}")


def combine(models: Sequence[Floats], how: Combine, scores: Sequence[float] = ()) -> Floats:
    """Probabilities of several models into one.  (M, N) -> (N,)

    >>> combine([np.array([0.5]), np.array([0.9])], Combine(method="logit_mean")).round(6).tolist()
    [0.75]
    """
    if how.method == "weighted":
        return ensemble.weighted(models, combining_weights(how, scores))
    if how.method == "trimmed":
        return ensemble.trimmed(models, how.trim)
    if how.method == "rank_average":
        return with_order_of(ensemble.rank_average(models), ensemble.logit_mean(models))
    plain = {"mean": ensemble.mean, "median": ensemble.median, "geometric": ensemble.geometric,
             "logit_mean": ensemble.logit_mean}  # fmt: skip
    return plain[how.method](models)


def combining_weights(how: Combine, scores: Sequence[float] = ()) -> Floats:
    """The shares of "weighted": given, or from validation scores."""
    if how.weights:
        return np.asarray(how.weights, dtype=np.float64)
    if not len(scores):
        raise ValueError("method='weighted' has neither weights nor validation scores; give weights"
                         " or predictions of labelled rows")  # fmt: skip
    return ensemble.validation_weights(np.asarray(scores), how.temperature)


def with_order_of(order: Floats, values: Floats) -> Floats:
    """The sorted values in another order; places that tie share the mean of their values.

    >>> with_order_of(np.array([3.0, 1.0, 1.0]), np.array([0.2, 0.4, 0.9])).round(6).tolist()
    [0.9, 0.3, 0.3]
    """
    _, place, counts = np.unique(order, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    sums = np.concatenate([[0.0], np.cumsum(np.sort(values))])
    means = (sums[ends] - sums[ends - counts]) / counts
    return np.asarray(np.clip(means, 0, 1)[place.reshape(-1)])


def blend_all(models: Sequence[Floats], base: Combine, scores: Sequence[float] = ()) -> dict[
    str, Floats
]:  # fmt: skip
    """Every method on the same predictions; "weighted" only where weights can be had."""
    return {
        name: combine(models, Combine(method=name, trim=base.trim, weights=base.weights,
                                      temperature=base.temperature), scores)
        for name in METHODS
        if name != "weighted" or base.weights or len(scores)
    }  # fmt: skip


def read_sample(path: Path) -> list[str]:
    """The ids that are asked for, in their order."""
    ids = _read(path)["ID"].to_list()
    _refuse_twice(ids, path.name)
    return ids


def read_submission(path: Path, wanted: Sequence[str]) -> Floats:
    """The probabilities of the wanted ids, in their order."""
    frame = _read(path)
    check_ids(frame["ID"].to_list(), wanted, path.name)
    said = frame["clicked"].cast(pl.Float64, strict=False)
    good = said.is_finite() & said.is_between(0, 1)
    if not good.fill_null(False).all():
        rows = frame.filter(~good.fill_null(False))
        shown = ", ".join(f"{i}: {v}" for i, v in rows.head(SHOWN).rows())
        raise ValueError(
            f"{path.name}: {len(rows)} values of 'clicked' are no probability ({shown}); expected "
            "numbers from 0 to 1. Write probabilities, not logits or ranks"
        )
    found = pl.DataFrame({"ID": frame["ID"], "said": said})
    order = pl.DataFrame({"ID": list(wanted)}, schema={"ID": pl.String})
    joined = order.join(found, on="ID", how="left", maintain_order="left")
    return cast(Floats, joined["said"].to_numpy())


def write_submission(
    path: Path, ids: Sequence[str], probabilities: npt.ArrayLike, *, sample: Path | None = None
) -> None:
    """Check, bring into the order of the sample, write whole or not at all."""
    said = np.asarray(probabilities, dtype=np.float64)
    if said.shape != (len(ids),):
        raise ValueError(f"{path.name}: {said.shape} probabilities for {len(ids)} ids")
    wrong = np.flatnonzero(~(np.isfinite(said) & (said >= 0) & (said <= 1)))
    if len(wrong):
        shown = ", ".join(f"{ids[i]}: {said[i]}" for i in wrong[:SHOWN])
        raise ValueError(f"{path.name}: {len(wrong)} values are no probability ({shown})")
    wanted = read_sample(sample) if sample is not None else list(ids)
    check_ids(ids, wanted, path.name)
    place = {name: index for index, name in enumerate(ids)}
    frame = pl.DataFrame({"ID": wanted, "clicked": said[[place[name] for name in wanted]]})
    write_atomic(path, lambda file: frame.write_csv(file))


def check_ids(ids: Sequence[str], wanted: Sequence[str], name: str) -> None:
    """Each wanted id once and no other; the first five that are wrong are named."""
    _refuse_twice(ids, name)
    have, want = set(ids), set(wanted)
    missing = [each for each in wanted if each not in have]
    foreign = [each for each in ids if each not in want]
    problems = [
        f"{len(found)} {what} ({', '.join(map(str, found[:SHOWN]))})"
        for what, found in (("ids are missing", missing), ("ids are foreign", foreign))
        if found
    ]
    if problems:
        raise ValueError(
            f"{name}: {' and '.join(problems)}; expected the {len(want)} ids of the test, each "
            "once. Was it written for another test file?"
        )


def align_submissions(files: Mapping[str, Path], wanted: Sequence[str]) -> dict[str, Floats]:
    """Two or more submissions, all checked, in one order of rows."""
    if len(files) < 2:
        raise ValueError(f"{len(files)} submission(s) given; a blend needs two or more")
    return {name: read_submission(path, wanted) for name, path in files.items()}


def disagreement_table(said: Mapping[str, Floats]) -> pl.DataFrame:
    """Pairs of submissions: correlation of values, logits and ranks, and how far they differ.

    ``top decile``: share of one's most likely tenth that the other has there too.
    """
    names = list(said)
    return pl.DataFrame(
        [
            {"first": first, "second": second, **_compare(said[first], said[second])}
            for number, first in enumerate(names)
            for second in names[number + 1 :]
        ]
    )


def _compare(first: Floats, second: Floats) -> dict[str, float]:
    from scipy.special import logit
    from scipy.stats import rankdata

    logits = [logit(np.clip(p, 1e-12, 1 - 1e-12)) for p in (first, second)]
    top = [p >= np.quantile(p, 0.9) for p in (first, second)]
    return {
        "correlation": _correlation(first, second),
        "of logits": _correlation(*logits),
        "of ranks": _correlation(rankdata(first), rankdata(second)),
        "mean distance": float(np.abs(first - second).mean()),
        "largest distance": float(np.abs(first - second).max()),
        "top decile": float((top[0] & top[1]).sum() / max(1, top[0].sum())),
    }


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size else float("nan")  # a constant correlates with nothing


def _read(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"no submission at {path.name!r} of {path.parent.name!r}")
    frame = pl.read_csv(path, schema_overrides={"ID": pl.String}, infer_schema_length=10_000)
    if frame.columns != ["ID", "clicked"]:
        raise ValueError(f"{path.name}: columns {frame.columns}, expected ['ID', 'clicked']")
    if frame["ID"].null_count():
        raise ValueError(f"{path.name}: {frame['ID'].null_count()} rows have no ID")
    return frame


def _refuse_twice(ids: Sequence[str], name: str) -> None:
    if len(set(ids)) == len(ids):
        return
    series = pl.Series("ID", list(ids), dtype=pl.String)
    twice = series.filter(series.is_duplicated()).unique(maintain_order=True)
    raise ValueError(
        f"{name}: {len(twice)} ids are there more than once "
        f"({', '.join(twice.head(SHOWN).to_list())}); expected each once"
    )
