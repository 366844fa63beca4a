import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.models.sequence_pooling import keep_top, log_buckets, masked_softmax, pool_by_id


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 10_000))
def test_the_kept_events_are_the_best_ones_in_time_order(k, length, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(1, 9, generator=generator)
    counted = torch.arange(9)[None] < length
    places, real = keep_top(scores, counted, k)
    best = sorted(range(length), key=lambda i: -scores[0, i].item())[:k]
    assert places[0][real[0]].tolist() == sorted(best)
    assert (places[0].diff() > 0).all()


def test_everything_is_kept_where_k_reaches_the_length():
    counted = torch.tensor([[True, False, False]])
    places, real = keep_top(torch.zeros(1, 3), counted, 3)
    assert places.tolist() == [[0, 1, 2]]
    assert torch.equal(real, counted)


def test_the_softmax_of_nothing_is_zero_with_a_finite_gradient():
    scores = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    counted = torch.tensor([[True, True], [False, False]])
    weights = masked_softmax(scores, counted)
    weights[:, 0].sum().backward()
    torch.testing.assert_close(weights[0], scores[0].softmax(0))
    assert weights[1].tolist() == [0.0, 0.0]
    assert torch.isfinite(scores.grad).all()


def test_pooling_by_id_equals_the_weighted_sum_of_rows_with_gradient(generator):
    weights = torch.rand(3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(0, 4, (3, 5), generator=generator)
    table = torch.randn(4, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    fast, slow = pool_by_id(weights, ids, table), (weights[..., None] * table[ids]).sum(1)
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(
        torch.autograd.grad(fast.square().sum(), (weights, table)),
        torch.autograd.grad(slow.square().sum(), (weights, table)),
    )


def test_time_buckets_grow_and_leave_zero_to_the_target():
    buckets = log_buckets(400, 16)
    assert (buckets.diff() >= 0).all()
    assert buckets[0] == 1
    assert buckets[-1] == 15
    assert buckets[:3].tolist() == [1, 2, 3]  # the newest events are told apart
