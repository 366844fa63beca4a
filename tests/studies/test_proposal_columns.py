"""The kind of a column: by property for what must hold for any column, by example for the rest."""

from datetime import UTC, date, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.studies.proposal_columns import as_text, describe_column, number_of, time_of

SENSIBLE_DAYS = st.dates(date(1990, 1, 2), date(2099, 12, 30))


def column(name, values):
    return describe_column(pl.Series(name, [None if v is None else str(v) for v in values]))


def repeated(values, times=25):
    return list(values) * times


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-5, 9), min_size=2, max_size=12, unique=True))
def test_whole_numbers_of_few_values_are_a_category(values):
    found = column("rank", repeated(values))
    assert found.kind == "category"
    assert found.distinct == len(values)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=12)), max_size=60))
def test_any_text_gets_one_kind_and_honest_counts(values):
    series = pl.Series("anything", values, dtype=pl.String)
    found = describe_column(series)
    assert found.reason
    assert 0 <= found.missing <= 1
    assert found.distinct <= len({value for value in values if value is not None})
    assert found.n == len(values)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 10**12), min_size=20, max_size=80, unique=True), st.randoms())
def test_a_column_of_ids_is_a_row_id_only_where_each_row_has_its_own(values, rng):
    assert column("order_id", values).kind == "row id"
    doubled = values + values
    rng.shuffle(doubled)
    assert column("order_id", doubled).kind == "category"


@settings(max_examples=60, deadline=None)
@given(st.lists(SENSIBLE_DAYS, min_size=2, max_size=40, unique=True),
       st.sampled_from(["%Y-%m-%d", "%d.%m.%Y", "%Y-%m-%dT%H:%M:%S"]))  # fmt: skip
def test_dates_are_read_back_to_the_day_whatever_the_column_is_called(days, form):
    texts = [datetime(d.year, d.month, d.day, tzinfo=UTC).strftime(form) for d in days]
    found = column("whatever", texts)
    assert found.kind == "time"
    read = pl.DataFrame({"whatever": texts}).select(time_of("whatever", found.form))["whatever"]
    expected = [int(datetime(d.year, d.month, d.day, tzinfo=UTC).timestamp() * 1000) for d in days]
    assert read.to_list() == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1_000_000_000, 1_900_000_000), min_size=3, max_size=40, unique=True),
       st.sampled_from(["s", "ms", "us", "ns"]))  # fmt: skip
def test_an_epoch_is_a_time_under_a_name_that_says_so_and_else_a_number(seconds, unit):
    factor = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    values = [second * factor for second in seconds]
    found = column("timestamp", values)
    assert (found.kind, found.form) == ("time", unit)
    read = pl.DataFrame({"t": [str(v) for v in values]}).select(time_of("t", unit))["t"]
    assert read.to_list() == pytest.approx([second * 1000 for second in seconds])
    assert column("income", values).kind != "time"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6).map(lambda x: round(x, 3)), min_size=30, max_size=80,
                unique=True), st.booleans())  # fmt: skip
def test_decimals_are_numbers_with_a_point_or_a_comma(values, german):
    texts = [f"{value:.3f}".replace(".", ",") if german else f"{value:.3f}" for value in values]
    # "1,234" could be a thousand: a column with other decimals settles it
    texts.append("0,5" if german else "0.5")
    found = column("price", texts)
    assert found.kind == "number"
    read = pl.DataFrame({"price": texts}).select(number_of("price", found.form))["price"]
    assert read.to_list() == pytest.approx([*values, 0.5])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["", "NA", "null", "NaN", "?", " "]), max_size=30))
def test_cells_that_say_nothing_are_missing_and_never_a_value(nothing):
    found = column("x", [*nothing, "a", "b"])
    assert found.distinct == 2
    assert found.missing == pytest.approx(len(nothing) / (len(nothing) + 2))
    assert column("x", nothing).reason == "nothing in it"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 999), min_size=2, max_size=6), min_size=3, max_size=30))
def test_joined_ids_are_a_sequence(histories):
    found = column("history", ["|".join(map(str, each)) for each in histories] + ["5|6|7", "8|9"])
    assert found.kind == "sequence"
    assert found.form == "|"


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("market", ["DE"] * 30, "constant"),
        ("age", [18 + n % 70 for n in range(400)], "number"),
        ("C14", [1000 + 97 * (n % 60) for n in range(900)], "category"),  # codes with gaps
        ("year", [1950 + n % 60 for n in range(300)], "category"),  # far from zero, narrow
        ("plz", [f"0{1000 + n % 300}" for n in range(900)], "category"),  # a leading zero
        ("views", [n * n for n in range(200)], "number"),
        ("amount", [f"{n % 90},{n % 10}0" for n in range(200)], "number"),
        ("1,000s", ["1,200", "13,450", "999", "1,000,000"] * 10, "number"),
        ("mixed", ["1", "2", "three"] * 10, "category"),
        ("comment", [f"free words about thing {n} here" for n in range(50)], "text"),
        ("hash", [f"{n:08x}f" for n in range(50)], "row id"),
        ("hour", [14102100 + n % 24 for n in range(100)], "time"),  # as Avazu writes it
        ("when", ["13/05/2024", "02/06/2024", "11/07/2024"] * 9, "time"),
    ],
)  # fmt: skip
def test_examples(name, values, kind):
    assert column(name, values).kind == kind


def test_a_day_above_twelve_says_which_of_two_numbers_is_the_month():
    found = column("when", ["13/05/2024", "02/06/2024"])
    assert found.form == "%d/%m/%Y"
    assert column("when", ["05/13/2024", "06/02/2024"]).form == "%m/%d/%Y"


def test_typed_columns_become_text_without_losing_what_they_say():
    frame = pl.LazyFrame({
        "id": pl.Series([1.0, None, 3.0]), "price": [1.5, float("nan"), 2.25],
        "seen": [[1, 2], [], [30]], "yes": [True, False, None], "deep": [{"a": 1}] * 3,
        "at": [datetime(2024, 1, 2, 3, 4, 5)] * 3,
    }, strict=False)  # fmt: skip
    text = as_text(frame).collect()
    assert text["id"].to_list() == ["1", None, "3"]  # what pandas makes of whole ids with a gap
    assert text["seen"].to_list() == ["1,2", "", "30"]
    assert text["yes"].to_list() == ["1", "0", None]
    assert text["deep"].to_list() == [None] * 3
    assert describe_column(text["at"]).kind == "constant"
    assert text.select(number_of("price", "."))["price"].to_list() == [1.5, None, 2.25]
