"""The popularity row of Amazon Beauty, known from independent measurements, through our measures."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import hypergeom

from lib.evaluate import candidates, ranking


@pytest.fixture(scope="module")
def beauty(shared_data):
    """Leave-last-out: (training counts, test targets, history CSR, whole-sequence CSR)."""
    lines = (shared_data / "beauty" / "sequences.txt").read_text().splitlines()
    sequences = [np.array(line.split()[1:], dtype=np.int64) for line in lines]
    counts = np.bincount(np.concatenate([s[:-2] for s in sequences]), minlength=12_102)
    lengths = np.array([len(s) for s in sequences])
    history = (np.r_[0, np.cumsum(lengths - 1)], np.concatenate([s[:-1] for s in sequences]))
    whole = (np.r_[0, np.cumsum(lengths)], np.concatenate(sequences))
    return counts, np.array([s[-1] for s in sequences]), history, whole


def popularity_scores(counts, n_users):
    return np.ones((n_users, 1)), counts[:, None].astype(np.float64)


def test_popularity_reaches_its_known_figures_in_the_full_ranking(beauty):
    counts, targets, history, _ = beauty
    users, items = popularity_scores(counts, len(targets))
    ranks = ranking.rank_targets(users, items, targets, history)
    means = ranking.summarise(ranks, ks=[10])
    # measured independently with ties at their mean; breaking ties by item id gave .0115 / .0055
    assert_allclose([means["hit@10"], means["ndcg@10"]], [0.0110, 0.0053], atol=6e-5)


@pytest.mark.slow
def test_a_hundred_uniform_candidates_flatter_it_as_much_as_chance_says(beauty):
    counts, targets, history, whole = beauty
    users, items = popularity_scores(counts, len(targets))
    items = items + np.random.default_rng(0).random(items.shape) / 2  # no ties
    drawn = candidates.sample_candidates(targets, whole, 12_101, 100, seed=1)
    sampled = ranking.hit(candidates.rank_candidates(users, items, drawn), 10).mean()
    # at most 9 of 100 drawn among the free items may lie above the target
    above = ranking.rank_targets(users, items, targets, whole) - 1
    free = 12_101 - np.diff(whole[0])  # no item twice in a sequence of this set
    expected = hypergeom.cdf(9, free, above, 100).mean()
    assert_allclose(sampled, expected, atol=3 * np.sqrt(0.2 / len(targets)))
    full = ranking.hit(ranking.rank_targets(users, items, targets, history), 10).mean()
    assert sampled > 20 * full


def test_the_corrected_estimate_takes_most_of_the_flattery_back(beauty):
    counts, targets, history, whole = beauty
    users, items = popularity_scores(counts, len(targets))
    full = ranking.hit(ranking.rank_targets(users, items, targets, history), 10).mean()
    drawn = candidates.sample_candidates(targets, whole, 12_101, 100, seed=1)
    sampled = candidates.rank_candidates(users, items, drawn)
    corrected = candidates.correct_sampled(
        sampled, lambda ranks: ranking.hit(ranks, 10), 12_101, 100, gamma=0.01
    ).mean()
    assert abs(corrected - full) < 0.01 * abs(ranking.hit(sampled, 10).mean() - full)
