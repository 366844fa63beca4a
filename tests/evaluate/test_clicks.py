"""Click measures against scikit-learn, against pairs by hand, and against the known constants."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import metrics

from lib.evaluate import clicks

SCORES = st.sampled_from([-np.inf, -3.0, -1e-300, -0.0, 0.0, 0.1, 0.5, 1.0, 7.0, np.inf])


@st.composite
def labelled_scores(draw, elements=SCORES, min_size=1):
    n = draw(st.integers(min_size, 30))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    scores = np.array(draw(st.lists(elements, min_size=n, max_size=n)), dtype=dtype)
    return draw(arrays(np.int8, n, elements=st.integers(0, 1))), scores


def auc_by_pairs(labels, scores):
    positives, negatives = scores[labels == 1], scores[labels == 0]
    won = [(p > n) + (p == n) / 2 for p in positives for n in negatives]
    return np.mean(won) if won else np.nan


def finite(scores):
    """Same order without infinities, which scikit-learn refuses."""
    return np.unique(scores, return_inverse=True)[1].astype(np.float64)


@settings(max_examples=200, deadline=None)
@given(labelled_scores())
def test_auc_equals_all_pairs_and_scikit_learn(sample):
    labels, scores = sample
    assert_allclose(clicks.auc(labels, scores), auc_by_pairs(labels, scores), rtol=0, atol=1e-12)
    if 0 < labels.sum() < len(labels):
        expected = metrics.roc_auc_score(labels, finite(scores))
        assert_allclose(clicks.auc(labels, scores), expected, rtol=0, atol=1e-12)


@settings(max_examples=200, deadline=None)
@given(labelled_scores())
def test_average_precision_equals_scikit_learn_with_ties(sample):
    labels, scores = sample
    if labels.any():
        expected = metrics.average_precision_score(labels, finite(scores))
        result = clicks.average_precision(labels, scores)
        assert_allclose(result, expected, rtol=0, atol=1e-12)
    else:
        assert np.isnan(clicks.average_precision(labels, scores))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_auc_and_average_precision_equal_scikit_learn_at_size(dtype):
    rng = np.random.default_rng(0)
    labels = rng.random(50_000) < 0.17
    scores = (rng.normal(size=50_000) + labels).astype(dtype).round(3)  # many ties
    assert_allclose(clicks.auc(labels, scores), metrics.roc_auc_score(labels, scores), atol=1e-12)
    expected = metrics.average_precision_score(labels, scores)
    assert_allclose(clicks.average_precision(labels, scores), expected, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(labelled_scores(), st.integers(0, 1000))
def test_order_of_rows_and_monotone_scores_change_nothing(sample, seed):
    labels, scores = sample
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    assert_array_equal(
        clicks.rank_quality(labels, scores), clicks.rank_quality(labels[shuffled], scores[shuffled])
    )
    assert_array_equal(
        clicks.rank_quality(labels, scores), clicks.rank_quality(labels, finite(scores) * 3 - 1)
    )


def test_one_class_and_no_rows_have_no_auc():
    assert np.isnan(clicks.auc([1, 1], [0.1, 0.2]))
    assert np.isnan(clicks.auc([0], [0.1]))
    assert np.isnan(clicks.rank_quality([], [])).all()
    assert clicks.average_precision([1], [0.3]) == 1.0


def test_all_ties_give_one_half_and_the_click_rate():
    assert clicks.rank_quality([0, 1, 0, 0], [0.2] * 4) == (0.5, 0.25)


@settings(max_examples=100, deadline=None)
@given(labelled_scores(), st.integers(0, 10**6))
def test_grouped_auc_equals_one_auc_a_group(sample, seed):
    labels, scores = sample
    groups = np.random.default_rng(seed).integers(-2, 3, len(labels))
    areas, weights = [], []
    for group in np.unique(groups):
        inside = groups == group
        if 0 < labels[inside].sum() < inside.sum():
            areas.append(auc_by_pairs(labels[inside], scores[inside]))
            weights.append(inside.sum())
    result = clicks.grouped_auc(labels, scores, groups)
    assert (result.n_groups, result.n_used) == (len(np.unique(groups)), len(areas))
    if areas:
        assert_allclose(result.weighted, np.average(areas, weights=weights), atol=1e-12)
        assert_allclose(result.mean, np.mean(areas), atol=1e-12)
    else:
        assert np.isnan(result.weighted)
        assert np.isnan(result.mean)


def test_grouped_auc_of_no_rows_is_nan_over_no_groups():
    result = clicks.grouped_auc([], [], [])
    assert (result.n_groups, result.n_used, np.isnan(result.weighted)) == (0, 0, True)


@settings(max_examples=100, deadline=None)
@given(labelled_scores(st.floats(1e-9, 1 - 1e-7)))
def test_log_loss_equals_scikit_learn(sample):
    labels, p = sample
    p = p.astype(np.float64)
    expected = metrics.log_loss(labels, p, labels=[0, 1])
    assert_allclose(clicks.log_loss(labels, p), expected, rtol=1e-12)
    assert_allclose(clicks.row_log_loss(labels, p).mean(), expected, rtol=1e-12)


def test_sure_and_wrong_costs_the_clip_and_not_infinity():
    assert_allclose(clicks.log_loss([1, 0], [0.0, 1.0]), -np.log(1e-15), rtol=1e-2)
    assert_allclose(clicks.log_loss([1, 0], [1.0, 0.0]), 0, atol=1e-14)


def test_infinite_logits_become_exact_zero_and_one_with_finite_losses():
    with np.errstate(over="ignore"):
        p = 1 / (1 + np.exp(-np.array([-np.inf, np.inf, 0.0])))
    assert np.isfinite(clicks.log_loss([1, 0, 1], p))
    assert np.isfinite(clicks.weighted_log_loss([1, 0, 1], p))


@settings(max_examples=100, deadline=None)
@given(labelled_scores(st.floats(1e-6, 1 - 1e-6), min_size=2))
def test_weighted_log_loss_is_half_of_each_class_mean(sample):
    labels, p = sample[0], sample[1].astype(np.float64)
    if labels.all() or not labels.any():
        assert np.isnan(clicks.weighted_log_loss(labels, p))
        assert np.isnan(clicks.score(labels, p))
        return
    expected = 0.5 * np.mean(-np.log(p[labels == 1])) + 0.5 * np.mean(-np.log(1 - p[labels == 0]))
    assert_allclose(clicks.weighted_log_loss(labels, p), expected, rtol=1e-12)
    weighted = clicks.balanced_weights(labels) * clicks.row_log_loss(labels, p)
    assert_allclose(weighted.mean(), expected, rtol=1e-12)


RATE = 0.01907
CLICKS = np.arange(100_000) < RATE * 100_000


@pytest.mark.parametrize(("p", "wll", "score"), [(0.5, 0.6931, 0.3048), (RATE, 1.989, 0.1768)])
def test_the_constants_of_the_score_at_the_click_rate_01907(p, wll, score):
    constant = np.full(len(CLICKS), p)
    assert round(clicks.weighted_log_loss(CLICKS, constant), 4) == pytest.approx(wll, abs=5e-4)
    assert round(clicks.score(CLICKS, constant), 4) == score


def test_the_shorthand_rewards_a_worse_wll_and_the_score_does_not():
    good, bad = np.full(len(CLICKS), 0.5), np.full(len(CLICKS), RATE)
    assert clicks.circulating_shorthand(CLICKS, bad) > clicks.circulating_shorthand(CLICKS, good)
    assert clicks.score(CLICKS, bad) < clicks.score(CLICKS, good)


def test_balancing_true_probabilities_raises_the_score_and_leaves_order_alone():
    rng = np.random.default_rng(1)
    logit = rng.normal(-4.5, 1, 100_000)
    p = 1 / (1 + np.exp(-logit))
    labels = rng.random(100_000) < p
    balanced = clicks.shift_prior(p, labels.mean())
    assert clicks.score(labels, balanced) > clicks.score(labels, p) + 0.05
    assert clicks.auc(labels, balanced) == clicks.auc(labels, p)
    assert_allclose(
        clicks.average_precision(labels, balanced), clicks.average_precision(labels, p), rtol=1e-12
    )


@settings(max_examples=100, deadline=None)
@given(st.floats(1e-6, 1 - 1e-6), st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_shifting_the_prior_adds_to_the_logit_and_goes_back(p, from_rate, to_rate):
    shifted = clicks.shift_prior([p], from_rate, to_rate)
    logit = np.log(p / (1 - p)) + clicks.prior_offset(from_rate, to_rate)
    assert_allclose(shifted, 1 / (1 + np.exp(-logit)), rtol=1e-9)
    assert_allclose(clicks.shift_prior(shifted, to_rate, from_rate), p, rtol=1e-6)


def test_shift_keeps_zero_and_one_and_refuses_impossible_rates():
    assert clicks.shift_prior([0.0, 1.0], 0.02).tolist() == [0.0, 1.0]
    with pytest.raises(ValueError, match="from_rate=0"):
        clicks.shift_prior([0.5], 0.0)


def test_normalised_entropy_of_the_click_rate_is_one():
    assert_allclose(clicks.normalised_entropy(CLICKS, np.full(len(CLICKS), RATE)), 1, rtol=1e-12)
    assert np.isnan(clicks.normalised_entropy([1, 1], [0.5, 0.5]))


@settings(max_examples=100, deadline=None)
@given(labelled_scores(st.sampled_from([0.0, 0.1, 0.4, 0.5, 0.9, 1.0])))
def test_the_chosen_threshold_is_as_accurate_as_any(sample):
    labels, p = sample
    chosen = clicks.accuracy(labels, p, clicks.choose_threshold(labels, p))
    others = [clicks.accuracy(labels, p, t) for t in [*np.unique(p.astype(float)), 2.0]]
    assert chosen == max(others)


def test_the_description_of_predictions_counts_exact_zeros_and_ones():
    described = clicks.describe_predictions([0.0, 0.25, 0.75, 1.0])
    assert described["mean"] == 0.5
    assert described["share_extreme"] == 0.5
    assert described["q50"] == 0.5


def test_the_summary_keeps_true_and_balanced_probabilities_apart():
    labels, p = np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.3, 0.2])
    means = clicks.summarise(labels, p, clicks.shift_prior(p, 0.25))
    assert means["log_loss"] == clicks.log_loss(labels, p)
    assert means["score"] == clicks.score(labels, clicks.shift_prior(p, 0.25))
    assert means["mean_prediction"] == 0.25


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clicks.auc([0, 1], [0.1, np.nan]), "scores holds 1 NaN of 2"),
        (lambda: clicks.log_loss([0, 1], [0.1, np.nan]), "probabilities holds 1 NaN"),
        (lambda: clicks.log_loss([0, 1], [0.1, 1.5]), "expected probabilities"),
        (lambda: clicks.auc([0, 2], [0.1, 0.2]), "labels hold .*2"),
        (lambda: clicks.auc([0, 1], [0.1]), "lengths differ"),
        (lambda: clicks.auc([[0, 1]], [[0.1, 0.2]]), "expected one dimension"),
        (lambda: clicks.balanced_weights([1, 1]), "both classes"),
        (lambda: clicks.choose_threshold([], []), "no rows"),
        (lambda: clicks.describe_predictions([]), "no predictions"),
    ],
)
def test_wrong_input_is_named(call, message):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=message):
            call()
