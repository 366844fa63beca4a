"""Any click table: what is read, what is refused, what is counted."""

import gzip
import math

import numpy as np
import polars as pl
import pytest

from lib.data.clicks import SPLITS
from lib.data.fit import Recipe
from lib.data.normalise import ROW, normalise, unchanged
from lib.data.tabular import carve_valid, find_sources, prepare_table

FIELDS = ("site", "device")
RECIPE = Recipe(categorical=FIELDS, numeric=("price",), drop_constants=False)
ROWS = ["label,site,device,price", "1,a,x,1.5", "0,b,x,", "0,a,y,3.5", "1,a,,2.5"]


def prepare(folder, train=ROWS, *, recipe=RECIPE, name="train.csv", **options):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join(train) + "\n", encoding="utf-8")
    options = {"valid_share": 0.0} | options
    sources = find_sources(folder)
    return prepare_table(folder / "out", sources, recipe, scratch=folder / "scratch", **options)


def test_a_small_table_gives_these_very_numbers(tmp_path):
    clicks = prepare(tmp_path)
    rows = clicks.load()
    local = rows.categorical - clicks.field_offsets
    assert local.tolist() == [[2, 2], [3, 2], [2, 3], [2, 0]]
    assert rows.label.tolist() == [1, 0, 0, 1]
    filled = np.array([1.5, 2.5, 3.5, 2.5])  # the median of 1.5, 2.5, 3.5
    np.testing.assert_allclose(rows.numeric[:, 0], (filled - 2.5) / filled.std(), rtol=1e-6)
    assert rows.missing[:, 0].tolist() == [0, 1, 0, 0]
    assert clicks.reports["empty_cells"] == {"train": {"device": 1, "price": 1}}


def test_nothing_is_fitted_on_valid_or_test_rows(tmp_path):
    (tmp_path / "valid.csv").write_text("label,site,device,price\n0,zzz,x,1e9\n")
    (tmp_path / "test.csv").write_text("label,site,device,price\n1,a,yyy,-1e9\n")
    clicks = prepare(tmp_path)
    alone = prepare(tmp_path / "alone")
    assert clicks.layout == alone.layout
    train = clicks.take(clicks.rows("train"))
    np.testing.assert_array_equal(train.numeric, alone.load().numeric)
    local = clicks.take([4, 5]).categorical - clicks.field_offsets
    assert local.tolist() == [[1, 2], [2, 1]]  # unseen values share the rare bucket


def test_a_test_file_without_labels_is_unlabelled(tmp_path):
    (tmp_path / "test.csv").write_text("site,device,price\na,x,1\n")
    clicks = prepare(tmp_path)
    assert clicks.take(clicks.rows("test")).label.tolist() == [-1]


def test_columns_that_are_missing_together_share_one_indicator(tmp_path):
    rows = ["label,site,a,b,c,d", "1,x,1,2,3,4", "0,y,,,5,6", "0,x,3,4,,7", "1,y,5,6,7,8"]
    recipe = Recipe(categorical=("site",), numeric=("a", "b", "c", "d"))
    clicks = prepare(tmp_path, rows, recipe=recipe)
    assert clicks.reports["missing_blocks"] == {"missing:a": ["a", "b"], "missing:c": ["c"]}
    assert clicks.load().missing.tolist() == [[0, 0], [1, 0], [0, 1], [0, 0]]


def test_constants_are_dropped_and_named(tmp_path):
    rows = ["label,site,one,a,k", "1,x,s,1,9", "0,y,s,2,9"]
    recipe = Recipe(categorical=("site", "one"), numeric=("a", "k"))
    clicks = prepare(tmp_path, rows, recipe=recipe)
    assert (clicks.fields, clicks.numeric_names) == (["site"], ["a"])
    assert clicks.reports["constants_dropped"] == ["one", "k"]


@pytest.mark.parametrize("impute", ["median", "mean", "zero"])
@pytest.mark.parametrize("transform", ["none", "log"])
def test_training_numbers_have_mean_zero_and_deviation_one(tmp_path, impute, transform):
    rng = np.random.default_rng(0)
    values = [f"{rng.integers(0, 2)},{i % 7},{'' if i % 5 == 0 else rng.normal() * 100}" for i in
              range(200)]  # fmt: skip
    recipe = Recipe(categorical=("f",), numeric=("x",), impute=impute, transform=transform)
    clicks = prepare(tmp_path, ["label,f,x", *values], recipe=recipe, valid_share=0.3)
    numbers = clicks.take(clicks.rows("train")).numeric[:, 0].astype(np.float64)
    assert abs(numbers.mean()) < 1e-6
    assert numbers.std() == pytest.approx(1, abs=1e-5)


def test_infinite_numbers_are_missing_and_counted(tmp_path):
    rows = ["label,f,x", "1,a,inf", "0,b,2.0", "0,b,4.0"]
    clicks = prepare(tmp_path, rows, recipe=Recipe(categorical=("f",), numeric=("x",)))
    assert clicks.reports["infinite_as_missing"] == 1
    assert clicks.load().missing[:, 0].tolist() == [1, 0, 0]


def test_thirteen_numbers_and_twenty_six_fields_as_criteo_has_them(tmp_path):
    rng = np.random.default_rng(0)
    numbers, fields = [f"I{i}" for i in range(1, 14)], [f"C{i}" for i in range(1, 27)]
    rows = ["\t".join(["label", *numbers, *fields])]
    for _ in range(60):
        cells = ["" if rng.random() < 0.2 else str(rng.integers(-2, 500)) for _ in numbers]
        rows.append(
            "\t".join(["01"[rng.integers(2)], *cells, *(f"{rng.integers(9):08x}" for _ in fields)])
        )
    recipe = Recipe(categorical=tuple(fields), numeric=tuple(numbers), transform="log")
    clicks = prepare(tmp_path, rows, recipe=recipe, name="train.tsv", separator="\t")
    assert (len(clicks), len(clicks.fields), len(clicks.numeric_names)) == (60, 26, 13)
    assert clicks.load().missing.shape[1] == 13


def test_parquet_gives_the_same_dataset_as_csv(tmp_path):
    from_csv = prepare(tmp_path / "csv")
    folder = tmp_path / "parquet"
    folder.mkdir()
    types = {"label": pl.Int64, "price": pl.Float64}
    pl.read_csv("\n".join(ROWS).encode(), schema_overrides=types).write_parquet(
        folder / "train.parquet"
    )
    clicks = prepare_table(folder / "out", find_sources(folder), RECIPE, scratch=folder / "s",
                           valid_share=0.0)  # fmt: skip
    assert clicks.layout == from_csv.layout
    np.testing.assert_array_equal(clicks.load().categorical, from_csv.load().categorical)
    np.testing.assert_array_equal(clicks.load().numeric, from_csv.load().numeric)


def test_gzip_is_read_and_a_cut_one_is_refused(tmp_path):
    rows = [ROWS[0], *(f"{i % 2},s{i},d{i % 3},{i}" for i in range(30_000))]
    data = gzip.compress("\n".join(rows).encode())
    (tmp_path / "train.csv.gz").write_bytes(data)
    sources = find_sources(tmp_path)
    clicks = prepare_table(tmp_path / "out", sources, RECIPE, scratch=tmp_path / "s")
    assert len(clicks) == 30_000
    (tmp_path / "train.csv.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"train\.csv\.gz: "):
        prepare_table(tmp_path / "out2", sources, RECIPE, scratch=tmp_path / "s")
    (tmp_path / "train.csv.gz").write_bytes(data[:12])
    with pytest.raises(ValueError, match="not a whole gzip file"):
        prepare_table(tmp_path / "out3", sources, RECIPE, scratch=tmp_path / "s")
    assert not (tmp_path / "out2").exists()


def test_the_row_limit_takes_the_first_rows_of_each_file(tmp_path):
    (tmp_path / "test.csv").write_text("\n".join(ROWS))
    clicks = prepare(tmp_path, max_rows=2)
    assert [len(clicks.rows(split)) for split in SPLITS] == [2, 0, 2]


def splitmix(row, seed):
    mask = 2**64 - 1
    z = (row + (seed << 32) + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_the_carved_valid_rows_follow_the_written_rule():
    chosen = pl.select(carve_valid(pl.int_range(5000), share=0.1, seed=3)).to_series()
    expected = [int(splitmix(row, 3) % 1_000_000 < 100_000) for row in range(5000)]
    assert chosen.to_list() == expected
    assert abs(chosen.mean() - 0.1) < 4 * math.sqrt(0.09 / 5000)
    with pytest.raises(ValueError, match="expected a share from 0"):
        carve_valid(pl.int_range(5), share=1.0, seed=1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["label;site;device;price", "1;a;x;1"], "separated by ';'"),
        (["label,sight,device,price", "1,a,x,1"], "no column 'site'; nearest present: sight"),
        (["label,site,site,device,price", "1,a,a,x,1"], "column 'site' occurs twice"),
        ([""], r"train\.csv is empty"),
        ([ROWS[0]], "has a header but no rows"),
        ([ROWS[0], "2,a,x,1"], "label 'label' is 2 in 1 row"),
        ([ROWS[0], "yes,a,x,1"], "cannot be read as a click table.*yes"),
        ([ROWS[0], ",a,x,1"], "label 'label' is None"),
        ([ROWS[0], "1,a,x,cheap"], "cannot be read as a click table.*cheap"),
        ([ROWS[0], "1,a,x,1,surplus"], "cannot be read as a click table"),
    ],
)
def test_a_broken_table_is_refused_with_its_reason(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path, rows)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_bytes_that_are_not_utf8_are_refused(tmp_path):
    (tmp_path / "train.csv").write_bytes(
        "label,site,device,price\n1,caf\xe9,x,1\n".encode("latin-1")
    )
    with pytest.raises(ValueError, match=r"train\.csv: cannot be read.*(?i:utf)"):
        prepare_table(tmp_path / "o", find_sources(tmp_path), RECIPE, scratch=tmp_path / "s")


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("\n".join(ROWS))
    with pytest.raises(ValueError, match="changed while it was read"), unchanged(path):
        path.write_text("\n".join([*ROWS, "1,a,x,1"]))


def test_a_failed_reading_leaves_the_earlier_table_in_place(tmp_path):
    path, target = tmp_path / "t.csv", tmp_path / "t.parquet"
    path.write_text("a\tb\n1\t2\n")
    options = {"schema": {"a": pl.Int64, "b": pl.Int64}, "columns": [pl.all()], "separator": "\t"}
    options["columns"] = [pl.col("a"), pl.col("b")]
    assert normalise(path, target, **options).n_rows == 1
    path.write_text("a\tb\n1\tx\n")
    with pytest.raises(ValueError, match="cannot be read"):
        normalise(path, target, **options)
    assert pl.read_parquet(target).rows() == [(1, 2)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.csv", "t.parquet"]


@pytest.mark.parametrize("block_bytes", [7, 64, 1 << 20])
@pytest.mark.parametrize("last_break", ["\n", ""])
def test_blocks_cut_no_line_and_number_rows_through(tmp_path, monkeypatch, block_bytes, last_break):
    monkeypatch.setattr("lib.data.normalise.BLOCK_BYTES", block_bytes)
    rows = [(i, f'say "{i}",\nthen {i}' if i % 3 == 0 else f"plain{i}", i / 2) for i in range(40)]
    table = pl.DataFrame(rows, schema={"a": pl.Int64, "text": pl.String, "x": pl.Float64},
                         orient="row")  # fmt: skip
    path, target = tmp_path / "t.csv", tmp_path / "t.parquet"
    path.write_text(table.write_csv().rstrip("\n") + last_break)
    columns = [*map(pl.col, table.columns), pl.col(ROW).cast(pl.Int64)]
    assert normalise(path, target, schema=table.schema, columns=columns).n_rows == 40
    assert pl.read_parquet(target).drop(ROW).equals(table)
    assert pl.read_parquet(target)[ROW].to_list() == list(range(40))
    normalise(path, target, schema=table.schema, columns=columns, max_rows=17)
    assert pl.read_parquet(target)[ROW].to_list() == list(range(17))


def test_no_train_file_and_two_train_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no train file"):
        find_sources(tmp_path)
    for name in ("train.csv", "train.parquet"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="keep one of them"):
        find_sources(tmp_path)


def test_columns_of_two_kinds_are_refused():
    with pytest.raises(ValueError, match="both categorical and numeric"):
        Recipe(categorical=("a",), numeric=("a",))
    with pytest.raises(ValueError, match="no columns chosen"):
        Recipe(categorical=())


@pytest.mark.slow
def test_frappe_has_its_published_rows_and_features(shared_data, tmp_path):
    fields = pl.read_csv(shared_data / "frappe" / "test.csv", n_rows=1).columns[1:]
    recipe = Recipe(categorical=tuple(fields), group="user")
    sources = find_sources(shared_data / "frappe")
    clicks = prepare_table(tmp_path / "c", sources, recipe, scratch=tmp_path / "s")
    assert [len(clicks.rows(split)) for split in SPLITS] == [202_027, 57_722, 28_860]
    assert clicks.label.mean() == pytest.approx(1 / 3, abs=1e-4)
    distinct = pl.concat(pl.scan_csv(path) for path in sources.values()).select(
        pl.concat_list(fields).explode().n_unique()
    )
    assert distinct.collect().item() == 5382
