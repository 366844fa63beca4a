"""A competition's submission file: written from row names, checked against the published sample."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from lib.data.files import write_atomic

__all__ = ["check_submission", "write_submission"]

SHOWN = 5


def write_submission(
    path: Path, ids: Sequence[str], probabilities: npt.NDArray[np.floating]
) -> None:
    """``ID,clicked``, one line per row."""
    if len(ids) != len(probabilities):
        raise ValueError(f"{len(ids)} ids and {len(probabilities)} probabilities; expected as many")
    frame = pl.DataFrame({"ID": list(ids), "clicked": np.asarray(probabilities, np.float64)})
    write_atomic(path, lambda file: frame.write_csv(file))


def check_submission(path: Path, sample: Path) -> int:
    """The number of rows of a submission that has the sample's columns and ids, each once.

    Duplicate, missing and foreign ids are refused, the first five of each named.
    """
    wanted, given = pl.read_csv(sample), pl.read_csv(path)
    if given.columns != wanted.columns:
        raise ValueError(f"{path.name} has columns {given.columns}; expected {wanted.columns}")
    ids, values = given["ID"].cast(pl.String), given["clicked"].cast(pl.Float64)
    expected = wanted["ID"].cast(pl.String)
    problems = {
        "duplicate": ids.filter(ids.is_duplicated()).unique(maintain_order=True),
        "missing": expected.filter(~expected.is_in(ids.implode())),
        "foreign": ids.filter(~ids.is_in(expected.implode())),
    }
    found = [
        f"{len(which)} {kind} ids, first {which[:SHOWN].to_list()}"
        for kind, which in problems.items()
        if len(which)
    ]
    if found:
        raise ValueError(f"{path.name} does not match {sample.name}: {'; '.join(found)}")
    wrong = ids.filter(~(values.is_finite() & values.is_between(0, 1)).fill_null(False))
    if len(wrong):
        raise ValueError(
            f"{path.name}: {len(wrong)} values are no probabilities, first of "
            f"{wrong[:SHOWN].to_list()}; expected numbers from 0 to 1"
        )
    return len(ids)
