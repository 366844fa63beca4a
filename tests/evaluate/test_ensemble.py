"""Ways to combine probabilities: identities, orders, and a stacker that never sees its own label."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, logit
from scipy.stats import gmean, rankdata, trim_mean
from sklearn.linear_model import LogisticRegression

from lib.evaluate import clicks, ensemble

ALL = [ensemble.mean, ensemble.logit_mean, ensemble.geometric, ensemble.median, ensemble.trimmed]


def probabilities(seed, n_models=3, n=20):
    return np.random.default_rng(seed).uniform(1e-6, 1 - 1e-6, (n_models, n))


@pytest.mark.parametrize("combine", ALL)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), n_models=st.integers(1, 6))
def test_the_result_lies_between_the_models_and_forgets_their_order(combine, seed, n_models):
    models = probabilities(seed, n_models)
    result = combine(models)
    assert np.all(result >= models.min(0) - 1e-12)
    assert np.all(result <= models.max(0) + 1e-12)
    assert_allclose(combine(models[::-1]), result, rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_each_mean_is_its_definition(seed):
    models = probabilities(seed, 5)
    assert_allclose(ensemble.mean(models), np.mean(models, axis=0), atol=1e-12)
    assert_allclose(ensemble.logit_mean(models), expit(logit(models).mean(0)), atol=1e-12)
    yes, no = gmean(models, axis=0), gmean(1 - models, axis=0)
    assert_allclose(ensemble.geometric(models), yes / (yes + no), atol=1e-12)
    assert_allclose(ensemble.geometric(models), ensemble.logit_mean(models), atol=1e-12)
    assert_allclose(ensemble.trimmed(models), trim_mean(models, 0.2), atol=1e-12)
    assert_allclose(ensemble.median(models), np.median(models, axis=0), atol=1e-12)
    ranks = np.mean([rankdata(row) for row in models], axis=0) / 20
    assert_allclose(ensemble.rank_average(models), ranks, atol=1e-12)


def test_certain_models_give_numbers_and_not_nan():
    models = [[0.0, 1.0, 1.0, 0.0], [0.5, 0.5, 0.0, 0.0]]
    assert ensemble.geometric(models).tolist() == [0.0, 1.0, 0.5, 0.0]
    assert np.isfinite(ensemble.logit_mean(models)).all()


def test_weights_are_brought_to_sum_one_and_can_silence_a_model():
    models = probabilities(0)
    assert_allclose(ensemble.weighted(models, [2, 0, 0]), models[0])
    assert_allclose(ensemble.weighted(models, [5, 5, 5]), models.mean(0))


def test_a_cold_temperature_takes_the_best_and_a_hot_one_all():
    assert_allclose(ensemble.validation_weights([0.3, 0.4, 0.2], 1e-4), [0, 1, 0], atol=1e-12)
    assert_allclose(ensemble.validation_weights([0.3, 0.4, 0.2], 1e6), [1 / 3] * 3, atol=1e-6)


def world(generator, n=4_000):
    truth = generator.normal(-1, 1.5, n)
    labels = generator.random(n) < expit(truth)
    models = expit(np.stack([truth + generator.normal(0, s, n) for s in (0.5, 1.5, 3.0)]))
    return models, labels, np.arange(n) % 5


def test_the_stacker_equals_scikit_learn_without_ridge(generator):
    models, labels, folds = world(generator)
    result = ensemble.stack(models, labels, folds, ridge=1e-12)
    reference = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000)
    reference.fit(logit(models).T, labels)
    assert_allclose(result.weights, [*reference.coef_[0], *reference.intercept_], rtol=1e-4)
    assert_allclose(result(models), reference.predict_proba(logit(models).T)[:, 1], rtol=1e-4)


def test_a_row_never_sees_its_own_label_or_fold(generator):
    models, labels, folds = world(generator, n=200)
    before = ensemble.stack(models, labels, folds).out_of_fold
    flipped = labels.copy()
    flipped[folds == 2] = ~flipped[folds == 2]
    after = ensemble.stack(models, flipped, folds).out_of_fold
    assert_array_equal(after[folds == 2], before[folds == 2])
    assert (after[folds != 2] != before[folds != 2]).all()


def test_the_stacker_beats_each_model_and_their_mean(generator):
    models, labels, folds = world(generator)
    stacked = clicks.log_loss(labels, ensemble.stack(models, labels, folds).out_of_fold)
    assert stacked < min(clicks.log_loss(labels, row) for row in models)
    assert stacked < clicks.log_loss(labels, ensemble.mean(models))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ensemble.mean([]), "no models"),
        (lambda: ensemble.mean([[0.1], [0.1, 0.2]]), r"models predict \[1, 2\] rows"),
        (lambda: ensemble.mean([[1.1]]), "model 0 spans"),
        (lambda: ensemble.mean([[np.nan]]), "model 0 holds 1 NaN"),
        (lambda: ensemble.trimmed([[0.5]], 0.5), "share=0.5"),
        (lambda: ensemble.weighted([[0.5]], [0]), "not all 0"),
        (lambda: ensemble.validation_weights([0.1], 0), "temperature above 0"),
        (lambda: ensemble.stack([[0.5, 0.5]], [0, 1], [1, 1]), "one fold only"),
        (lambda: ensemble.stack([[0.5, 0.5]], [0, 1], [1]), "1 folds differ"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
