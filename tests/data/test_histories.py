"""Histories against loops over lists; what is inconsistent is never written."""

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.histories import Histories, Targets, write_histories
from lib.data.splits import split_last

SEQUENCES = [[1, 2, 3, 4, 5], [2, 2, 1], [3], [4, 5]]


def write(
    folder: Path, sequences: list[list[int]], n_items: int = 6, **changes: object
) -> Histories:
    offsets = np.cumsum([0, *map(len, sequences)])
    items = np.array([item for sequence in sequences for item in sequence], dtype=np.int32)
    split = split_last(offsets)
    arguments = {
        "items": items,
        "times": np.arange(len(items)),
        "offsets": offsets,
        "targets": split.targets,
        "train_lengths": split.train_lengths,
        "item_keys": ["", *(f"k{i}" for i in range(1, n_items + 1))],
        "titles": ["", *(f"Title {i}" for i in range(1, n_items + 1))],
        "made": {"seed": 1},
    }
    return write_histories(folder, **(arguments | changes))  # type: ignore[arg-type]


def test_what_is_written_is_what_opens(tmp_path: Path) -> None:
    histories = write(tmp_path, SEQUENCES)
    again = Histories.open(tmp_path)
    assert (again.n_users, again.n_items) == (4, 6)
    np.testing.assert_array_equal(again.items, [1, 2, 3, 4, 5, 2, 2, 1, 3, 4, 5])
    assert again.titles[6] == "Title 6"
    assert again.groups[6] == ""
    assert again.item_keys[0] == ""
    assert dict(again.made) == {"seed": 1}
    np.testing.assert_array_equal(again.lengths, histories.lengths)


def test_items_are_counted_in_training_only(tmp_path: Path) -> None:
    histories = write(tmp_path, SEQUENCES)  # training: 1 2 3 | 2 | 3 | 4 5
    np.testing.assert_array_equal(histories.counts, [0, 1, 2, 2, 1, 1, 0])


def test_without_lengths_training_ends_at_the_first_valid_target(tmp_path: Path) -> None:
    given_, derived = (
        write(tmp_path / "a", SEQUENCES),
        write(tmp_path / "b", SEQUENCES, train_lengths=None),
    )
    np.testing.assert_array_equal(given_.train_lengths, derived.train_lengths)


def test_a_window_holds_the_items_before_the_position(tmp_path: Path) -> None:
    histories = write(tmp_path, SEQUENCES)
    users, positions = np.array([0, 0, 1, 2]), np.array([4, 2, 1, 0])
    windows, lengths = histories.windows(users, positions, 3)
    np.testing.assert_array_equal(windows, [[2, 3, 4], [1, 2, 0], [2, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(lengths, [3, 2, 1, 0])


def test_seen_is_everything_before_the_position(tmp_path: Path) -> None:
    histories = write(tmp_path, SEQUENCES)
    offsets, items = histories.seen(np.array([1, 3, 0]), np.array([2, 0, 3]))
    np.testing.assert_array_equal(offsets, [0, 2, 2, 5])
    np.testing.assert_array_equal(items, [2, 2, 1, 2, 3])


def test_training_sequences_predict_every_training_target_and_nothing_else(tmp_path: Path) -> None:
    histories = write(tmp_path, SEQUENCES)
    inputs, targets, users = histories.training_sequences(3)
    np.testing.assert_array_equal(users, [0, 3])
    np.testing.assert_array_equal(inputs, [[1, 2, 0], [4, 0, 0]])
    np.testing.assert_array_equal(targets, [[2, 3, 0], [5, 0, 0]])


def test_a_long_user_keeps_the_last_targets(tmp_path: Path) -> None:
    histories = write(tmp_path, [[1, 2, 3, 4, 5, 6]])
    inputs, targets, _ = histories.training_sequences(2)
    np.testing.assert_array_equal(inputs, [[2, 3]])
    np.testing.assert_array_equal(targets, [[3, 4]])


def test_positions_that_are_no_training_target_are_masked(tmp_path: Path) -> None:
    train = Targets(np.array([0, 0], dtype=np.int32), np.array([1, 3]))
    histories = write(tmp_path, [[1, 2, 3, 4]], targets={"train": train}, train_lengths=[4])
    inputs, targets, _ = histories.training_sequences(8)
    np.testing.assert_array_equal(inputs[0], [1, 2, 3, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(targets[0], [2, 0, 4, 0, 0, 0, 0, 0])


@settings(max_examples=25, deadline=None)
@given(
    sequences=st.lists(st.lists(st.integers(1, 6), max_size=8), min_size=1, max_size=6),
    max_len=st.integers(1, 9),
)
def test_sequences_and_windows_agree(
    sequences: list[list[int]], max_len: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The input up to a training target is that target's window, wherever it is kept."""
    histories = write(tmp_path_factory.mktemp("h"), sequences)
    train = histories.targets["train"]
    inputs, targets, users = histories.training_sequences(max_len)
    row_of = {int(user): row for row, user in enumerate(users)}
    kept = 0
    for user, position in zip(train.users, train.positions, strict=True):
        row = row_of[int(user)]
        last = int(train.positions[train.users == user].max())
        column = int(position) - 1 - max(0, last - max_len)
        if column < 0:
            continue
        kept += 1
        assert targets[row, column] == sequences[user][position]
        before = sequences[user][max(0, last - max_len) : position]
        assert inputs[row, : column + 1].tolist() == before
    assert kept == np.count_nonzero(targets)


def test_a_dataset_without_users_or_targets_opens(tmp_path: Path) -> None:
    histories = write(tmp_path, [])
    inputs, _, users = histories.training_sequences(4)
    assert inputs.shape == (0, 4)
    assert len(users) == 0
    offsets, items = histories.seen(users, np.zeros(0, dtype=np.int64))
    assert offsets.tolist() == [0]
    assert len(items) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offsets": np.array([0, 2, 1, 3])}, "offsets must rise"),
        ({"items": np.array([1, 2, 7])}, r"1 to 7; expected 1\.\.6"),
        ({"items": np.array([0, 2, 3])}, r"0 to 3; expected 1\.\.6"),
        ({"times": np.array([3, 2, 1])}, "times go back"),
        ({"times": np.arange(2)}, "2 times for 3 interactions"),
        ({"titles": ["a"] * 7}, "empty entry for padding"),
        ({"titles": [""] * 3}, "7 item keys, 3 titles"),
        ({"train_lengths": np.array([3])}, "that is leakage"),
        ({"train_lengths": np.array([1, 1])}, "2 train_lengths for 1 users"),
    ],
)
def test_inconsistent_arrays_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path, [[1, 2, 3]], **changes)
    with pytest.raises(FileNotFoundError):
        Histories.open(tmp_path)


@pytest.mark.parametrize(
    ("users", "positions", "message"),
    [
        ([0], [0], "needs a history"),
        ([0], [3], "needs a history"),
        ([1], [1], "users must lie in"),
        ([0, 0], [1, 1], "twice"),
    ],
)
def test_impossible_targets_are_refused(
    tmp_path: Path, users: list[int], positions: list[int], message: str
) -> None:
    bad = {"test": Targets(np.array(users, dtype=np.int32), np.array(positions))}
    with pytest.raises(ValueError, match=message):
        write(tmp_path, [[1, 2, 3]], targets=bad, train_lengths=None)


def test_positions_outside_a_sequence_are_refused(tmp_path: Path) -> None:
    histories = write(tmp_path, SEQUENCES)
    with pytest.raises(ValueError, match="outside its user's sequence"):
        histories.windows(np.array([2]), np.array([2]), 3)
    with pytest.raises(ValueError, match="users must lie in"):
        histories.seen(np.array([4]), np.array([0]))
    with pytest.raises(ValueError, match="max_len is 0"):
        histories.training_sequences(0)


def test_an_interrupted_rewrite_does_not_open(tmp_path: Path) -> None:
    write(tmp_path, SEQUENCES)
    with pytest.raises(TypeError):  # the manifest cannot hold a set: the last step fails
        write(tmp_path, SEQUENCES, made={"seed": {1}})
    with pytest.raises(FileNotFoundError, match="interrupted"):
        Histories.open(tmp_path)


def test_opening_reads_no_array(tmp_path: Path) -> None:
    """Half a million interactions open in well under the 0.2 s that any size may take."""
    n_users, length = 50_000, 10
    write_histories(
        tmp_path,
        items=np.ones(n_users * length, dtype=np.int32),
        times=np.zeros(n_users * length),
        offsets=np.arange(0, n_users * length + 1, length),
        targets=split_last(np.arange(0, n_users * length + 1, length)).targets,
        item_keys=["", "a"],
        titles=["", "A"],
        made={},
    )
    began = time.perf_counter()
    Histories.open(tmp_path)
    assert time.perf_counter() - began < 0.2
