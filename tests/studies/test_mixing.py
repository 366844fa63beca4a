"""A model's probabilities mixed with neighbours', against one user at a time in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.histories import Histories
from lib.models.sasrec import SASRecConfig
from lib.studies.mixing import Asked, choose_weight, mixed_ranks, mixed_scores
from lib.studies.sequences import Recipe, run_recipe
from lib.train.plan import Plan
from tests.studies.test_soft_tokens import V, make_histories


def neighbours(windows):
    """Scores that hang on the window; none at all where its first item is 1."""
    scores = np.outer(windows.sum(axis=1) % 5 + 1, np.arange(V + 1) % 4).astype(float)
    scores[windows[:, 0] == 1] = 0
    return scores


def one_by_one(state, items, window, weight, filter_seen):
    logits = np.array([float(np.dot(state, row)) for row in items.astype(np.float64)])
    counted = neighbours(window[None])[0]
    free = [j for j in range(1, len(items)) if not (filter_seen and j in window)]
    total, sum_counted = sum(np.exp(logits[j]) for j in free), sum(counted[j] for j in free)
    scores = np.zeros(len(items))
    for j in range(1, len(items)):
        learnt = np.exp(logits[j]) / total if free else 0.0
        scores[j] = learnt + (weight * counted[j] / sum_counted if sum_counted else 0.0)
    return scores


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 4), st.booleans(), st.sampled_from([0, 1, 3, V]))
def test_scores_are_those_of_the_definition(seed, weight, filter_seen, length):
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(4, 3)).astype(np.float32)
    items = rng.normal(size=(V + 1, 3)).astype(np.float32)
    windows = np.zeros((4, max(1, length)), dtype=np.int64)
    for row in windows:
        row[:length] = rng.permutation(np.arange(1, V + 1))[:length]
    found = mixed_scores(states, items, windows, neighbours, weight, filter_seen=filter_seen)
    for row in range(4):
        if filter_seen and length == V:  # nothing is left to recommend
            assert not found[row].any() or np.isfinite(found[row]).all()
            continue
        wanted = one_by_one(states[row], items, windows[row], weight, filter_seen)
        np.testing.assert_allclose(found[row], wanted, rtol=1e-5, atol=1e-12)


def asked(histories, split="valid"):
    targets = histories.targets[split]
    rng = np.random.default_rng(5)
    return Asked(targets, rng.normal(size=(len(targets), 3)).astype(np.float32))


@pytest.fixture(scope="module")
def histories(tmp_path_factory) -> Histories:
    rng = np.random.default_rng(3)
    sequences = [rng.choice(V, size=n, replace=False) + 1 for n in (5, 4, 7, 3, 6, 1, 2, 9)]
    return make_histories(tmp_path_factory.mktemp("histories"), sequences)


def test_weight_zero_ranks_as_the_model_and_a_large_one_as_the_neighbours(histories):
    items = np.random.default_rng(6).normal(size=(V + 1, 3)).astype(np.float32)
    given_ = asked(histories)
    alone = mixed_ranks(given_, items, histories, neighbours, 0.0, max_len=5, filter_seen=False)
    products = given_.states.astype(np.float64) @ items.T.astype(np.float64)
    wanted = histories.target_items(given_.targets)
    for rank, row, target in zip(alone, products, wanted, strict=True):
        assert rank == 1 + (row[1:] > row[target]).sum()
    counted = mixed_ranks(given_, items, histories, neighbours, 1e9, max_len=5, filter_seen=False)
    windows, _ = histories.windows(given_.targets.users, given_.targets.positions, 5)
    scores = neighbours(windows)
    for rank, row, target in zip(counted, scores, wanted, strict=True):
        if row.any():
            above, beside = (row[1:] > row[target]).sum(), (row[1:] == row[target]).sum()
            assert above + 1 <= rank <= above + beside


def test_the_weight_is_the_best_of_those_offered_and_of_equals_the_smallest(histories):
    items = np.random.default_rng(6).normal(size=(V + 1, 3)).astype(np.float32)
    given_ = asked(histories)
    settings_ = {"max_len": 5, "filter_seen": True}

    def perfect(windows):
        scores = np.zeros((len(windows), V + 1))
        known, _ = histories.windows(given_.targets.users, given_.targets.positions, 5)
        for row, window in enumerate(windows):
            same = np.flatnonzero((known == window).all(axis=1))
            scores[row, histories.target_items(given_.targets)[same]] = 1.0
        return scores

    assert choose_weight(given_, items, histories, perfect, **settings_) > 0
    silent = choose_weight(given_, items, histories, lambda w: np.zeros((len(w), V + 1)),
                           **settings_)  # fmt: skip
    assert silent == 0.0


def test_a_mixed_row_uses_the_row_it_mixes_and_needs_the_neighbours(histories, tmp_path):
    config = SASRecConfig(n_dims=8, n_layers=1, n_heads=2, d_inner=8, max_len=5, dropout=0.0,
                          score="cosine", temperature=0.1)  # fmt: skip
    plan = Plan(learning_rate=1.0, epochs=1, seed=1, batch=8, metric="ndcg@10")
    splits = {"valid": histories.targets["valid"], "test": histories.targets["test"]}
    shared = {**splits, "filter_seen": True, "scratch": tmp_path / "id-1"}
    recipe = {"kind": "id", "learning_rate": 1e-2, "dropout": 0.0}
    plain, cost = run_recipe(histories, Recipe(**recipe), config, plan, **shared)
    mixed, told = run_recipe(histories, Recipe(**recipe, mixed=True), config, plan, **shared,
                             neighbours=neighbours)  # fmt: skip
    assert told["seconds"] == cost["seconds"]  # not trained again
    assert told["weight of item-kNN"] in (0.0, 0.25, 0.5, 1.0, 2.0)
    assert len(mixed) == len(plain) == len(splits["test"])
    again, read = run_recipe(histories, Recipe(**recipe), config, plan, **shared)
    assert list(read.items()) == list(cost.items()), "columns stand in one order, read back or not"
    np.testing.assert_array_equal(again, plain)
    with pytest.raises(ValueError, match="13_measure_baselines"):
        run_recipe(histories, Recipe(**recipe, mixed=True), config, plan, **shared)
