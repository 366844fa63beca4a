"""Segments by hand, and the concentration of recommendations against its definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from lib.evaluate import segments


def test_a_target_bought_before_is_a_repeat():
    seen = (np.array([0, 2, 2, 4]), np.array([7, 3, 5, 5]))
    assert segments.novelty([3, 3, 5], seen).tolist() == ["repeat", "novel", "repeat"]
    with pytest.raises(ValueError, match="4 offsets; expected 2"):
        segments.novelty([3, 3], seen)


def test_popularity_is_that_of_the_target_in_training():
    counts = np.array([0, 0, 1, 4, 5, 19, 20, 99, 100])
    buckets = segments.popularity(np.arange(1, 9), counts).tolist()
    assert buckets == ["0", "1-4", "1-4", "5-19", "5-19", "20-99", "20-99", "100+"]
    with pytest.raises(ValueError, match="ascending"):
        segments.popularity([1], counts, edges=(5, 5))


def test_history_length_and_warmth_have_their_borders():
    assert segments.history_length([0, 4, 5, 50]).tolist() == ["0-4", "0-4", "5-9", "50+"]
    assert segments.warmth([0, 2, 3]).tolist() == ["cold", "cold", "warm"]


def test_segments_carry_their_share_mean_and_interval_in_order():
    labels = np.array(["20-99", "5-19", "5-19", "0", "5-19"])
    rows = segments.by_segment([1.0, 0.0, 1.0, 0.0, 0.5], labels, draws=200)
    assert [row["segment"] for row in rows] == ["0", "5-19", "20-99"]
    assert rows[1]["n"] == 3
    assert rows[1]["share"] == 0.6
    assert rows[1]["mean"] == 0.5
    assert rows[1]["low"] <= 0.5 <= rows[1]["high"]


def test_an_empty_segment_keeps_its_row_without_a_number():
    (row,) = segments.by_segment([1.0], ["warm"], order=["cold"], draws=10)
    assert row["n"] == 0
    assert np.isnan(row["mean"])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_gini_equals_half_the_relative_mean_difference(seed):
    rng = np.random.default_rng(seed)
    lists = rng.integers(0, 9, (6, 3))
    exposure = np.bincount(lists.ravel(), minlength=9)[1:].astype(float)
    if exposure.sum():
        expected = np.abs(exposure[:, None] - exposure).mean() / (2 * exposure.mean())
        assert_allclose(segments.gini(lists, 8), expected, atol=1e-12)
        assert segments.coverage(lists, 8) == (exposure > 0).mean()


def test_one_item_everywhere_is_as_unequal_as_it_gets():
    assert segments.gini(np.ones((50, 1), int), 100) == pytest.approx(0.99)
    assert np.isnan(segments.gini(np.zeros((2, 2), int), 4))


def test_popularity_of_lists_ignores_padding():
    counts = np.array([99, 10, 1, 1, 1, 1])
    lists = np.array([[1, 2], [1, 0]])
    assert segments.average_popularity(lists, counts) == 7.0
    assert segments.tail_share(lists, counts) == pytest.approx(1 / 3)  # the head is item 1
    assert np.isnan(segments.average_popularity(lists * 0, counts))
    assert np.isnan(segments.tail_share(lists * 0, counts))


def test_ids_beyond_the_catalogue_are_refused():
    with pytest.raises(ValueError, match="there are 3"):
        segments.coverage(np.array([[4]]), 3)
    with pytest.raises(ValueError, match="head=2"):
        segments.tail_share(np.array([[1]]), np.ones(3), head=2)
