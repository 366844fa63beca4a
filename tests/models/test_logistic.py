"""Logistic regression on ids and numbers: scikit-learn's answer, and the gradient's zero."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from lib.models.logistic import fit_logistic_rows


def make(n=400, seed=0):
    rng = np.random.default_rng(seed)
    ids = np.stack([rng.integers(0, 4, n), rng.integers(4, 9, n)], axis=1).astype(np.int32)
    numbers = rng.normal(size=(n, 2)).astype(np.float32)
    logit = rng.normal(size=9)[ids].sum(axis=1) + numbers @ np.array([1.0, -0.5])
    return ids, numbers, (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.int8)


@pytest.mark.parametrize("ridge", [0.5, 20.0])
def test_weights_equal_those_of_scikit_learn(ridge):
    ids, numbers, labels = make()
    design = np.concatenate([np.eye(9)[ids].sum(axis=1), numbers], axis=1)
    peer = LogisticRegression(C=1 / ridge, tol=1e-10, max_iter=5000).fit(design, labels)
    ours = fit_logistic_rows(ids, numbers, labels, n_ids=9, ridge=ridge, max_steps=2000)
    expected = peer.predict_proba(design)[:, 1]
    np.testing.assert_allclose(ours.probabilities(ids, numbers), expected, atol=2e-4)
    np.testing.assert_allclose(ours.of_ids, peer.coef_[0, :9], atol=5e-3)


def test_the_mean_prediction_is_the_click_rate_because_the_bias_is_free():
    ids, numbers, labels = make()
    model = fit_logistic_rows(ids, numbers, labels, n_ids=9, ridge=1.0, max_steps=2000)
    assert model.probabilities(ids, numbers).mean() == pytest.approx(labels.mean(), abs=1e-4)


def test_fields_alone_are_enough():
    ids, _, labels = make()
    none = np.zeros((len(ids), 0), np.float32)
    model = fit_logistic_rows(ids, none, labels, n_ids=9, ridge=1.0)
    assert model.logits(ids[:1], none[:1]).shape == (1,)


def test_one_label_and_no_ridge_are_refused():
    ids, numbers, labels = make()
    with pytest.raises(ValueError, match="expected both labels"):
        fit_logistic_rows(ids, numbers, labels * 0, n_ids=9, ridge=1.0)
    with pytest.raises(ValueError, match="expected above 0"):
        fit_logistic_rows(ids, numbers, labels, n_ids=9, ridge=0.0)
