"""Folds: complete, disjoint, balanced as promised, and never cutting a group."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.folds import assign_folds, combine_keys, fold_sizes

METHODS = ("kfold", "stratified", "grouped", "stratified_grouped", "by_day")


def make(n, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "label": (rng.random(n) < 0.2).astype(np.int8),
        "group": rng.integers(0, max(n // 4, 8), n),
        "day": rng.integers(1, 8, n),
    }


@pytest.mark.parametrize("method", METHODS)
@given(st.integers(60, 300), st.integers(2, 5), st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_every_row_has_a_fold_and_a_seed_repeats_it(method, n, n_splits, seed):
    columns = make(n, seed)
    folds = assign_folds(method, n_rows=n, n_splits=n_splits, seed=seed, **columns)
    assert set(folds.tolist()) == set(range(n_splits))
    again = assign_folds(method, n_rows=n, n_splits=n_splits, seed=seed, **columns)
    np.testing.assert_array_equal(folds, again)


@pytest.mark.parametrize("method", ["kfold", "stratified"])
def test_random_folds_differ_by_one_row_at_most(method):
    columns = make(103)
    folds = assign_folds(method, n_rows=103, n_splits=5, seed=1, **columns)
    sizes = np.bincount(folds)
    assert sizes.max() - sizes.min() <= 1
    if method == "stratified":
        clicks = np.bincount(folds, weights=columns["label"])
        assert clicks.max() - clicks.min() <= 1


@pytest.mark.parametrize("method", ["grouped", "stratified_grouped"])
def test_a_group_lies_in_one_fold(method):
    columns = make(400)
    folds = assign_folds(method, n_rows=400, n_splits=4, seed=1, **columns)
    for group in np.unique(columns["group"]):
        assert len(set(folds[columns["group"] == group].tolist())) == 1
    sizes = np.bincount(folds)
    assert sizes.max() < 1.5 * sizes.min()


def test_a_composite_group_keeps_each_combination_together():
    columns = make(400)
    group = combine_keys(columns["group"] % 5, columns["day"])
    assert len(np.unique(group)) == len({*zip(columns["group"] % 5, columns["day"], strict=True)})
    folds = assign_folds("grouped", n_rows=400, n_splits=4, seed=1, group=group)
    assert all(len(set(folds[group == g].tolist())) == 1 for g in np.unique(group))


def test_days_stay_whole_and_in_order():
    day = np.repeat([7, 1, 3, 2], 5)
    folds = assign_folds("by_day", n_rows=20, n_splits=2, seed=1, day=day)
    assert dict(zip(day.tolist(), folds.tolist(), strict=True)) == {1: 0, 2: 0, 3: 1, 7: 1}


def test_sizes_count_rows_and_clicks():
    sizes = fold_sizes(np.array([0, 1, 1, -1], np.int16), np.array([1, 0, 1, 1], np.int8))
    assert sizes == [{"fold": 0, "rows": 1, "ctr": 1.0}, {"fold": 1, "rows": 2, "ctr": 0.5}]


@pytest.mark.parametrize(
    ("method", "given_columns", "message"),
    [
        ("grouped", {}, "need group"),
        ("stratified", {}, "need label"),
        ("by_day", {"day": np.ones(20, int)}, "1 distinct days for n_splits=3"),
        ("grouped", {"group": np.zeros(20, int)}, "1 groups for n_splits=3"),
        ("grouped", {"group": np.zeros(19, int)}, "19 values of group for 20 rows"),
    ],
)
def test_folds_that_cannot_be_made_say_what_is_missing(method, given_columns, message):
    with pytest.raises(ValueError, match=message):
        assign_folds(method, n_rows=20, n_splits=3, seed=1, **given_columns)


def test_fewer_rows_than_folds_are_refused():
    with pytest.raises(ValueError, match="n_splits=3 for 2 rows"):
        assign_folds("kfold", n_rows=2, n_splits=3, seed=1)
