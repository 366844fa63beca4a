"""Sequences: the vectorised parser against split and int, statistics against counting."""

import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data import sequences
from lib.data.sequences import parse_sequences, sequence_statistics

ROWS = st.lists(st.none() | st.lists(st.integers(0, 10**6), max_size=8), max_size=25)


def to_texts(rows):
    texts = [None if row is None else ",".join(map(str, row)) for row in rows]
    return pa.array(texts, pa.string())


@given(ROWS)
@settings(max_examples=80, deadline=None)
def test_parsing_equals_split_and_int(rows):
    lengths, tokens = parse_sequences(to_texts(rows))
    assert lengths.tolist() == [len(row or []) for row in rows]
    assert tokens.tolist() == [token + 2 for row in rows for token in row or []]


def test_chunks_and_slices_do_not_change_the_result(monkeypatch):
    rows = [[i, i * 7 % 1000] * (i % 4) for i in range(50)]
    whole = parse_sequences(to_texts(rows))
    monkeypatch.setattr(sequences, "CHUNK_ROWS", 3)
    for found, expected in zip(parse_sequences(to_texts(rows)), whole, strict=True):
        np.testing.assert_array_equal(found, expected)
    lengths, _ = parse_sequences(to_texts([[9], *rows]).slice(1))
    np.testing.assert_array_equal(lengths, whole[0])


@pytest.mark.parametrize(
    ("largest", "dtype"), [(253, "uint8"), (254, "uint16"), (70_000, "uint32")]
)
def test_tokens_have_the_smallest_type_that_holds_them(largest, dtype):
    assert str(parse_sequences(pa.array([str(largest)]))[1].dtype) == dtype


@pytest.mark.parametrize(
    ("text", "bad"),
    [("1,-5,2", "'-5'"), ("1,,2", "''"), (",1", "''"), ("1,2,", "''"), ("1;2", "'1;2'"),
     ("1, 2", "' 2'"), ("3,9999999999", "'9999999999'"), ("7,٣", "'٣'"), ("nan", "'nan'")],
)  # fmt: skip
def test_what_is_not_an_id_is_an_error_with_its_row(text, bad):
    texts = pa.array(["1,2", "", text])
    with pytest.raises(ValueError, match=rf"data row 103: {bad} in"):
        parse_sequences(texts, first_row=100)


def statistics_by_loop(row):
    if not row:
        return [0.0] * 5
    counts = Counter(row)
    share = [n / len(row) for n in counts.values()]
    entropy = -sum(p * math.log(p) for p in share)
    last = counts[row[-1]] / len(row)
    n, distinct = len(row), len(counts)
    return [math.log1p(n), math.log1p(distinct), distinct / n, entropy, last]


@given(st.lists(st.lists(st.integers(0, 5) | st.integers(0, 2**32 - 1), max_size=7), max_size=20))
@settings(max_examples=80, deadline=None)
def test_statistics_equal_counting(rows):
    offsets = np.cumsum([0, *map(len, rows)])
    tokens = np.array([token for row in rows for token in row], np.uint32)
    expected = np.array([statistics_by_loop(row) for row in rows]).reshape(len(rows), 5)
    np.testing.assert_allclose(sequence_statistics(offsets, tokens), expected, atol=1e-6)
