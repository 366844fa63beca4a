"""The three protocols against loops, and what each must never do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.splits import Split, split_histories, split_last, split_ratio, split_temporal

Pairs = set[tuple[int, int]]
LENGTHS = st.lists(st.integers(0, 12), min_size=1, max_size=8)


def pairs(split: Split, name: str) -> Pairs:
    targets = split.targets[name]
    return set(zip(targets.users.tolist(), targets.positions.tolist(), strict=True))


def offsets_of(lengths: list[int]) -> np.ndarray:
    return np.cumsum([0, *lengths])


def test_leave_last_out_by_hand() -> None:
    split = split_last(offsets_of([5, 3, 2, 1, 0]))
    assert pairs(split, "train") == {(0, 1), (0, 2), (2, 1)}
    assert pairs(split, "valid") == {(0, 3), (1, 1)}
    assert pairs(split, "test") == {(0, 4), (1, 2)}
    assert split.train_lengths.tolist() == [3, 1, 2, 1, 0]


def test_ratio_gives_each_user_a_valid_and_a_test_target() -> None:
    split = split_ratio(offsets_of([20, 3, 2]))
    assert pairs(split, "valid") == {(0, 16), (0, 17), (1, 1)}
    assert pairs(split, "test") == {(0, 18), (0, 19), (1, 2)}
    assert split.train_lengths.tolist() == [16, 1, 2]


def test_temporal_equals_a_sorted_list_of_rows() -> None:
    """int(.8 N) and int(.9 N) of all (user, position >= 1) rows, oldest first."""
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, 9, 40).tolist()
    offsets = offsets_of(lengths)
    times = np.concatenate([np.sort(rng.integers(0, 50, n)) for n in lengths])
    rows = [(int(times[offsets[u] + p]), u, p) for u, n in enumerate(lengths) for p in range(1, n)]
    rows.sort()
    ordered = [(u, p) for _, u, p in rows]
    n = len(ordered)
    split = split_temporal(offsets, times)
    assert pairs(split, "train") == set(ordered[: int(0.8 * n)])
    assert pairs(split, "valid") == set(ordered[int(0.8 * n) : int(0.9 * n)])
    assert pairs(split, "test") == set(ordered[int(0.9 * n) :])


def test_a_first_item_after_the_training_time_is_not_training() -> None:
    offsets = offsets_of([6, 2])
    times = np.array([0, 1, 2, 3, 4, 5, 50, 60])
    split = split_temporal(offsets, times)
    assert split.train_lengths.tolist() == [5, 0]
    assert pairs(split, "test") == {(1, 1)}


@pytest.mark.parametrize("name", ["last", "temporal", "ratio"])
@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 99))
def test_splits_are_disjoint_complete_and_ordered(name: str, lengths: list[int], seed: int) -> None:
    offsets = offsets_of(lengths)
    rng = np.random.default_rng(seed)
    times = np.concatenate([np.sort(rng.integers(0, 9, n)) for n in lengths]).astype(np.int64)
    split = split_histories(name, offsets, times)  # type: ignore[arg-type]
    train, valid, test = (pairs(split, part) for part in ("train", "valid", "test"))
    assert len(train) + len(valid) + len(test) == len(train | valid | test)
    for user, length in enumerate(lengths):
        of_user = [sorted(p for u, p in part if u == user) for part in (train, valid, test)]
        flat = [p for part in of_user for p in part]
        assert flat == sorted(flat)  # training precedes validation precedes test
        assert set(flat) <= set(range(1, length))
        assert len(flat) == max(0, length - 1) or name != "temporal"
        assert all(p < split.train_lengths[user] for p in of_user[0])
        assert all(p >= split.train_lengths[user] for p in of_user[1] + of_user[2])


@pytest.mark.parametrize("ratios", [[0.8, 0.2], [0.8, 0.2, 0.0], [0.5, 0.1, 0.1]])
def test_ratios_must_be_three_positive_parts_of_one(ratios: list[float]) -> None:
    with pytest.raises(ValueError, match="three positive numbers"):
        split_ratio(offsets_of([4]), ratios)
    with pytest.raises(ValueError, match="three positive numbers"):
        split_temporal(offsets_of([4]), np.arange(4), ratios)


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(ValueError, match="'random', expected 'last'"):
        split_histories("random", offsets_of([4]), np.arange(4))  # type: ignore[arg-type]
