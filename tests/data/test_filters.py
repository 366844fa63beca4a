"""Filters against loops over lists, and a funnel that loses no row without saying so."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data.filters import Filters, arrange, deduplicate, filter_interactions, k_core
from lib.data.interactions import Interactions

Row = tuple[int, int, int]  # user, item, time
YEAR_MS = 31_557_600_000
Y2020 = 1_577_836_800_000
OFF = {
    "min_rating": 0.0,
    "repeats": "keep",
    "user_core": 0,
    "item_core": 0,
    "start": "",
    "end": "",
    "min_items": 0,
}
ROWS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 5)), min_size=1, max_size=40
)


def rows_of(rows: list[Row], ratings: list[float] | None = None, **more: object) -> Interactions:
    users, items, times = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    values = {
        "users": users.astype(np.int32),
        "items": items.astype(np.int32),
        "times": times,
        "ratings": None if ratings is None else np.array(ratings, dtype=np.float32),
        "user_keys": pl.Series([str(i) for i in range(users.max() + 1)]),
        "item_keys": pl.Series([str(i) for i in range(items.max() + 1)]),
        "parents": None,
        "has_times": True,
        "n_raw": len(rows),
        "dropped": {},
        "repaired": {},
    }
    return Interactions(**(values | more))  # type: ignore[arg-type]


def listed(rows: Interactions) -> list[Row]:
    return list(zip(rows.users.tolist(), rows.items.tolist(), rows.times.tolist(), strict=True))


def core_by_loops(rows: list[Row], user_core: int, item_core: int) -> list[Row]:
    while True:
        users, items = Counter(u for u, _, _ in rows), Counter(i for _, i, _ in rows)
        kept = [r for r in rows if users[r[0]] >= user_core and items[r[1]] >= item_core]
        if len(kept) == len(rows):
            return rows
        rows = kept


@settings(max_examples=80, deadline=None)
@given(rows=ROWS, user_core=st.integers(0, 4), item_core=st.integers(0, 4))
def test_k_core_equals_loops(rows: list[Row], user_core: int, item_core: int) -> None:
    kept = k_core(rows_of(rows), user_core, item_core)
    assert listed(kept) == core_by_loops(rows, user_core, item_core)


@settings(max_examples=80, deadline=None)
@given(rows=ROWS)
def test_repeats_equal_loops(rows: list[Row]) -> None:
    timed = sorted(enumerate(rows), key=lambda row: (row[1][2], row[0]))
    last = {(u, i): n for n, (u, i, _) in timed}
    first = {(u, i): n for n, (u, i, _) in reversed(timed)}
    exact = {row: n for n, row in reversed(list(enumerate(rows)))}
    for how, kept in (("first", first), ("last", last), ("exact", exact)):
        wanted = [rows[n] for n in sorted(kept.values())]
        assert listed(deduplicate(rows_of(rows), how)) == wanted  # type: ignore[arg-type]
    assert listed(deduplicate(rows_of(rows), "keep")) == rows


@settings(max_examples=80, deadline=None)
@given(rows=ROWS, max_history=st.integers(0, 4))
def test_sequences_equal_sorted_lists(rows: list[Row], max_history: int) -> None:
    sequences = arrange(rows_of(rows), max_history)
    wanted = []
    for user in sorted({u for u, _, _ in rows}):
        own = sorted((r for r in rows if r[0] == user), key=lambda r: r[2])
        wanted.append(own[-max_history:] if max_history else own)
    numbers = sequences.item_numbers[sequences.items - 1].tolist()
    assert list(zip(numbers, sequences.times.tolist(), strict=True)) == [
        (item, time) for own in wanted for _, item, time in own
    ]
    assert np.diff(sequences.offsets).tolist() == [len(own) for own in wanted]
    assert sorted(set(sequences.items.tolist())) == list(range(1, len(sequences.item_numbers) + 1))


def test_a_negative_length_of_histories_is_refused() -> None:
    with pytest.raises(ValueError, match="max_history is -1"):
        arrange(rows_of([(0, 0, 1)]), -1)


def test_the_funnel_counts_every_step() -> None:
    rows = rows_of(
        [(0, 0, 1), (0, 1, 2), (0, 1, 2), (1, 0, 3), (1, 1, 4), (2, 2, 5)],
        ratings=[5, 5, 5, 5, 2, 5],
        n_raw=8,
        dropped={"broken JSON": 2},
    )
    filters = Filters(**(OFF | {"min_rating": 3.0, "repeats": "exact", "user_core": 2}))  # type: ignore[arg-type]
    kept, funnel = filter_interactions(rows, filters, np.array([True, True, False]))
    table = funnel.frame()
    assert table.select("step", "rows", "users", "items").rows() == [
        ("rows in the files", 8, None, None),
        ("without: broken JSON", 6, None, None),
        ("readable", 6, 3, 3),
        ("rating at least 3", 5, 3, 3),
        ("items with a usable title", 4, 2, 2),
        ("repeats: exact", 3, 2, 2),
        ("2-core of users, 0-core of items", 2, 1, 2),
    ]
    assert listed(kept) == [(0, 0, 1), (0, 1, 2)]


def test_rows_without_rating_do_not_pass_a_rating_filter() -> None:
    rows = rows_of([(0, 0, 1), (0, 1, 2)], ratings=[5, float("nan")])
    kept, _ = filter_interactions(rows, Filters(**(OFF | {"min_rating": 1.0})))  # type: ignore[arg-type]
    assert listed(kept) == [(0, 0, 1)]
    with pytest.raises(ValueError, match="the source has no ratings"):
        filter_interactions(rows_of([(0, 0, 1)]), Filters(**(OFF | {"min_rating": 1.0})))  # type: ignore[arg-type]


def test_a_window_begins_inclusive_and_ends_exclusive() -> None:
    rows = rows_of([(0, 0, Y2020 - 1), (0, 1, Y2020), (0, 2, Y2020 + YEAR_MS)])
    filters = Filters(**(OFF | {"start": "2020-01-01", "end": "2020-12-31T06:00"}))  # type: ignore[arg-type]
    kept, _ = filter_interactions(rows, filters)
    assert listed(kept) == [(0, 1, Y2020)]


def test_a_small_window_begins_years_earlier_until_it_has_enough_items() -> None:
    rows = rows_of([(0, i, Y2020 - i * YEAR_MS + 1000) for i in range(40)])
    more = {"start": "2020-01-01", "min_items": 5}
    kept, funnel = filter_interactions(rows, Filters(**(OFF | more)))  # type: ignore[arg-type]
    assert kept.count_items() == 5
    assert funnel.frame()["step"][-1] == "from 2016-01-01 to the end"
    kept, funnel = filter_interactions(rows, Filters(**(OFF | more | {"min_items": 99})))  # type: ignore[arg-type]
    assert funnel.frame()["step"][-1] == "from 1996-01-01 to the end"
    assert kept.count_items() == 25


def test_nothing_left_says_which_filter_took_the_last() -> None:
    with pytest.raises(ValueError, match=r"no interaction is left .*9-core of users.*: 0"):
        filter_interactions(rows_of([(0, 0, 1)]), Filters(**(OFF | {"user_core": 9})))  # type: ignore[arg-type]


def test_a_window_needs_times() -> None:
    with pytest.raises(ValueError, match="the source has no times"):
        filter_interactions(
            rows_of([(0, 0, 1)], has_times=False),
            Filters(**(OFF | {"end": "2020-01-01"})),  # type: ignore[arg-type]
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [({"user_core": -1}, "user_core is -1"), ({"min_items": 5}, "start is empty")],
)
def test_impossible_filters_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Filters(**(OFF | change))  # type: ignore[arg-type]


def test_an_unknown_rule_for_repeats_is_named() -> None:
    with pytest.raises(ValueError, match="repeats is 'newest'"):
        deduplicate(rows_of([(0, 0, 1)]), "newest")  # type: ignore[arg-type]


def test_a_sample_of_users_keeps_them_whole_and_is_always_the_same():
    rows = rows_of([(user, item, item) for user in range(40) for item in range(user % 5 + 1)])
    filters = Filters(**(OFF | {"max_users": 12}))  # type: ignore[arg-type]
    kept, funnel = filter_interactions(rows, filters)
    again, _ = filter_interactions(rows, filters)
    assert kept.count_users() == 12
    assert funnel.steps[-1]["users"] == 12
    np.testing.assert_array_equal(kept.users, again.users)
    for user in np.unique(kept.users):
        assert (kept.users == user).sum() == (rows.users == user).sum()
    everyone, _ = filter_interactions(rows, Filters(**(OFF | {"max_users": 99})))  # type: ignore[arg-type]
    assert len(everyone) == len(rows)
