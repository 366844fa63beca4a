"""Ids of values: sorted and fitted, or hashed by a rule that stays."""

import subprocess
import sys
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data import vocabulary
from lib.data.vocabulary import (
    fit_buckets,
    fit_vocabulary,
    hash_series,
    save_vocabularies,
    stable_hash,
)


def counted(values):
    counts = Counter(values)
    return pl.DataFrame({"value": list(counts), "count": list(counts.values())}, strict=False)


def encode_by_loop(values, train, min_count):
    counts = Counter(value for value in train if value is not None)
    kept = sorted(value for value, n in counts.items() if n >= min_count)
    ids = {value: place + 2 for place, value in enumerate(kept)}
    return [0 if value is None else ids.get(value, 1) for value in values]


@given(
    st.lists(st.none() | st.sampled_from(["a", "b", "é", "", "01", "1"]), min_size=1, max_size=30),
    st.lists(st.none() | st.sampled_from(["a", "b", "zzz", "01", ""]), max_size=20),
    st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_text_ids_equal_the_loop(train, values, min_count):
    frame = pl.DataFrame({"value": pl.Series(train, dtype=pl.String)})
    counts = frame.group_by("value").agg(pl.len().alias("count"))
    fitted = fit_vocabulary("f", counts, min_count=min_count)
    found = fitted.encode(pl.Series(values, dtype=pl.String))
    assert found.tolist() == encode_by_loop(values, train, min_count)


@pytest.mark.parametrize("span", [5, 2**40])  # looked up in an array, and by bisection
@given(st.lists(st.none() | st.integers(-6, 6), min_size=1, max_size=30), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_number_ids_equal_the_loop(span, values, min_count):
    train = [None, -3, -3, 0, 1, 1, 1, span]
    counts = pl.DataFrame({"value": train}).group_by("value").agg(pl.len().alias("count"))
    fitted = fit_vocabulary("f", counts, min_count=min_count)
    expected = encode_by_loop(values, train, min_count)
    assert fitted.encode(pl.Series(values, dtype=pl.Int64)).tolist() == expected
    assert fitted.encode(pl.Series(values, dtype=pl.Float32)).tolist() == expected


def test_floats_that_are_whole_are_one_value_with_their_integer():
    fitted = fit_vocabulary("f", counted([14.0, 15.0, None]))
    assert fitted.encode(pl.Series([14.0, 14.5, float("nan"), None])).tolist() == [2, 1, 0, 0]


def test_a_field_without_any_known_value_is_all_rare_or_missing():
    fitted = fit_vocabulary("f", counted(["a"]), min_count=2)
    assert fitted.size == 2
    assert fitted.encode(pl.Series(["a", None])).tolist() == [1, 0]


def test_fnv_state_has_the_published_vectors():
    published = {b"": 0xCBF29CE484222325, b"a": 0xAF63DC4C8601EC8C, b"foobar": 0x85944171F73967E8}
    for data, state in published.items():
        assert vocabulary._fnv(vocabulary.FNV_OFFSET, data) == state


@given(st.lists(st.text(max_size=12), min_size=1, max_size=20), st.text(max_size=3))
@settings(max_examples=60, deadline=None)
def test_hashes_of_a_column_equal_the_specification(texts, salt):
    found = hash_series(pl.Series(texts), salt=salt, field="f")
    assert found.tolist() == [stable_hash(f"{salt}\x1ff\x1f{text}") for text in texts]


def test_numbers_hash_by_their_digits_and_fractions_by_their_bits():
    found = hash_series(pl.Series([14.0, 0.5]), salt="s", field="f").tolist()
    bits = np.float64(0.5).view(np.uint64)
    assert found == [stable_hash("s\x1ff\x1f14"), stable_hash(f"s\x1ff\x1ff{int(bits):016x}")]
    assert hash_series(pl.Series([14]), salt="s", field="f").tolist() == found[:1]


def test_hashes_are_the_same_in_another_process():
    code = (
        "import polars as pl; from lib.data.vocabulary import hash_series; "
        "print(hash_series(pl.Series(['x', 'yy']), salt='s', field='f').tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = hash_series(pl.Series(["x", "yy"]), salt="s", field="f").tolist()
    assert done.stdout.strip() == str(here)


def test_salt_and_field_change_the_hash():
    same = pl.Series(["x"])
    assert len({hash_series(same, salt=s, field=f)[0] for s in "ab" for f in "cd"}) == 4


def test_buckets_follow_the_margin_up_to_the_limit():
    counts = counted([str(i) for i in range(100)])
    assert fit_buckets("f", counts, buckets=10**6, margin=0.25, salt="").size == 125 + 2
    assert fit_buckets("f", counts, buckets=50, margin=0.25, salt="").size == 50 + 2
    ids = fit_buckets("f", counts, buckets=10**6, margin=0.25, salt="").encode(
        pl.Series(["1", "never seen", None])
    )
    assert ids[2] == 0
    assert (ids[:2] >= 2).all()
    with pytest.raises(ValueError, match="margin"):
        fit_buckets("f", counts, buckets=1, margin=-1, salt="")


def test_saved_vocabularies_name_each_value_with_id_and_count(tmp_path):
    fitted = fit_vocabulary("f", counted(["b", "a", "b"]))
    save_vocabularies(tmp_path / "v.parquet", [fitted])
    rows = pl.read_parquet(tmp_path / "v.parquet").rows()
    assert rows == [("f", "a", 2, 1), ("f", "b", 3, 2)]
