"""Calibration measures by hand, calibrators against their optimum, and who may judge them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from lib.evaluate import calibration, clicks, gates

GATE = gates.Gate(name="calibration", baseline="none", alternatives=gates.parse_rule("loss -0.5%"))


def world(generator, n=20_000, scale=1.0, bias=0.0):
    """True logits, labels, and what a model that is off by scale and bias says."""
    truth = generator.normal(-1.5, 1.2, n)
    return generator.random(n) < expit(truth), (truth - bias) / scale


def ece_by_loops(labels, p, bins):
    order = np.argsort(p, kind="stable")
    total = 0.0
    for part in np.array_split(order, bins):
        total += len(part) * abs(p[part].mean() - labels[part].mean())
    return total / len(p)


def test_ece_equals_bins_of_equal_mass(generator):
    labels, logits = world(generator, 1_500, scale=0.5)
    p = expit(logits)
    assert_allclose(calibration.ece(labels, p, 15), ece_by_loops(labels, p, 15), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20))
def test_the_order_of_rows_changes_nothing_even_with_ties(seed, bins):
    rng = np.random.default_rng(seed)
    labels, p = rng.integers(0, 2, 30), rng.integers(0, 4, 30) / 4
    shuffled = rng.permutation(30)
    once, again = (
        calibration.ece(labels[rows], p[rows], bins) for rows in (np.arange(30), shuffled)
    )
    assert_allclose(once, again, atol=1e-12)
    assert 0 <= once <= 1


def test_a_constant_has_the_error_of_its_mean():
    assert calibration.ece([0, 0, 0, 1], [0.5] * 4) == pytest.approx(0.25)
    assert calibration.ece([1], [0.25]) == pytest.approx(0.75)


def test_the_reliability_table_counts_every_row_and_holds_the_truth(generator):
    labels, logits = world(generator)
    table = calibration.reliability_table(labels, expit(logits), bins=20)
    assert table["rows"].sum() == 20_000
    assert np.ptp(table["rows"]) <= 1
    inside = (table["low"] <= table["predicted"]) & (table["predicted"] <= table["high"])
    assert inside.sum() >= 16  # 19 expected, three times sqrt(20 * .95 * .05)
    assert_allclose(table["rows"] @ table["observed"], labels.sum())


def test_predicted_over_observed_is_one_on_average(generator):
    labels, logits = world(generator)
    assert calibration.predicted_over_observed(labels, expit(logits)) == pytest.approx(1, abs=0.03)
    assert calibration.predicted_over_observed([1, 0], [0.9, 0.7]) == pytest.approx(1.6)
    assert np.isnan(calibration.predicted_over_observed([0], [0.5]))


@pytest.mark.parametrize("balanced", [False, True])
def test_temperature_is_the_optimum_of_its_loss(balanced, generator):
    labels, logits = world(generator, scale=0.4)
    weights = clicks.balanced_weights(labels) if balanced else np.ones(len(labels))

    def loss(scale):
        rows = np.logaddexp(0, scale * logits) - labels * scale * logits
        return np.average(rows, weights=weights) + calibration.RIDGE / 2 * (scale - 1) ** 2

    best = minimize_scalar(loss, bounds=(0.2, 5), method="bounded", options={"xatol": 1e-10}).x
    fitted = calibration.fit_temperature(labels, logits, balanced=balanced)
    assert_allclose(fitted.scale, best, atol=1e-5)
    assert fitted.bias == 0


def test_temperature_with_bias_finds_what_was_done_to_the_logits(generator):
    labels, logits = world(generator, n=200_000, scale=0.5, bias=-1.0)
    fitted = calibration.fit_temperature(labels, logits, bias=True)
    assert_allclose([fitted.scale, fitted.bias], [0.5, -1.0], atol=0.02)
    weights = clicks.balanced_weights(labels)
    joint = calibration.fit_temperature(labels, logits, bias=True, balanced=True)

    def loss(theta):
        z = theta[0] * logits + theta[1]
        penalty = calibration.RIDGE / 2 * ((theta[0] - 1) ** 2 + theta[1] ** 2)
        return np.average(np.logaddexp(0, z) - labels * z, weights=weights) + penalty

    assert_allclose([joint.scale, joint.bias], minimize(loss, [1, 0], tol=1e-12).x, atol=1e-3)


def test_temperature_one_is_the_identity_even_at_infinity():
    p = calibration.Temperature()([-np.inf, -2.0, 0.0, np.inf])
    assert_array_equal(p, expit([-np.inf, -2.0, 0.0, np.inf]))


def test_separable_and_reversed_rows_stay_within_the_border():
    labels, logits = np.array([0, 0, 1, 1]), np.array([-2.0, -1.0, 1.0, 2.0])
    assert 1 < calibration.fit_temperature(labels, logits).scale <= 5
    assert calibration.fit_temperature(1 - labels, logits, bias=True).scale == 0.2
    fitted = calibration.fit_temperature(labels, [-np.inf, -1.0, 1.0, np.inf], bias=True)
    assert np.isfinite([fitted.scale, fitted.bias]).all()


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40), st.booleans())
def test_isotonic_is_monotone_never_certain_and_keeps_the_inner_blocks(seed, n, balanced):
    rng = np.random.default_rng(seed)
    logits = rng.integers(-4, 5, n).astype(float)
    labels = rng.random(n) < expit(2 * logits)
    labels[:2] = [False, True]
    steps = calibration.fit_isotonic(labels, logits, balanced=balanced)
    p = steps(np.linspace(-6, 6, 200))
    assert np.all(np.diff(p) >= 0)
    assert p.min() > 0
    assert p.max() < 1
    weights = clicks.balanced_weights(labels) if balanced else np.ones(n)
    free = IsotonicRegression().fit(logits, labels, sample_weight=weights).predict(logits)
    inner = (free > 0) & (free < 1)
    assert_allclose(steps(logits)[inner], free[inner], atol=1e-12)


def test_a_block_without_a_click_is_clipped_by_its_rows():
    labels = np.r_[np.zeros(99, bool), [True, False, True]]
    logits = np.r_[np.full(99, -3.0), [1.0, 1.0, 1.0]]
    assert_allclose(calibration.fit_isotonic(labels, logits)([-9.0, -3.0]), 0.5 / 100)
    # where the neighbour lies lower than the clip, the neighbour is the clip
    labels = np.r_[False, np.arange(1000) == 5]
    logits = np.r_[-3.0, np.full(1000, 1.0)]
    assert_allclose(calibration.fit_isotonic(labels, logits)([-3.0, 1.0]), [0.001, 0.001])


def test_the_gate_takes_what_helps_on_other_rows(generator):
    labels, logits = world(generator, n=40_000, scale=0.4, bias=0.8)
    inner, outer = (labels[::2], logits[::2]), (labels[1::2], logits[1::2])
    choice = calibration.choose_calibrator(inner, outer, GATE, draws=500)
    assert choice.name == "temperature with bias"
    assert choice.losses[choice.name] < choice.losses["none"]
    assert_allclose(
        clicks.log_loss(outer[0], choice.calibrator(outer[1])), choice.losses[choice.name]
    )
    assert choice.decisions["isotonic"].answer != "adopted"


def test_the_gate_leaves_calibrated_logits_alone(generator):
    labels, logits = world(generator)
    choice = calibration.choose_calibrator(
        (labels[::2], logits[::2]), (labels[1::2], logits[1::2]), GATE, draws=500
    )
    assert (choice.name, choice.calibrator) == ("none", calibration.Temperature())


def test_balanced_calibration_moves_towards_equal_classes(generator):
    labels, logits = world(generator, n=40_000)
    choice = calibration.choose_calibrator(
        (labels[::2], logits[::2]), (labels[1::2], logits[1::2]), GATE, balanced=True, draws=500
    )
    assert choice.name == "temperature with bias"
    offset = clicks.prior_offset(labels.mean(), 0.5)
    assert_allclose(choice.calibrator.bias, offset, atol=0.15)
    expected = clicks.weighted_log_loss(labels[1::2], choice.calibrator(logits[1::2]))
    assert_allclose(choice.losses[choice.name], expected, rtol=1e-12)


@pytest.mark.parametrize("fit", [calibration.fit_temperature, calibration.fit_isotonic])
def test_one_class_cannot_be_calibrated(fit):
    with pytest.raises(ValueError, match="2 clicks in 2 rows"):
        fit([1, 1], [0.1, 0.2])


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="0 rows in 15 bins"):
        calibration.ece([], [])
    with pytest.raises(ValueError, match="logits holds 1 NaN"):
        calibration.Temperature()([np.nan])
    assert_allclose(logit(calibration.Steps(logits=(0.0,), probabilities=(0.5,))([3.0])), 0)
