"""The Toss click log: 119 columns of parquet, streamed, to a Clicks dataset.

The published test rows are all of day 7, so holding out day 7 of the training file mirrors them.
Categorical: gender, age_group, inventory_id, hour and every l_feat; numeric: every feat and
history column, imputed and standardised by training rows; ``seq`` becomes the sequence. Columns
that are missing together share one indicator, and constant columns are dropped.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow.parquet as pq

from lib.data.clicks import Clicks
from lib.data.covisits import CovisitPlan, covisit_block
from lib.data.encode import encode_table, find_wrong_labels
from lib.data.extend import extend_numeric, statistics_block
from lib.data.files import write_atomic
from lib.data.fit import Piece, Recipe
from lib.data.folds import FoldMethod, assign_folds, combine_keys, fold_sizes
from lib.data.normalise import require_columns, unchanged

__all__ = ["ClicklogOptions", "choose_columns", "prepare_clicklog"]

ALL_ROWS = 2**31


@dataclass(frozen=True, kw_only=True, slots=True)
class ClicklogOptions:
    """Everything but the columns' encoding (that is ``Recipe``) that shapes the dataset."""

    label: str = "clicked"
    row_id: str = "ID"  # of the test file
    day: str = "day_of_week"
    holdout_day: str | None = "7"  # becomes split "valid"; None trains on every day
    fold_method: FoldMethod | Literal["none"] = "by_day"
    n_splits: int = 5
    group_keys: tuple[str, ...] = ("inventory_id",)  # several keys make a composite group
    covisits: tuple[CovisitPlan, ...] = ()  # each adds its aggregates as numeric columns
    statistics: bool = True
    max_rows: int | None = None
    shard_rows: int = 2_000_000
    seed: int = 1


def choose_columns(
    path: Path, patterns: Sequence[str], *, exclude: Sequence[str] = ()
) -> tuple[str, ...]:
    """Columns of a parquet that match a name or a pattern such as ``l_feat_*``, in file order."""
    present = pq.read_schema(path).names
    require_columns(path, present, [name for name in patterns if "*" not in name])
    found = [
        name
        for name in present
        if any(fnmatchcase(name, pattern) for pattern in patterns) and name not in exclude
    ]
    for pattern in patterns:
        if "*" in pattern and not any(fnmatchcase(name, pattern) for name in present):
            raise ValueError(f"{path.name}: no column matches {pattern!r}; correct the pattern")
    return tuple(found)


def prepare_clicklog(
    folder: Path, train: Path, test: Path | None, recipe: Recipe, options: ClicklogOptions
) -> Clicks:
    """Encode the training file (and the unlabelled test file) of a click log into ``folder``.

    A second call with the same files and choices keeps every complete shard.
    """
    keys = _read_keys(train, recipe, options)
    n_train = len(keys)
    held = pl.lit(False)
    if options.holdout_day is not None:
        held = (pl.col(options.day) == options.holdout_day).fill_null(False)
    holdout = keys.with_columns(held.alias("held"))["held"].to_numpy()
    if options.holdout_day is not None and holdout.sum() in (0, n_train):
        days = keys[options.day].unique().sort().to_list()
        raise ValueError(
            f"{train.name}: day {options.holdout_day!r} holds {holdout.sum()} of {n_train} rows; "
            f"days present are {days}. Choose one of several days, or none"
        )
    split = pl.when(held).then(1).otherwise(0)
    pieces = [Piece(name="train", path=train, split=split, n_rows=n_train, label=options.label)]
    folds = _folds(keys.filter(~pl.Series(holdout)), options)
    all_folds = np.full(n_train, -1, np.int16)
    all_folds[~holdout] = folds
    if test is not None:
        n_test = min(pq.read_metadata(test).num_rows, options.max_rows or ALL_ROWS)
        wanted = [*recipe.categorical, *recipe.numeric, *filter(None, [recipe.sequence])]
        require_columns(test, pq.read_schema(test).names, [*wanted, options.row_id])
        pieces.append(Piece(name="test", path=test, split=pl.lit(2), n_rows=n_test, label=None))
        all_folds = np.concatenate([all_folds, np.full(n_test, -1, np.int16)])
        _write_row_ids(folder, test, options.row_id, n_test)
    reports = {
        "folds": fold_sizes(folds, keys.filter(~pl.Series(holdout))[options.label].to_numpy())
    }
    made = {"options": asdict(options)}
    with unchanged(train):
        clicks = encode_table(
            folder,
            pieces,
            recipe,
            folds=all_folds,
            shard_rows=options.shard_rows,
            made=made,
            reports=reports,
        )
    blocks = [statistics_block(clicks)] if options.statistics and recipe.sequence else []
    blocks += [covisit_block(clicks, plan) for plan in options.covisits]
    return extend_numeric(clicks, blocks) if blocks else clicks


def _read_keys(train: Path, recipe: Recipe, options: ClicklogOptions) -> pl.DataFrame:
    """Label, day and group keys of every training row: a few bytes a row, so read whole."""
    wanted = dict.fromkeys([options.label, options.day, *options.group_keys])
    columns = [*wanted, *recipe.categorical, *recipe.numeric, *filter(None, [recipe.sequence])]
    require_columns(train, pq.read_schema(train).names, columns)
    keys = pl.scan_parquet(train).head(options.max_rows or ALL_ROWS).select(list(wanted)).collect()
    if keys.is_empty():
        raise ValueError(f"{train.name} has no rows; fetch it again")
    wrong = find_wrong_labels(keys[options.label])
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        raise ValueError(
            f"{train.name}: label {options.label!r} is {keys[options.label][row]!r} in data row "
            f"{row + 1} ({wrong.sum()} such rows), expected 0 or 1; map or remove those rows"
        )
    return keys


def _folds(keys: pl.DataFrame, options: ClicklogOptions) -> npt.NDArray[np.int16]:
    if options.fold_method == "none":
        return np.zeros(len(keys), np.int16)
    codes = {name: keys[name].rank("dense").fill_null(0).to_numpy() for name in keys.columns}
    groups = [codes[name] for name in options.group_keys]
    return assign_folds(
        options.fold_method,
        n_rows=len(keys),
        n_splits=options.n_splits,
        seed=options.seed,
        label=keys[options.label].to_numpy(),
        group=combine_keys(*groups) if groups else None,
        day=codes[options.day],
    )


def _write_row_ids(folder: Path, test: Path, name: str, n_rows: int) -> None:
    """Ids of the test rows in order; a duplicate would make the submission ambiguous."""
    ids = pl.scan_parquet(test).head(n_rows).select(pl.col(name).cast(pl.String)).collect()[name]
    twice = ids.filter(ids.is_duplicated()).unique(maintain_order=True)
    if len(twice) or ids.null_count():
        shown = ", ".join(map(str, twice.head(5).to_list()))
        raise ValueError(
            f"{test.name}: {len(twice)} ids occur more than once ({shown}) and {ids.null_count()} "
            "are empty; expected one id a row. Fetch the file again"
        )
    fixed = np.array([value.encode() for value in ids.to_list()])
    write_atomic(folder / "row_ids.npy", lambda file: np.save(file, fixed))
