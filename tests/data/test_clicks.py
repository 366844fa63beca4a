"""Clicks on disk: what comes back is what went in, and nothing half-written opens."""

import json
import pickle
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.clicks import SPLITS, Clicks, Layout
from lib.data.clicks_writer import write_clicks
from lib.data.files import MANIFEST

LAYOUT = Layout(
    fields=("a", "b"),
    field_sizes=(4, 5),
    numeric_names=("x",),
    missing_names=("missing:x",),
    n_tokens=12,
)


def make_arrays(n, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 6, n).astype(np.int32)
    return {
        "categorical": rng.integers([0, 4], [4, 9], (n, 2)).astype(np.int32),
        "numeric": rng.normal(size=(n, 1)).astype(np.float32),
        "missing": rng.integers(0, 2, (n, 1)).astype(np.uint8),
        "label": rng.integers(0, 2, n).astype(np.int8),
        "fold": rng.integers(-1, 3, n).astype(np.int16),
        "group": rng.integers(0, 9, n).astype(np.int32),
        "split": rng.integers(0, 3, n).astype(np.uint8),
        "lengths": lengths,
        "tokens": rng.integers(2, 12, lengths.sum()).astype(np.uint8),
    }


def in_batches(arrays, size, encoded=None):
    ends = np.concatenate([[0], np.cumsum(arrays["lengths"])])
    n = len(arrays["label"])
    for first in range(0, n, size):
        last = min(first + size, n)

        def encode(first=first, last=last):
            if encoded is not None:
                encoded.append(first)
            part = {name: a[first:last] for name, a in arrays.items() if name != "tokens"}
            return part | {"tokens": arrays["tokens"][ends[first] : ends[last]]}

        yield last - first, encode


def write(folder, arrays, *, batch=7, shard_rows=10, recipe="r", encoded=None):
    batches = in_batches(arrays, batch, encoded)
    n = len(arrays["label"])
    return write_clicks(folder, LAYOUT, batches, n_rows=n, shard_rows=shard_rows, recipe=recipe)


def tokens_of(arrays, row):
    ends = np.concatenate([[0], np.cumsum(arrays["lengths"])])
    return arrays["tokens"][ends[row] : ends[row + 1]].tolist()


@pytest.mark.parametrize("shard_rows", [1, 10, 37, 1000])
@pytest.mark.parametrize("batch", [1, 7, 50])
def test_take_returns_the_rows_that_were_written(tmp_path, shard_rows, batch):
    arrays = make_arrays(37)
    clicks = write(tmp_path / "c", arrays, batch=batch, shard_rows=shard_rows)
    wanted = [36, 0, 5, 5, 17]
    rows = clicks.take(wanted)
    for name in ("categorical", "numeric", "missing", "label", "fold", "group", "split"):
        np.testing.assert_array_equal(getattr(rows, name), arrays[name][wanted])
        np.testing.assert_array_equal(getattr(clicks, name), arrays[name])
    offsets, tokens = rows.sequence
    for place, row in enumerate(wanted):
        assert tokens[offsets[place] : offsets[place + 1]].tolist() == tokens_of(arrays, row)


@given(st.lists(st.integers(0, 36), max_size=20), st.integers(1, 7))
@settings(max_examples=30, deadline=None)
def test_take_of_the_newest_tokens_is_the_end_of_each_sequence(tmp_path_factory, wanted, max_len):
    folder = tmp_path_factory.getbasetemp() / "shared_clicks"
    arrays = make_arrays(37)
    clicks = Clicks.open(folder) if folder.exists() else write(folder, arrays)
    offsets, tokens = clicks.take(wanted, max_len=max_len).sequence
    padded, lengths = clicks.take(wanted).padded(max_len)
    for place, row in enumerate(wanted):
        newest = tokens_of(arrays, row)[-max_len:]
        assert tokens[offsets[place] : offsets[place + 1]].tolist() == newest
        assert padded[place, : lengths[place]].tolist() == newest
        assert not padded[place, lengths[place] :].any()


def test_a_token_above_the_range_of_training_reads_as_unseen(tmp_path):
    arrays = make_arrays(20)
    arrays["tokens"] = np.full(len(arrays["tokens"]), 200, np.uint8)
    clicks = write(tmp_path / "c", arrays)
    assert set(clicks.load().sequence[1].tolist()) == {1}


def test_a_dataset_is_sent_to_another_process_without_its_rows(tmp_path):
    arrays = make_arrays(20_000)
    clicks = write(tmp_path / "c", arrays, batch=20_000, shard_rows=20_000)
    assert len(clicks.label) == len(clicks.load().label)  # everything is mapped now
    sent = pickle.dumps(clicks)
    assert len(sent) < 1_000
    np.testing.assert_array_equal(pickle.loads(sent).label, arrays["label"])


def test_rows_of_the_splits_are_disjoint_and_complete(tmp_path):
    clicks = write(tmp_path / "c", make_arrays(37))
    together = np.sort(np.concatenate([clicks.rows(split) for split in SPLITS]))
    np.testing.assert_array_equal(together, clicks.rows(None))
    with pytest.raises(ValueError, match="'validation' is not one of train, valid, test"):
        clicks.rows("validation")


def test_tokens_keep_the_smallest_type_even_when_it_grows_midway(tmp_path):
    arrays = make_arrays(20)
    wide = arrays["tokens"].astype(np.uint16)
    ends = np.cumsum(arrays["lengths"])
    wide[ends[9] :] += 300  # the second batch of the shard needs more than a byte
    halves = [(0, 10), (10, 20)]

    def encode(first, last):
        part = {name: a[first:last] for name, a in arrays.items() if name != "tokens"}
        low, high = (0 if first == 0 else ends[first - 1]), ends[last - 1]
        return part | {"tokens": wide[low:high].astype(np.uint8 if first == 0 else np.uint16)}

    batches = ((10, lambda bounds=bounds: encode(*bounds)) for bounds in halves)
    layout = Layout(fields=("a", "b"), field_sizes=(4, 5), numeric_names=("x",),
                    missing_names=("m",), n_tokens=400)  # fmt: skip
    clicks = write_clicks(tmp_path / "c", layout, batches, n_rows=20)
    _, tokens = clicks.load().sequence
    assert tokens.dtype == np.uint16
    np.testing.assert_array_equal(tokens, wide)


def test_only_missing_and_damaged_shards_are_built_again(tmp_path):
    arrays, folder, encoded = make_arrays(40), tmp_path / "c", []
    before = write(folder, arrays, batch=10, encoded=encoded).load()
    assert sorted(encoded) == [0, 10, 20, 30]
    (folder / "00001.label.npy").unlink()
    damaged = bytearray((folder / "00003.numeric.npy").read_bytes())
    damaged[-1] ^= 1
    (folder / "00003.numeric.npy").write_bytes(bytes(damaged))
    encoded.clear()
    after = write(folder, arrays, batch=10, encoded=encoded).load()
    assert sorted(encoded) == [10, 30]
    np.testing.assert_array_equal(before.numeric, after.numeric)
    np.testing.assert_array_equal(before.label, after.label)
    encoded.clear()
    write(folder, arrays, batch=10, recipe="another", encoded=encoded)
    assert sorted(encoded) == [0, 10, 20, 30]


def test_a_writer_that_dies_leaves_nothing_that_opens(tmp_path):
    folder, arrays = tmp_path / "c", make_arrays(40)

    def dies():
        yield from list(in_batches(arrays, 10))[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_clicks(folder, LAYOUT, dies(), n_rows=40, shard_rows=15, recipe="r")
    with pytest.raises(FileNotFoundError, match="interrupted"):
        Clicks.open(folder)
    assert not list(folder.glob(".partial-*"))
    assert len(write(folder, arrays, shard_rows=15)) == 40


def test_a_dataset_with_a_file_cut_short_is_refused(tmp_path):
    folder = tmp_path / "c"
    write(folder, make_arrays(20))
    path = folder / "00000.categorical.npy"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"00000\.categorical\.npy"):
        Clicks.open(folder)


def test_a_changed_byte_is_found_when_hashes_are_asked_for(tmp_path):
    folder = tmp_path / "c"
    write(folder, make_arrays(20))
    data = bytearray((folder / "00001.label.npy").read_bytes())
    data[-1] ^= 1
    (folder / "00001.label.npy").write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"00001\.label\.npy \(another sha256\)"):
        Clicks.open(folder, hashes=True)


def test_the_manifest_names_every_array_with_shape_and_type(tmp_path):
    folder = tmp_path / "c"
    write(folder, make_arrays(20))
    files = json.loads((folder / MANIFEST).read_text())["files"]
    note = json.loads((folder / "00001.json").read_text())
    assert note["files"]["00001.categorical.npy"]["shape"] == [10, 2]
    assert note["files"]["00001.categorical.npy"]["dtype"] == "int32"
    assert note["files"].keys() <= files.keys()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("categorical", 9, "field 'b' has ids outside its range"),
        ("numeric", np.nan, "numeric column 'x' has NaN or infinity"),
        ("label", 2, "labels from 0 to 2, expected 0, 1"),
    ],
)
def test_a_value_that_no_model_could_take_is_refused(tmp_path, name, value, message):
    arrays = make_arrays(20)
    array = arrays[name]
    array[(3, 1) if name == "categorical" else 3] = value
    arrays["label"][0] = 0
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "c", arrays)


def test_no_rows_and_wrong_counts_are_refused(tmp_path):
    arrays = make_arrays(20)
    with pytest.raises(ValueError, match="no rows to write"):
        write_clicks(tmp_path / "c", LAYOUT, [], n_rows=0)
    with pytest.raises(ValueError, match="20 rows came, 21 were announced"):
        write_clicks(tmp_path / "d", LAYOUT, in_batches(arrays, 20), n_rows=21)
    clicks = write(tmp_path / "e", arrays)
    with pytest.raises(IndexError, match="of a dataset of 20 rows"):
        clicks.take([20])
    assert len(clicks.take([])) == 0


def test_a_dataset_without_numbers_or_sequences_gives_empty_columns(tmp_path):
    layout = Layout(fields=("a",), field_sizes=(3,))
    arrays = make_arrays(6)
    arrays["categorical"] = np.zeros((6, 1), np.int32)
    for name in ("numeric", "missing"):
        arrays[name] = arrays[name][:, :0]
    del arrays["lengths"], arrays["tokens"]
    clicks = write_clicks(tmp_path / "c", layout, [(6, lambda: arrays)], n_rows=6, shard_rows=4)
    rows = clicks.load()
    assert rows.numeric.shape == rows.missing.shape == (6, 0)
    assert rows.sequence is None
    with pytest.raises(ValueError, match="have no sequence"):
        rows.padded(3)


def test_opening_takes_less_than_a_fifth_of_a_second(tmp_path):
    write(tmp_path / "c", make_arrays(2000), batch=2000, shard_rows=20)
    start = time.perf_counter()
    Clicks.open(tmp_path / "c")
    assert time.perf_counter() - start < 0.2


def test_a_layout_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="do not fit int32"):
        Layout(fields=("a",), field_sizes=(2**31,))
    with pytest.raises(ValueError, match="names occur twice"):
        Layout(fields=("a", "a"), field_sizes=(2, 2))
    with pytest.raises(ValueError, match="1 fields but 2 sizes"):
        Layout(fields=("a",), field_sizes=(2, 2))
