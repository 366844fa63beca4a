"""Ranks against sorting by hand, ties, padding, seen items, and the measures of one rank vector."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from lib.evaluate import ranking, scoring


def ranks_by_loops(scores, targets, seen=None):
    """The law, written out: scores (B, V+1) with padding in column 0."""
    ranks = []
    for row, target in enumerate(targets):
        left_out = {0, target}
        if seen is not None:
            left_out |= set(seen[1][seen[0][row] : seen[0][row + 1]].tolist())
        higher = equal = 0
        for item in range(scores.shape[1]):
            if item not in left_out:
                higher += scores[row, item] > scores[row, target]
                equal += scores[row, item] == scores[row, target]
        ranks.append(1 + higher + equal / 2)
    return np.array(ranks, dtype=np.float64)


def random_seen(rng, n_users, n_items):
    lengths = rng.integers(0, 6, n_users)  # may be empty, may repeat items, may hold the target
    return np.r_[0, np.cumsum(lengths)], rng.integers(0, n_items + 1, lengths.sum())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), n_users=st.integers(1, 9), n_items=st.integers(1, 12),
    filtered=st.booleans(), chunk=st.sampled_from([1, 2, 100]),
)  # fmt: skip
def test_ranks_equal_the_loops_with_many_ties(seed, n_users, n_items, filtered, chunk):
    rng = np.random.default_rng(seed)
    users = rng.integers(-1, 2, (n_users, 3)).astype(np.float64)
    items = rng.integers(-1, 2, (n_items + 1, 3)).astype(np.float64)  # duplicate rows on purpose
    targets = rng.integers(1, n_items + 1, n_users)
    seen = random_seen(rng, n_users, n_items) if filtered else None
    expected = ranks_by_loops(users @ items.T, targets, seen)
    assert_array_equal(ranking.rank_targets(users, items, targets, seen, chunk=chunk), expected)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), n_users=st.integers(1, 9), n_items=st.integers(1, 40),
    filtered=st.booleans(), width=st.sampled_from([1, 3, 7]), torched=st.booleans(),
)  # fmt: skip
def test_blocks_of_columns_never_change_a_rank(seed, n_users, n_items, filtered, width, torched):
    rng = np.random.default_rng(seed)
    users = rng.integers(-1, 2, (n_users, 3)).astype(np.float64)
    items = rng.integers(-1, 2, (n_items + 1, 3)).astype(np.float64)  # copies in other blocks too
    items[rng.random(n_items + 1) < 0.5, 0] += rng.integers(2, 40)
    targets = rng.integers(1, n_items + 1, n_users)
    seen = random_seen(rng, n_users, n_items) if filtered else None
    expected = ranks_by_loops(users @ items.T, targets, seen)
    given = (torch.tensor(users), torch.tensor(items)) if torched else (users, items)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "BLOCK_COLUMNS", width)
        assert_array_equal(ranking.rank_targets(*given, targets, seen), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_of_columns_give_the_ranks_of_one_product(dtype, generator):
    users = torch.tensor(generator.normal(size=(50, 16)), dtype=dtype)
    items = torch.tensor(generator.normal(size=(3_001, 16)), dtype=dtype)
    targets = generator.integers(1, 3_001, 50)
    seen = random_seen(generator, 50, 3_000)
    whole = ranking.rank_targets(users, lambda part: part @ items.T, targets, seen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "BLOCK_COLUMNS", 512)
        assert_array_equal(ranking.rank_targets(users, items, targets, seen), whole)


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_torch_tensors_get_the_ranks_of_their_own_scores(filtered, dtype):
    rng = np.random.default_rng(3)
    users = torch.tensor(rng.normal(size=(40, 8)), dtype=dtype, requires_grad=True)
    items = torch.tensor(rng.normal(size=(61, 8)), dtype=dtype)
    items[7] = items[3]
    targets = rng.integers(1, 61, 40)
    seen = random_seen(rng, 40, 60) if filtered else None
    scores = (users @ items.T).detach().double().numpy()
    result = ranking.rank_targets(users, items, torch.tensor(targets), seen, chunk=16)
    assert isinstance(result, np.ndarray)
    assert_array_equal(result, ranks_by_loops(scores, targets, seen))


def test_a_score_function_gives_the_same_ranks_and_is_not_written_to():
    rng = np.random.default_rng(4)
    scores, targets = rng.normal(size=(30, 51)), rng.integers(1, 51, 30)
    before, seen = scores.copy(), random_seen(rng, 30, 50)
    result = ranking.rank_targets(np.arange(30), lambda rows: scores[rows], targets, seen, chunk=7)
    assert_array_equal(result, ranks_by_loops(before, targets, seen))
    assert_array_equal(scores, before)


def test_a_constant_scorer_gets_the_middle_rank_whatever_the_target():
    ranks = ranking.rank_targets(np.zeros((5, 4)), np.ones((102, 4)), [1, 2, 50, 100, 101])
    assert_array_equal(ranks, np.full(5, 51.0))


@pytest.mark.parametrize("n_dims", [33, 64, 100])
def test_copies_of_an_item_tie_although_matrix_products_round_them_apart(n_dims):
    # OpenBLAS gave equal rows of a 7-column product scores one ulp apart: the copy won by position
    rng = np.random.default_rng(5)
    users = rng.normal(size=(37, n_dims)).astype(np.float32)
    items = np.repeat(rng.normal(size=(1, n_dims)), 8, axis=0).astype(np.float32)
    ranks = ranking.rank_targets(users, items, np.arange(37) % 7 + 1)
    assert_array_equal(ranks, np.full(37, 4.0))


def test_a_repeated_target_stays_rankable_although_it_was_seen():
    items = np.array([[0.0], [3.0], [2.0], [1.0]])
    seen = (np.array([0, 3]), np.array([1, 2, 2]))
    assert ranking.rank_targets(np.ones((1, 1)), items, [2], seen).tolist() == [1.0]
    assert ranking.rank_targets(np.ones((1, 1)), items, [2]).tolist() == [2.0]


def test_padding_never_competes_even_when_it_holds_nan():
    items = np.array([[np.nan], [2.0], [1.0]])
    assert ranking.rank_targets(np.ones((1, 1)), items, [2]).tolist() == [2.0]


def test_minus_infinity_ranks_last_and_plus_infinity_first():
    scores = np.array([[9.0, -np.inf, 0.0, np.inf], [9.0, -np.inf, 0.0, np.inf]])
    assert ranking.rank_targets(np.arange(2), lambda r: scores[r], [1, 3]).tolist() == [3.0, 1.0]


@pytest.mark.parametrize("dtype", [np.int32, np.float16, np.bool_])
def test_other_number_types_are_ranked_as_numbers(dtype):
    scores = np.array([[0, 1, 0, 1]]).astype(dtype)
    assert ranking.rank_targets([0], lambda _: scores, [1]).tolist() == [1.5]
    assert ranking.top_items([0], lambda _: scores, 3).tolist() == [[1, 3, 2]]
    assert ranking.rank_targets(scores, scores.repeat(3, 0), [1]).tolist() == [1.5]


def test_one_item_and_no_users_are_fine():
    assert ranking.rank_targets(np.ones((1, 2)), np.ones((2, 2)), [1]).tolist() == [1.0]
    assert ranking.rank_targets(np.ones((0, 2)), np.ones((2, 2)), []).shape == (0,)


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_nan_scores_are_refused(kind):
    users, items = kind(np.ones((2, 2))), np.ones((4, 2))
    items[3, 1] = np.nan
    with pytest.raises(ValueError, match="scores hold NaN"):
        ranking.rank_targets(users, kind(items), [1, 2])


@pytest.mark.parametrize(
    ("targets", "seen", "message"),
    [
        ([0, 1], None, "target 0 is no item; ids run from 1 to 3"),
        ([1, 4], None, "target 4 is no item"),
        ([1], None, r"targets have shape \(1,\); expected \(2,\)"),
        ([1, 2], (np.array([0, 1]), np.array([1])), "2 offsets; expected 2 users"),
        ([1, 2], (np.array([0, 1, 1]), np.array([7])), "seen items run from 7 to 7; there are 3"),
    ],
)
def test_wrong_ids_are_named(targets, seen, message):
    with pytest.raises(ValueError, match=message):
        ranking.rank_targets(np.ones((2, 2)), np.ones((4, 2)), targets, seen)


def test_measures_of_hand_computed_ranks():
    ranks = [1.0, 2.0, 10.5, 10.0, np.inf]
    assert_array_equal(ranking.hit(ranks, 10), [1, 1, 0, 1, 0])
    assert_array_equal(ranking.recall(ranks, 10), ranking.hit(ranks, 10))
    assert_allclose(ranking.ndcg(ranks, 10), [1, 1 / np.log2(3), 0, 1 / np.log2(11), 0], atol=1e-15)
    assert_allclose(ranking.mrr(ranks), [1, 1 / 2, 1 / 10.5, 1 / 10, 0])
    assert_allclose(ranking.mrr(ranks, 1), [1, 0, 0, 0, 0])


def test_summary_counts_users_without_recommendations_as_zero():
    means = ranking.summarise([1.0, np.inf], ks=[1, 10], measures=["hit", "recall", "ndcg", "mrr"])
    assert means == {
        "hit@1": 0.5, "hit@10": 0.5, "recall@1": 0.5, "recall@10": 0.5, "ndcg@1": 0.5,
        "ndcg@10": 0.5, "mrr@1": 0.5, "mrr@10": 0.5, "mrr": 0.5, "n_users": 2.0,
    }  # fmt: skip


@pytest.mark.parametrize("ranks", [[0.5], [np.nan], [0.0]])
def test_impossible_ranks_are_refused(ranks):
    with pytest.raises(ValueError, match="ranks start at 1"):
        ranking.ndcg(ranks, 10)


def test_a_cutoff_below_one_and_an_empty_summary_are_refused():
    with pytest.raises(ValueError, match="cut-off k=0"):
        ranking.hit([1.0], 0)
    with pytest.raises(ValueError, match="no ranks"):
        ranking.summarise([])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 15), filtered=st.booleans())
def test_top_items_equal_a_full_sort(seed, k, filtered):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (5, 11)).astype(np.float64)
    seen = random_seen(rng, 5, 10) if filtered else None
    lists = ranking.top_items(np.arange(5), lambda rows: scores[rows], k, seen, chunk=2)
    for row in range(5):
        closed = set() if seen is None else set(seen[1][seen[0][row] : seen[0][row + 1]].tolist())
        left = sorted((-scores[row, i], i) for i in range(1, 11) if i not in closed)
        expected = [i for _, i in left][:k]
        assert lists[row].tolist() == expected + [0] * (k - len(expected))
