"""DeLong against its own definition over all pairs, and against drawing rows again."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from lib.evaluate import clicks, delong


def placements_by_pairs(labels, scores):
    wins = (scores[labels][:, None] > scores[~labels]) + 0.5 * (
        scores[labels][:, None] == scores[~labels]
    )
    return wins.mean(1), wins.mean(0)


def sample(generator, n=300, noise=1.0):
    labels = generator.random(n) < 0.3
    return labels, (generator.normal(size=n) * noise + labels).round(1)  # ties


def test_the_variance_is_that_of_the_definition(generator):
    labels, scores = sample(generator)
    result = delong.auc_interval(labels, scores)
    v10, v01 = placements_by_pairs(labels, scores)
    se = np.sqrt(v10.var(ddof=1) / len(v10) + v01.var(ddof=1) / len(v01))
    assert_allclose(result.value, clicks.auc(labels, scores), rtol=0, atol=1e-12)
    assert_allclose(result.high - result.value, 1.959963984540054 * se, rtol=1e-12)


def test_the_difference_uses_the_covariance_of_the_two(generator):
    labels, a = sample(generator)
    b = (a + 0.3 * generator.normal(size=300)).round(1)
    result = delong.auc_difference(labels, a, b)
    pa, pb = placements_by_pairs(labels, a), placements_by_pairs(labels, b)
    covariance = [np.cov(pa[i], pb[i]) / len(pa[i]) for i in (0, 1)]
    variance = sum(c[0, 0] + c[1, 1] - 2 * c[0, 1] for c in covariance)
    assert_allclose(result.value, clicks.auc(labels, a) - clicks.auc(labels, b), atol=1e-12)
    assert_allclose(result.high - result.value, 1.959963984540054 * np.sqrt(variance), rtol=1e-10)


def test_it_agrees_with_drawing_rows_again(generator):
    labels, scores = sample(generator, n=2_000)
    drawn = []
    for _ in range(400):
        rows = generator.integers(0, 2_000, 2_000)
        drawn.append(clicks.auc(labels[rows], scores[rows]))
    result = delong.auc_interval(labels, scores)
    # the spread of a standard deviation from 400 draws is 3.5 %: three times that
    assert_allclose((result.high - result.low) / 3.92, np.std(drawn), rtol=0.11)


def test_a_model_against_itself_and_a_constant(generator):
    labels, scores = sample(generator)
    assert delong.auc_difference(labels, scores, scores).p_value == 1.0
    constant = delong.auc_interval(labels, np.zeros(300))
    assert (constant.value, constant.low, constant.high, constant.p_value) == (0.5, 0.5, 0.5, 1.0)


def test_one_row_of_a_class_has_no_variance():
    with pytest.raises(ValueError, match="1 positives, 2 negatives"):
        delong.auc_interval([1, 0, 0], [0.1, 0.2, 0.3])
