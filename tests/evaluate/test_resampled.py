"""Resampled click measures equal the plain ones on repeated rows; pairs share their draws."""

import numpy as np
import pytest
from sklearn.metrics import auc, precision_recall_curve

from lib.evaluate import clicks
from lib.evaluate.resampled import compare_clicks, interval_of, pr_auc, resample_clicks


def some_rows(seed=1, n=60, digits=1):
    rng = np.random.default_rng(seed)
    p = np.clip(rng.random(n).round(digits), 0.05, 0.95)  # ties
    labels = rng.random(n) < p
    return labels, p, clicks.shift_prior(p, 0.4)


def test_each_draw_is_the_measure_of_the_rows_drawn():
    labels, p, balanced = some_rows()
    found = resample_clicks(labels, p, balanced, draws=7, seed=3)
    for draw, child in enumerate(np.random.SeedSequence(3).spawn(7)):
        rows = np.random.default_rng(child).integers(0, len(labels), len(labels))
        expected = {
            "log_loss": clicks.log_loss(labels[rows], p[rows]),
            "average_precision": clicks.average_precision(labels[rows], p[rows]),
            "weighted_log_loss": clicks.weighted_log_loss(labels[rows], balanced[rows]),
            "score": clicks.score(labels[rows], balanced[rows]),
        }
        for name, value in expected.items():
            assert found[name][1][draw] == pytest.approx(value, abs=1e-12)


def test_a_model_against_itself_differs_by_nothing_on_every_draw():
    labels, p, balanced = some_rows()
    one = resample_clicks(labels, p, balanced, draws=20, seed=1)
    two = resample_clicks(labels, p, balanced, draws=20, seed=1)
    difference = compare_clicks(one, two, "average_precision", len(labels))
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)


def test_pairing_narrows_the_interval_of_a_small_change():
    labels, p, balanced = some_rows(n=400, digits=3)
    moved = np.clip(p + 0.01 * np.sin(np.arange(len(p))), 0.01, 0.99)
    one = resample_clicks(labels, p, balanced, draws=200, seed=1)
    two = resample_clicks(labels, moved, clicks.shift_prior(moved, 0.4), draws=200, seed=1)
    paired = compare_clicks(two, one, "average_precision", len(p))
    alone = interval_of(one, "average_precision", len(p))
    assert paired.high - paired.low < (alone.high - alone.low) / 3
    assert alone.low < alone.value < alone.high


def test_too_few_clicks_for_an_interval_are_refused():
    labels = np.zeros(30)
    labels[0] = 1
    p = np.linspace(0.1, 0.9, 30)
    found = resample_clicks(labels, p, p, draws=400, seed=1)  # a third of the draws miss it
    assert np.isnan(found["score"][1]).any()
    none = {name: (value, np.full(10, np.nan)) for name, (value, _) in found.items()}
    with pytest.raises(ValueError, match="too few clicks"):
        interval_of(none, "score", 30)


def test_pr_auc_is_that_of_scikit_learn():
    labels, p, _ = some_rows(n=200)
    precision, recall, _ = precision_recall_curve(labels, p)
    assert pr_auc(labels, p) == pytest.approx(auc(recall, precision), abs=1e-12)
    assert np.isnan(pr_auc([0, 0], [0.1, 0.2]))
