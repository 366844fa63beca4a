"""Avazu: three variants of the same rows give one schema, and broken ones are refused."""

import gzip

import numpy as np
import polars as pl
import pytest

from lib.data.avazu import CONTENT, FEATURES, find_duplicates, normalise_avazu, prepare_avazu
from lib.data.clicks import SPLITS
from lib.data.overlap import measure_overlap
from lib.data.tabular import find_sources

TEXT = CONTENT[2:11]


def make_rows(n, seed=0):
    """What happened: label, hours since 21 October, and a small integer per content column."""
    rng = np.random.default_rng(seed)
    codes = {name: (rng.pareto(1.0, n) * 3).astype(int) % 60 for name in CONTENT}
    return {"label": rng.integers(0, 2, n), "hours": np.sort(rng.integers(0, 240, n)), **codes}


def write_x1(path, rows):
    columns = {"label": rows["label"]}
    for number, name in enumerate(CONTENT, start=1):
        columns[f"feat_{number}"] = rows[name] * 3 + number * 1000
    columns["feat_22"] = rows["hours"] % 24 + 1_544_248
    pl.DataFrame(columns).write_csv(path)


def write_x2(path, rows):
    columns = {"click": rows["label"]}
    for number, name in enumerate(reversed(CONTENT), start=1):  # named, so order must not matter
        columns[name] = rows[name] * 2 + number * 500
    columns["mday"] = rows["hours"] // 24 + 645_154
    columns["hour"] = rows["hours"] % 24 + 645_164
    columns["wday"] = (rows["hours"] // 24 + 1) % 7 + 645_188
    pl.DataFrame(columns).write_csv(path)


def write_x4(path, rows, header=True):
    n = len(rows["label"])
    day, hour = rows["hours"] // 24, rows["hours"] % 24
    columns = {"id": np.arange(n) + 10**18, "click": rows["label"]}
    columns["hour"] = 14_102_100 + day * 100 + hour
    for name in CONTENT:
        raw = [f"{code:08x}" for code in rows[name] * 7919 + 1] if name in TEXT else rows[name] - 1
        columns[name] = raw
    pl.DataFrame(columns).write_csv(path, include_header=header)


WRITERS = {"x1": write_x1, "x2": write_x2, "x4": write_x4}


def pick(rows, index):
    return {name: values[index] for name, values in rows.items()}


def same_partition(left, right):
    """Whether two columns differ by the names of their values only."""
    pairs = set(zip(list(left), list(right), strict=True))
    return len(pairs) == len(set(left)) == len(set(right))


@pytest.fixture
def tables(tmp_path):
    rows = make_rows(500)
    for variant, write in WRITERS.items():
        write(tmp_path / f"{variant}.csv", rows)
        normalise_avazu(
            tmp_path / f"{variant}.csv", tmp_path / f"{variant}.parquet", variant=variant
        )
    return rows, {variant: pl.read_parquet(tmp_path / f"{variant}.parquet") for variant in WRITERS}


def test_the_three_variants_say_the_same_in_one_schema(tables):
    rows, found = tables
    for table in found.values():
        assert table.columns[:24] == ["label", *FEATURES, "split", "hour"]
        assert table["label"].to_list() == rows["label"].tolist()
        assert table["hour"].to_list() == (rows["hours"] % 24).tolist()
        for feature, name in zip(FEATURES, CONTENT, strict=True):
            assert same_partition(table[feature], rows[name]), feature


def test_the_last_feature_of_x1_is_c21_and_the_hour_is_apart(tables):
    rows, found = tables
    assert found["x1"]["feat_21"].to_list() == (rows["C21"] * 3 + 21_000).tolist()


@pytest.mark.parametrize("variant", ["x2", "x4"])
def test_the_calendar_is_that_of_october_2014(tmp_path, variant):
    rows = make_rows(300)
    WRITERS[variant](tmp_path / "t.csv", rows)
    target = tmp_path / "t.parquet"
    normalise_avazu(tmp_path / "t.csv", target, variant=variant, extra="calendar")
    table = pl.read_parquet(target)
    days = np.datetime64("2014-10-21") + rows["hours"] // 24
    weekday = [day.astype(object).isoweekday() for day in days]
    assert table["weekday"].to_list() == weekday
    assert table["weekend"].to_list() == [int(day > 5) for day in weekday]


def test_x1_has_no_calendar(tmp_path):
    with pytest.raises(ValueError, match="x1 has none"):
        normalise_avazu(tmp_path / "t", tmp_path / "u", variant="x1", extra="calendar")


@pytest.mark.parametrize("variant", ["x1", "x2", "x4"])
def test_a_variant_becomes_a_dataset_with_its_splits(tmp_path, variant):
    rows = make_rows(600)
    for split, part in (
        ("train", slice(0, 480)),
        ("valid", slice(480, 540)),
        ("test", slice(540, 600)),
    ):
        if (variant, split) != ("x2", "valid"):
            WRITERS[variant](tmp_path / f"{split}.csv", pick(rows, part))
    clicks = prepare_avazu(
        tmp_path / "out", find_sources(tmp_path), variant=variant, scratch=tmp_path / "s",
        min_count=2, shard_rows=100,
    )  # fmt: skip
    assert clicks.fields == [*FEATURES, "hour"]
    sizes = [len(clicks.rows(split)) for split in SPLITS]
    if variant == "x2":
        assert sizes[0] + sizes[1] == 480
        assert 20 < sizes[1] < 110  # an eighth of 480, by hash
    else:
        assert sizes == [480, 60, 60]
    train = clicks.take(clicks.rows("train")).categorical - clicks.field_offsets
    counts = np.bincount(train[:, 13])[2:]
    assert counts.min() >= 2
    assert train.min() >= 1  # nothing is missing
    again = prepare_avazu(
        tmp_path / "again", find_sources(tmp_path), variant=variant, scratch=tmp_path / "s2",
        shard_rows=100,
    )  # fmt: skip
    np.testing.assert_array_equal(again.split, clicks.split)


def test_a_file_without_header_is_read_by_position(tmp_path):
    rows = make_rows(40)
    write_x4(tmp_path / "bare.csv", rows, header=False)
    write_x4(tmp_path / "named.csv", rows)
    for name in ("bare", "named"):
        normalise_avazu(tmp_path / f"{name}.csv", tmp_path / f"{name}.parquet", variant="x4")
    assert pl.read_parquet(tmp_path / "bare.parquet").equals(
        pl.read_parquet(tmp_path / "named.parquet")
    )


def test_duplicate_ids_are_counted_and_can_be_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.data.avazu.IDS_AT_ONCE", 7)  # several passes over the hash space
    write_x4(tmp_path / "train.csv", make_rows(40))
    table = tmp_path / "t.parquet"
    normalise_avazu(tmp_path / "train.csv", table, variant="x4")
    assert find_duplicates(table) == 0
    lines = (tmp_path / "train.csv").read_text().splitlines()
    (tmp_path / "train.csv").write_text("\n".join([*lines, lines[3], lines[3], lines[9]]) + "\n")
    normalise_avazu(tmp_path / "train.csv", table, variant="x4")
    assert find_duplicates(table) == 3
    options = {"variant": "x4", "scratch": tmp_path / "s"}
    clicks = prepare_avazu(tmp_path / "out", find_sources(tmp_path), **options)
    assert clicks.reports["duplicate_ids"] == {"train": 3}
    with pytest.raises(ValueError, match="ids occur twice"):
        prepare_avazu(tmp_path / "o", find_sources(tmp_path), duplicate_ids="refuse", **options)


def spoil(lines, row, column, value):
    header, cells = lines[0].split(","), lines[row].split(",")
    cells[header.index(column)] = value
    return [*lines[:row], ",".join(cells), *lines[row + 1 :]]


@pytest.mark.parametrize(
    ("variant", "column", "value", "message"),
    [
        ("x1", "label", "3", r"label is 3 in data row 5 \(1 such rows\), expected 0 or 1"),
        ("x1", "feat_22", "645170", "hour is -899078 in data row 5.*right"),
        ("x1", "feat_4", "-7", "feat_4 is -7 in data row 5.*an id from 0"),
        ("x1", "feat_4", "", "empty cells in {'feat_4': 1}"),
        ("x2", "hour", "14102105", "hour is .* expected 0..23"),
        ("x2", "C15", "2.5", "cannot be read as a click table"),
        ("x4", "hour", "1413849600", "hour is -1 in data row 5.*not of seconds"),
        ("x4", "hour", "14103124", "hour is 24 in data row 5"),
        ("x4", "C14", "a99f214a", "cannot be read as a click table"),
        ("x4", "click", "", "empty cells in {'label': 1}"),
    ],
)
def test_a_wrong_cell_is_refused_with_its_row(tmp_path, variant, column, value, message):
    WRITERS[variant](tmp_path / "t.csv", make_rows(20))
    lines = spoil((tmp_path / "t.csv").read_text().splitlines(), 5, column, value)
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=message):
        normalise_avazu(tmp_path / "t.csv", tmp_path / "t.parquet", variant=variant)
    assert not (tmp_path / "t.parquet").exists()


def test_a_line_cut_in_the_middle_is_refused(tmp_path):
    write_x4(tmp_path / "t.csv", make_rows(20))
    text = (tmp_path / "t.csv").read_text()
    (tmp_path / "t.csv").write_text(text[: len(text) - 30])
    with pytest.raises(ValueError, match=r"rows were cut off|cannot be read as a click table"):
        normalise_avazu(tmp_path / "t.csv", tmp_path / "t.parquet", variant="x4")


def test_the_wrong_variant_is_named_by_its_missing_column(tmp_path):
    write_x2(tmp_path / "t.csv", make_rows(20))
    with pytest.raises(ValueError, match="no column 'label'"):
        normalise_avazu(tmp_path / "t.csv", tmp_path / "t.parquet", variant="x1")


def test_gzip_gives_the_same_table_and_a_cut_one_is_refused(tmp_path):
    write_x4(tmp_path / "t.csv", make_rows(4000))
    data = gzip.compress((tmp_path / "t.csv").read_bytes())
    (tmp_path / "t.csv.gz").write_bytes(data)
    for name in ("t.csv", "t.csv.gz"):
        normalise_avazu(tmp_path / name, tmp_path / f"{name}.parquet", variant="x4")
    one, two = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("t.csv", "t.csv.gz"))
    assert one.equals(two)
    (tmp_path / "t.csv.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"t\.csv\.gz"):
        normalise_avazu(tmp_path / "t.csv.gz", tmp_path / "cut.parquet", variant="x4")
    assert not (tmp_path / "cut.parquet").exists()


@pytest.mark.slow
def test_overlap_finds_the_same_rows_under_other_ids(tmp_path):
    rows = make_rows(3000)
    order = np.random.default_rng(1).permutation(3000)
    parts = {
        "x1": {"train": np.arange(2100), "test": np.arange(2100, 3000)},
        "x4": {"train": order[:2400], "test": order[2400:]},
    }
    files = {variant: {} for variant in parts}
    for variant, splits in parts.items():
        for name, index in splits.items():
            source, target = (
                tmp_path / f"{variant}{name}.csv",
                tmp_path / f"{variant}{name}.parquet",
            )
            WRITERS[variant](source, pick(rows, index))
            normalise_avazu(source, target, variant=variant)
            files[variant][name] = target
    overlap = measure_overlap("test", files["x4"], ["train"], files["x1"], columns=FEATURES)
    inside = parts["x4"]["test"] < 2100
    assert overlap.identified.mean() > 0.9
    np.testing.assert_array_equal(overlap.found[overlap.identified], inside[overlap.identified])
    own = measure_overlap("test", files["x4"], ["train"], files["x4"], columns=FEATURES)
    assert own.found_share == 0
    less = {"train": files["x1"]["train"]}
    with pytest.raises(ValueError, match="are not the same rows"):
        measure_overlap("test", files["x4"], ["train"], less, columns=FEATURES)


def test_the_real_sample_is_read(shared_data, tmp_path):
    folder = shared_data / "avazu-sample"
    sources = {
        "train": folder / "train.csv",
        "valid": folder / "dev.csv",
        "test": folder / "test.csv",
    }
    clicks = prepare_avazu(
        tmp_path / "out", sources, variant="x4", scratch=tmp_path / "s", extra="calendar"
    )
    assert [len(clicks.rows(split)) for split in SPLITS] == [8087, 480, 432]
    assert clicks.label.mean() == pytest.approx(0.174, abs=0.001)
    assert clicks.reports["duplicate_ids"] == {"train": 0, "valid": 0, "test": 0}
