"""Sampled candidates: what may never be drawn, in which proportions, and what corrects them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from lib.evaluate import candidates, ranking


def some_users(rng, n_users, n_items, most):
    lengths = rng.integers(0, most + 1, n_users)
    positives = (np.r_[0, np.cumsum(lengths)], rng.integers(1, n_items + 1, lengths.sum()))
    return rng.integers(1, n_items + 1, n_users), positives


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 12), popular=st.booleans())
def test_negatives_are_distinct_and_never_the_users_own(seed, n, popular):
    rng = np.random.default_rng(seed)
    n_items = 20
    targets, positives = some_users(rng, 13, n_items, most=6)
    weights = rng.integers(1, 50, n_items + 1) if popular else None
    drawn = candidates.sample_candidates(
        targets, positives, n_items, n, popularity=weights, seed=seed
    )
    assert drawn.shape == (13, 1 + n)
    assert_array_equal(drawn[:, 0], targets)
    for row in range(13):
        own = {0, targets[row], *positives[1][positives[0][row] : positives[0][row + 1]]}
        negatives = drawn[row, 1:].tolist()
        assert len(set(negatives)) == n
        assert not own & set(negatives)
        assert max(negatives) <= n_items


def test_every_free_item_is_drawn_when_just_enough_are_left():
    positives = (np.array([0, 2]), np.array([1, 2]))
    drawn = candidates.sample_candidates([3], positives, 10, 7)
    assert sorted(drawn[0].tolist()) == [3, 4, 5, 6, 7, 8, 9, 10]


def test_a_very_unequal_popularity_still_ends(monkeypatch):
    weights = np.array([0, 10**6, 1, 1, 1, 1])
    drawn = candidates.sample_candidates(
        [2], (np.array([0, 0]), np.array([], int)), 5, 4, popularity=weights
    )
    assert sorted(drawn[0].tolist()) == [1, 2, 3, 4, 5]


def test_uniform_draws_are_uniform_and_popular_ones_follow_the_counts():
    n_users, nothing = 40_000, np.zeros(40_001, dtype=int)
    targets = np.full(n_users, 5)
    uniform = candidates.sample_candidates(targets, (nothing, np.array([], int)), 5, 1, seed=3)
    share = np.bincount(uniform[:, 1], minlength=6) / n_users
    assert_allclose(share, [0, 0.25, 0.25, 0.25, 0.25, 0], atol=3 * np.sqrt(0.19 / n_users))
    weights = np.array([0, 1, 2, 3, 4, 90])
    popular = candidates.sample_candidates(
        targets, (nothing, np.array([], int)), 5, 1, popularity=weights, seed=3
    )
    share = np.bincount(popular[:, 1], minlength=6) / n_users
    assert_allclose(share, [0, 0.1, 0.2, 0.3, 0.4, 0], atol=3 * np.sqrt(0.24 / n_users))


@pytest.mark.parametrize("rounds", [0, 25])
def test_draws_without_replacement_have_the_chances_of_one_after_the_other(rounds, monkeypatch):
    # both the rounds of drawing again and the exact race behind them must give the same law
    monkeypatch.setattr(candidates, "ROUNDS", rounds)
    n_users, weights = 20_000, np.array([0, 1, 2, 7, 5])
    drawn = candidates.sample_candidates(
        np.full(n_users, 4), (np.zeros(n_users + 1, int), np.array([], int)), 4, 2,
        popularity=weights, seed=1,
    )  # fmt: skip
    p = weights[1:4] / 10
    first_or_second = [
        p[i] + sum(p[j] * p[i] / (1 - p[j]) for j in range(3) if j != i) for i in range(3)
    ]
    share = [np.mean((drawn[:, 1:] == item).any(1)) for item in (1, 2, 3)]
    assert_allclose(share, first_or_second, atol=3 * np.sqrt(0.25 / n_users))


def test_draws_depend_on_the_seed_alone():
    rng = np.random.default_rng(0)
    targets, positives = some_users(rng, 50, 300, most=6)
    one, same, other = (
        candidates.sample_candidates(targets, positives, 300, 20, seed=s) for s in (1, 1, 2)
    )
    assert_array_equal(one, same)
    assert (one != other).any()


@pytest.mark.parametrize("kind", ["numpy", "torch", "function"])
def test_ranks_among_candidates_count_ties_like_the_full_ranking(kind):
    rng = np.random.default_rng(2)
    users = rng.integers(-1, 2, (25, 3)).astype(np.float32)
    items = rng.integers(-1, 2, (31, 3)).astype(np.float32)
    drawn = candidates.sample_candidates(
        rng.integers(1, 31, 25), (np.zeros(26, int), np.array([], int)), 30, 10
    )
    scores = np.einsum("bd,bcd->bc", users, items[drawn])
    rivals = scores[:, 1:]
    expected = 1 + (rivals > scores[:, :1]).sum(1) + (rivals == scores[:, :1]).sum(1) / 2
    if kind == "numpy":
        result = candidates.rank_candidates(users, items, drawn, chunk=7)
    elif kind == "torch":
        result = candidates.rank_candidates(torch.tensor(users), torch.tensor(items), drawn)
    else:
        result = candidates.rank_candidates(
            np.arange(25), lambda rows, ids: np.take_along_axis(scores[rows], ids * 0 + np.arange(11), 1),
            drawn, chunk=7,
        )  # fmt: skip
    assert_array_equal(result, expected)


def test_all_items_as_candidates_give_the_full_rank():
    rng = np.random.default_rng(6)
    users, items = rng.normal(size=(9, 4)), rng.normal(size=(21, 4))
    targets, nothing = rng.integers(1, 21, 9), (np.zeros(10, int), np.array([], int))
    drawn = candidates.sample_candidates(targets, nothing, 20, 19)
    assert_array_equal(
        candidates.rank_candidates(users, items, drawn), ranking.rank_targets(users, items, targets)
    )


@pytest.mark.parametrize("method", ["bias-variance", "rank"])
def test_the_correction_is_exact_when_nothing_is_left_out(method):
    ranks = np.array([1.0, 2.0, 7.0, 20.0])
    estimate = candidates.correct_sampled(
        ranks, lambda r: ranking.ndcg(r, 10), 20, 19, method=method, gamma=0
    )
    assert_allclose(estimate, ranking.ndcg(ranks, 10), atol=1e-9)


def test_the_correction_solves_its_least_squares_problem():
    """Value table against the plain objective, minimised over all directions."""
    n_items, n, gamma = 40, 6, 0.1
    rng = np.random.default_rng(0)
    # chances by counting samples: rank of an item at full rank r among n of the others
    chance = np.zeros((n_items, n + 1))
    for r in range(n_items):
        others = np.r_[np.ones(r), np.zeros(n_items - 1 - r)]
        for k, p in enumerate(hypergeometric(len(others), int(others.sum()), n)):
            chance[r, k] = p
    target = ranking.ndcg(np.arange(1.0, n_items + 1), 10)

    def objective(f):
        mean, square = chance @ f, chance @ f**2
        return ((mean - target) ** 2 + gamma * (square - mean**2)).sum()

    solved = candidates.correct_sampled(
        np.arange(1.0, n + 2), lambda r: ranking.ndcg(r, 10), n_items, n, gamma=gamma
    )
    best = objective(solved)
    for _ in range(50):
        assert objective(solved + 0.01 * rng.normal(size=n + 1)) > best


def hypergeometric(population, good, n):
    from math import comb

    return [
        comb(good, k) * comb(population - good, n - k) / comb(population, n) for k in range(n + 1)
    ]


def test_the_corrected_estimate_is_closer_to_the_full_measure_than_the_sampled_one():
    rng = np.random.default_rng(8)
    n_items, n_users = 2_000, 20_000
    full = np.minimum(1 + rng.geometric(0.004, n_users), n_items).astype(float)
    sampled = 1.0 + rng.hypergeometric(full.astype(int) - 1, n_items - full.astype(int), 100)
    truth = ranking.hit(full, 10).mean()
    plain = ranking.hit(sampled, 10).mean()
    corrected = candidates.correct_sampled(
        sampled, lambda r: ranking.hit(r, 10), n_items, 100, gamma=0.01
    ).mean()
    assert abs(corrected - truth) < 0.2 * abs(plain - truth)


NOTHING = (np.array([0, 0]), np.array([], int))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: candidates.sample_candidates([1], NOTHING, 5, 5), "user 0 has only 4 items"),
        (lambda: candidates.sample_candidates([9], NOTHING, 5, 2), "targets run from 9 to 9"),
        (lambda: candidates.sample_candidates([1, 2], NOTHING, 5, 2), "2 offsets; expected 2"),
        (
            lambda: candidates.sample_candidates([1], NOTHING, 5, 2, popularity=np.ones(3, int)),
            r"popularity has shape \(3,\); expected \(6,\)",
        ),
        (lambda: candidates.correct_sampled([102.0], ranking.mrr, 500), "expected 1 to 101"),
        (lambda: candidates.correct_sampled([1.0], ranking.mrr, 100), "1 <= n < n_items"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_no_users_have_no_candidates():
    drawn = candidates.sample_candidates([], (np.array([0]), np.array([], int)), 5, 2)
    assert drawn.shape == (0, 3)
