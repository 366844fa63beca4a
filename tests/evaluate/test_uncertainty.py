"""Intervals against the plain bootstrap, permutation against all signs, DeLong against pairs."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from lib.evaluate import uncertainty


def plain_bootstrap(values, draws, generator):
    n = len(values)
    return np.array([values[generator.integers(0, n, n)].mean() for _ in range(draws)])


@pytest.mark.parametrize("kind", ["few distinct values", "all different"])
@pytest.mark.parametrize("n", [7, 1_500])
def test_the_interval_is_that_of_the_plain_bootstrap(kind, n, generator):
    values = generator.integers(-1, 2, n).astype(float)
    if kind == "all different":
        values = generator.exponential(size=n)
    result = uncertainty.bootstrap_mean(values, draws=8_000, seed=1)
    low, high = np.quantile(plain_bootstrap(values, 8_000, generator), [0.025, 0.975])
    tolerance = 0.1 * values.std() / np.sqrt(n)  # three times the spread of a quantile's estimate
    assert_allclose([result.low, result.high], [low, high], atol=tolerance)
    assert result.value == values.mean()
    assert result.n == n


def test_rows_dealt_into_heaps_keep_the_standard_error(generator, monkeypatch):
    monkeypatch.setattr(uncertainty, "MOST_ROWS", 10_000)
    monkeypatch.setattr(uncertainty, "HEAPS", 2_000)
    values = generator.normal(3, 1, 50_001)
    result = uncertainty.bootstrap_mean(values, draws=4_000)
    assert_allclose(result.high - result.low, 2 * 1.96 / np.sqrt(50_001), rtol=0.1)
    assert result.n == 50_001


def test_paired_draws_see_a_difference_far_below_the_spread_of_users(generator):
    users = generator.normal(0, 100, 2_000)
    result = uncertainty.paired_bootstrap(users + 1 + generator.normal(size=2_000), users)
    assert 0.9 < result.low < result.value < result.high < 1.1
    assert result.p_value == pytest.approx(2 / 10_001)


def test_a_model_against_itself_differs_by_nothing():
    result = uncertainty.paired_bootstrap([1.0, 0.0, 3.0], [1.0, 0.0, 3.0], draws=50)
    assert (result.value, result.low, result.high, result.p_value) == (0, 0, 0, 1)
    assert uncertainty.paired_permutation([1.0, 0.0], [1.0, 0.0]) == 1.0


def test_draws_depend_on_the_seed_alone(generator):
    values = generator.normal(size=5_000)
    first, again, other = (uncertainty.bootstrap_mean(values, 500, seed) for seed in (1, 1, 2))
    assert first == again
    assert first.low != other.low


def test_whole_groups_are_drawn_and_widen_the_interval(generator):
    group_effect = generator.normal(size=50)
    groups = np.repeat(np.arange(50), 40)
    values = group_effect[groups] + 0.01 * generator.normal(size=2_000)
    by_row = uncertainty.bootstrap_mean(values, 2_000)
    by_group = uncertainty.bootstrap_mean(values, 2_000, groups=groups)
    assert by_group.value == by_row.value
    assert by_group.n == 50
    expected = 2 * 1.96 * group_effect.std() / np.sqrt(50)
    assert_allclose(by_group.high - by_group.low, expected, rtol=0.15)


def test_groups_of_unequal_size_weigh_by_their_rows():
    result = uncertainty.bootstrap_mean([1.0, 1.0, 1.0, 0.0], 500, groups=["a", "a", "a", "b"])
    assert result.value == 0.75
    assert (result.low, result.high) == (0.0, 1.0)


def test_95_percent_intervals_hold_the_truth_about_95_times_in_a_hundred(generator):
    inside = 0
    for seed in range(200):
        result = uncertainty.bootstrap_mean(generator.exponential(size=300), 400, seed)
        inside += result.low <= 1 <= result.high
    assert 178 <= inside <= 198  # 190 less or more three times sqrt(200 * .95 * .05), skew included


def permutation_by_all_signs(difference):
    sums = [abs(np.dot(s, difference)) for s in itertools.product([-1, 1], repeat=len(difference))]
    return np.mean(np.array(sums) >= abs(difference.sum()) * (1 - 1e-12))


@pytest.mark.parametrize("ties", [True, False])
def test_permutation_agrees_with_all_sign_changes(ties, generator):
    difference = generator.integers(-2, 4, 11).astype(float) if ties else generator.normal(1, 2, 11)
    result = uncertainty.paired_permutation(difference, np.zeros(11), draws=20_000)
    assert_allclose(result, permutation_by_all_signs(difference), atol=3 * np.sqrt(0.25 / 20_000))


def holm_by_steps(p):
    order, running, adjusted = np.argsort(p, kind="stable"), 0.0, np.empty(len(p))
    for step, i in enumerate(order):
        running = max(running, min(1.0, (len(p) - step) * p[i]))
        adjusted[i] = running
    return adjusted


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_equals_its_steps_and_never_lowers_a_p_value(p):
    adjusted = uncertainty.holm(p)
    assert_allclose(adjusted, holm_by_steps(np.array(p)), rtol=0, atol=1e-12)
    assert np.all(adjusted >= np.array(p))


def test_holm_keeps_names_shape_and_missing_tests():
    assert uncertainty.holm({"a": 0.01, "b": 0.5}).tolist() == [0.02, 0.5]
    assert_array_equal(
        uncertainty.holm([[0.01, np.nan], [0.02, 0.5]]), [[0.03, np.nan], [0.04, 0.5]]
    )
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        uncertainty.holm([1.5])


def test_the_detectable_difference_is_detected_four_times_in_five(generator):
    n, spread = 400, 2.0
    noise = generator.normal(0, spread, (1_000, n))
    smallest = np.mean(
        [uncertainty.minimum_detectable_difference(row, np.zeros(n)) for row in noise[:50]]
    )
    t = (noise + smallest).mean(1) / (noise.std(1, ddof=1) / np.sqrt(n))
    assert_allclose(np.mean(np.abs(t) > 1.96), 0.8, atol=3 * np.sqrt(0.16 / 1_000))


def test_seed_variance_is_told_apart_from_user_variance(generator):
    seeds, users = generator.normal(0, 0.05, (40, 1)), generator.normal(0, 1, (1, 5_000))
    spread = uncertainty.split_variance(seeds + users + generator.normal(0, 0.5, (40, 5_000)))
    assert_allclose(spread.seed_std, seeds.std(ddof=1), rtol=0.05)
    assert_allclose(spread.user_se, 1 / np.sqrt(5_000), rtol=0.05)
    assert_allclose(spread.se, np.hypot(spread.seed_std / np.sqrt(40), spread.user_se), rtol=0.05)


def test_identical_runs_have_no_seed_variance(generator):
    users = generator.normal(size=100)
    assert uncertainty.split_variance([users, users, users]).seed_std < 1e-12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: uncertainty.paired_bootstrap([1.0], [1.0, 2.0]), "lengths differ"),
        (lambda: uncertainty.paired_bootstrap([np.nan], [1.0]), "a holds 1 NaN"),
        (lambda: uncertainty.bootstrap_mean([]), "0 values"),
        (lambda: uncertainty.bootstrap_mean([np.inf, 1.0]), "infinities"),
        (lambda: uncertainty.bootstrap_mean([1.0], draws=0), "0 draws"),
        (lambda: uncertainty.bootstrap_mean([1.0], draws=5, level=95), "level=95"),
        (lambda: uncertainty.minimum_detectable_difference([1.0], [1.0]), "at least 2"),
        (lambda: uncertainty.split_variance([[1.0, 2.0]]), "1 seeds"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
