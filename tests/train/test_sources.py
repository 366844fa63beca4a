"""Batches: complete, without overlap, the same again for the same seed and epoch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.train.buckets import BucketSource, Ragged
from lib.train.sources import TensorSource


def rows_of(source, epoch=0, **given):
    return [batch["x"].tolist() for batch in source.batches(epoch, **given)]


def flat(batches):
    return [row for batch in batches for row in batch]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 20),
    st.integers(1, 4),
    st.one_of(st.none(), st.integers(1, 9)),
)
def test_processes_share_every_row_once_in_the_batches_of_one(n, batch, world, block):
    source = TensorSource({"x": torch.arange(n)}, batch=batch, seed=3, block=block)
    whole = rows_of(source, 1)
    assert sorted(flat(whole)) == list(range(n))
    assert len(whole) == len(source)
    parts = [rows_of(source, 1, rank=rank, world=world) for rank in range(world)]
    for index, rows in enumerate(whole):
        assert sorted(flat(part[index] for part in parts)) == sorted(rows)


@pytest.mark.parametrize("block", [None, 5])
def test_order_depends_on_seed_and_epoch_only_and_resumes_in_the_middle(block):
    def make(seed):
        return TensorSource({"x": torch.arange(50)}, batch=8, seed=seed, block=block)

    assert rows_of(make(1), 2) == rows_of(make(1), 2)
    assert rows_of(make(1), 2)[3:] == rows_of(make(1), 2, start=3)
    assert rows_of(make(1), 2) != rows_of(make(1), 3)
    assert rows_of(make(1), 2) != rows_of(make(2), 2)


def test_block_order_reads_neighbouring_rows_together():
    source = TensorSource({"x": torch.arange(10_000)}, batch=80, seed=1, block=10)
    batch = torch.tensor(rows_of(source)[0])
    assert len(torch.unique(batch // 10)) == 8  # eight blocks are read for eighty rows
    assert batch.tolist() != sorted(batch.tolist())


def test_a_subset_of_rows_is_all_that_is_seen():
    source = TensorSource({"x": torch.arange(10)}, batch=3, seed=1, rows=np.array([1, 4, 7, 9]))
    assert sorted(flat(rows_of(source))) == [1, 4, 7, 9]
    ordered = TensorSource({"x": torch.arange(5)}, batch=2, seed=1, shuffle=False, drop_last=True)
    assert rows_of(ordered) == [[0, 1], [2, 3]]


def test_memory_maps_are_read_without_a_copy_or_a_warning(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(20, dtype=np.int32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    source = TensorSource({"x": mapped}, batch=6, seed=1)
    assert source.tensors["x"].data_ptr() == mapped.ctypes.data
    assert sorted(flat(rows_of(source))) == list(range(20))


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int8, np.float16])
def test_narrow_numbers_of_the_shards_come_out_whole(dtype):
    top = 65_000 if dtype == np.uint16 else 4_000_000_000 if dtype == np.uint32 else 100
    values = np.array([0, 1, top], dtype=dtype)
    source = TensorSource({"x": values}, batch=3, seed=1, shuffle=False)
    assert rows_of(source) == [[0, 1, top]]
    ragged = Ragged(values, np.array([0, 1, 3])).pad(torch.tensor([1, 0]), 2)
    assert ragged.tolist() == [[1, top], [0, 0]]


def test_balanced_batches_have_the_asked_share_and_see_all_positives():
    label = torch.zeros(200)
    label[:7] = 1
    arrays = {"x": torch.arange(200), "label": label}
    source = TensorSource(arrays, batch=20, seed=1, positive_fraction=0.25)
    batches = list(source.batches(0))
    assert [int(b["label"].sum()) for b in batches] == [5] * 10
    seen = torch.cat([b["x"][b["label"] > 0] for b in batches])
    assert sorted(seen[:7].unique().tolist()) == list(range(7))  # before any comes back
    counts = torch.bincount(seen, minlength=7)
    assert int(counts.max() - counts.min()) <= 1


def test_the_balanced_share_also_holds_for_a_subset():
    label = torch.tensor([1.0, 0, 0, 0, 1, 0, 0, 0])
    source = TensorSource(
        {"label": label}, batch=2, seed=1, positive_fraction=0.5, rows=torch.tensor([0, 1, 2, 3])
    )
    assert [int(b["label"].sum()) for b in source.batches(0)] == [1, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 0}, "batch=0"),
        ({"arrays": {"x": torch.zeros(3), "y": torch.zeros(2)}}, "'x': 3, 'y': 2"),
        ({"positive_fraction": 0.5, "block": 3}, "needs shuffle=True, block=None"),
        ({"arrays": {"x": np.zeros(3, dtype=">i4")}}, "native order"),
        ({"rows": torch.zeros(0)}, r"self.n_rows=0"),
    ],
)
def test_wrong_sources_are_named(changes, message):
    given = {"arrays": {"x": torch.zeros(3)}, "batch": 1, "seed": 1} | changes
    with pytest.raises(ValueError, match=message):
        TensorSource(given.pop("arrays"), **given)


def test_one_class_alone_cannot_be_balanced():
    source = TensorSource({"label": torch.ones(4)}, batch=2, seed=1, positive_fraction=0.5)
    with pytest.raises(ValueError, match="4 positive and 0 negative"):
        next(source.batches(0))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=50), st.integers(1, 40), st.integers(1, 5))
def test_buckets_hold_every_row_once_within_the_budget(lengths, tokens, grain):
    x = torch.arange(len(lengths))
    inside = torch.arange(12) < torch.tensor(lengths)[:, None]
    source = BucketSource(
        {"x": x, "items": inside.int()},
        lengths,
        tokens=tokens,
        seed=1,
        padded=("items",),
        grain=grain,
    )
    batches = list(source.batches(4))
    assert len(batches) == len(source)
    assert sorted(row for b in batches for row in b["x"].tolist()) == x.tolist()
    for batch in batches:
        own = torch.tensor(lengths)[batch["x"]]
        assert batch["items"].shape[1] == max(int(own.max()), 1)
        assert torch.equal(batch["items"].sum(dim=1), own)  # nothing was cut off
        assert batch["items"].numel() <= tokens or len(own) == 1
    assert len(list(source.batches(5))) == len(source)


def test_buckets_waste_little_and_ragged_rows_are_padded(generator):
    lengths = torch.randint(1, 100, (500,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    values = torch.arange(1, int(lengths.sum()) + 1)
    source = BucketSource({"ids": Ragged(values, offsets)}, lengths, tokens=1000, seed=1)
    batches = list(source.batches(0))
    padded = sum(batch["ids"].numel() for batch in batches)
    assert int(lengths.sum()) / padded > 0.93
    found = torch.cat([batch["ids"][batch["ids"] > 0] for batch in batches])
    assert torch.equal(found.sort().values, values)


def test_buckets_resume_in_the_middle_and_share_between_processes():
    lengths = [3, 1, 2, 5, 4, 2, 2]
    source = BucketSource({"x": torch.arange(7)}, lengths, tokens=6, seed=1)
    assert rows_of(source, 1)[2:] == rows_of(source, 1, start=2)
    both = zip(
        rows_of(source, 1, rank=0, world=2), rows_of(source, 1, rank=1, world=2), strict=True
    )
    assert [sorted(a + b) for a, b in both] == [sorted(rows) for rows in rows_of(source, 1)]
