"""The raw files of the marketplace are shaped like the published ones."""

import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from lib.data.world.write_amazon import META, REVIEWS
from tests.data.world import write_small

AVAZU_RAW = [
    "id", "click", "hour", "C1", "banner_pos", "site_id", "site_domain", "site_category",
    "app_id", "app_domain", "app_category", "device_id", "device_ip", "device_model",
    "device_type", "device_conn_type", *(f"C{number}" for number in range(14, 22)),
]  # fmt: skip
TOSS_GROUPS = {"l_feat": 27, "feat_e": 10, "feat_d": 6, "feat_c": 8, "feat_b": 6, "feat_a": 18,
               "history_a": 7, "history_b": 30}  # fmt: skip
TOSS_COLUMNS = [
    "gender", "age_group", "inventory_id", "day_of_week", "hour", "seq",
    *(f"{group}_{i}" for group, count in TOSS_GROUPS.items() for i in range(1, count + 1)),
    "clicked",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_small(folder, n_avazu=20_000, n_toss=14_000, x2_min_count=5)
    return folder


def read_lines(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_reviews_have_the_published_fields_and_types(folder: Path):
    rows = read_lines(folder / "amazon" / REVIEWS)
    types = {
        "rating": float, "title": str, "text": str, "images": list, "asin": str,
        "parent_asin": str, "user_id": str, "timestamp": int, "helpful_vote": int,
        "verified_purchase": bool,
    }  # fmt: skip
    for row in rows:
        assert {name: type(value) for name, value in row.items()} == types
    assert {row["rating"] for row in rows} == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert all(1e12 < row["timestamp"] < 2e12 for row in rows)  # milliseconds
    assert all(len(row["asin"]) == 10 and row["asin"].startswith("B0") for row in rows)
    assert len({len(row["user_id"]) for row in rows}) == 1
    assert 0.1 < np.mean([row["asin"] != row["parent_asin"] for row in rows]) < 0.4


def test_metadata_has_the_published_fields_and_names_every_item(folder: Path):
    rows = read_lines(folder / "amazon" / META)
    assert list(rows[0]) == [
        "main_category", "title", "average_rating", "rating_number", "features", "description",
        "price", "images", "videos", "store", "categories", "details", "parent_asin",
        "bought_together",
    ]  # fmt: skip
    assert isinstance(rows[0]["details"], dict)
    reviewed = {row["parent_asin"] for row in read_lines(folder / "amazon" / REVIEWS)}
    assert reviewed <= {row["parent_asin"] for row in rows}
    assert len({row["parent_asin"] for row in rows}) == len(rows) == 200
    assert any(row["price"] is None for row in rows)
    assert any(row["title"] == "" for row in rows)


def test_gzip_is_one_member_that_any_reader_reads(folder: Path):
    data = (folder / "amazon" / REVIEWS).read_bytes()
    assert data[4:8] == b"\0\0\0\0"  # no time in the header
    text = gzip.decompress(data)
    frame = pl.read_ndjson(text)
    assert len(frame) == text.count(b"\n")


def test_x4_has_the_columns_of_the_real_file(folder: Path, shared_data: Path):
    real = pl.read_csv(shared_data / "avazu-sample" / "train.csv", n_rows=200)
    ours = pl.read_csv(folder / "avazu_x4" / "train.csv", schema=real.schema)
    assert ours.columns == real.columns
    for name in ("site_id", "device_ip", "app_category"):  # eight hex digits
        assert ours[name].str.contains("^[0-9a-f]{8}$").all()
        assert real[name].str.contains("^[0-9a-f]{8}$").all()


def test_x4_is_the_raw_log_split_eight_to_one_to_one_by_label(folder: Path):
    parts = [
        pl.read_csv(folder / "avazu_x4" / f"{name}.csv") for name in ("train", "valid", "test")
    ]
    assert all(part.columns == AVAZU_RAW for part in parts)
    assert [round(len(part) / 20_000, 2) for part in parts] == [0.8, 0.1, 0.1]
    rates = [part["click"].mean() for part in parts]
    assert max(rates) - min(rates) < 0.001
    ids = pl.concat(part["id"] for part in parts)
    assert ids.n_unique() == 20_000
    hours = pl.concat(part["hour"] for part in parts)
    assert hours.min() >= 14_102_100
    assert hours.max() <= 14_103_023
    assert hours.cast(pl.String).str.slice(4, 2).cast(pl.Int32).is_between(21, 30).all()


def test_x1_is_split_by_time_and_carries_the_hour_in_its_last_column(folder: Path):
    parts = [
        pl.read_csv(folder / "avazu_x1" / f"{name}.csv") for name in ("train", "valid", "test")
    ]
    assert [len(part) for part in parts] == [14_000, 2_000, 4_000]
    assert parts[0].columns == ["label", *(f"feat_{i}" for i in range(1, 23))]
    assert all(dtype == pl.Int64 for dtype in parts[0].dtypes)
    whole = pl.concat(parts)
    assert whole["feat_22"].is_between(1_544_248, 1_544_271).all()
    assert (
        whole.select(pl.max_horizontal(f"feat_{i}" for i in range(1, 22))).max().item() < 1_544_248
    )
    ends = [whole[f"feat_{i}"].max() for i in range(1, 22)]
    begins = [whole[f"feat_{i}"].min() for i in range(2, 23)]
    assert all(end < begin for end, begin in zip(ends, begins, strict=True))  # one id space


def test_x2_has_named_columns_no_valid_file_and_the_offsets_of_time(folder: Path):
    assert not (folder / "avazu_x2" / "valid.csv").exists()
    whole = pl.concat(pl.read_csv(folder / "avazu_x2" / f"{n}.csv") for n in ("train", "test"))
    assert whole.columns == ["click", *AVAZU_RAW[3:], "mday", "hour", "wday"]
    assert whole["hour"].is_between(645_164, 645_187).all()
    assert whole["mday"].is_between(645_154, 645_163).all()
    assert whole["wday"].is_between(645_188, 645_194).all()
    counts = whole["device_ip"].value_counts()["count"].sort()
    assert (counts < 5).sum() <= 1  # the rare are one value


def test_the_three_variants_hold_the_same_rows(folder: Path):
    """As many clicks and impressions in every hour of the day, in all files together."""
    hours = {
        "x1": ("label", pl.col("feat_22") - 1_544_248),
        "x2": ("click", pl.col("hour") - 645_164),
        "x4": ("click", pl.col("hour") % 100),
    }
    tables = []
    for name, (label, hour) in hours.items():
        files = sorted((folder / f"avazu_{name}").glob("*.csv"))
        frame = pl.concat([pl.read_csv(path) for path in files])
        keys = [hour.alias("hour"), pl.col(label).alias("label")]
        tables.append(frame.group_by(keys).len().sort("hour", "label"))
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])


def test_ids_of_the_variants_do_not_align(folder: Path):
    x1 = pl.read_csv(folder / "avazu_x1" / "train.csv")
    x2 = pl.read_csv(folder / "avazu_x2" / "train.csv")
    assert not np.array_equal(x1["feat_14"].head(100), x2["C14"].head(100))


@pytest.mark.parametrize(("variant", "field"), [("x1", "feat_14"), ("x2", "C14"), ("x4", "C14")])
def test_each_variant_says_what_its_ads_say(folder: Path, variant: str, field: str):
    text = pl.read_csv(folder / f"avazu_{variant}" / "ad_text.tsv", separator="\t")
    assert text.columns == ["field", "value", "title"]
    assert text["field"].unique().to_list() == [field]
    assert text["value"].n_unique() == len(text)
    assert text["title"].str.len_chars().min() > 5
    train = pl.read_csv(folder / f"avazu_{variant}" / "train.csv")
    known = train[field].is_in(text["value"].to_list()).mean()
    assert known > (0.95 if variant == "x2" else 0.9999)  # x2 merges rare ads


def test_some_ads_are_cold_when_time_goes_on(folder: Path):
    train = pl.read_csv(folder / "avazu_x1" / "train.csv")["feat_14"].unique().to_list()
    test = pl.read_csv(folder / "avazu_x1" / "test.csv")["feat_14"]
    assert 0.005 < 1 - test.is_in(train).mean() < 0.4


def test_click_rates_lie_where_the_published_ones_do(folder: Path):
    """Binomial spread at these sizes: 3 sd are 0.008 and 0.0035."""
    x4 = pl.read_csv(folder / "avazu_x4" / "train.csv")["click"].mean()
    toss = pl.read_parquet(folder / "toss" / "train.parquet", columns=["clicked"])["clicked"].mean()
    assert abs(x4 - 0.17) < 0.009
    assert abs(toss - 0.019) < 0.0045


def test_toss_files_have_the_published_columns_types_and_one_row_group(folder: Path):
    train = pq.ParquetFile(folder / "toss" / "train.parquet")
    test = pq.ParquetFile(folder / "toss" / "test.parquet")
    assert train.metadata.num_row_groups == test.metadata.num_row_groups == 1
    assert train.schema_arrow.names == TOSS_COLUMNS
    assert len(TOSS_COLUMNS) == 119
    assert test.schema_arrow.names == ["ID", *TOSS_COLUMNS[:-1]]
    types = [str(field.type) for field in train.schema_arrow]
    assert types == ["string"] * 6 + ["float"] * 112 + ["int32"]


def test_toss_test_is_day_seven_and_the_submission_has_its_ids(folder: Path):
    test = pl.read_parquet(folder / "toss" / "test.parquet")
    train = pl.read_parquet(folder / "toss" / "train.parquet")
    sample = pl.read_csv(folder / "toss" / "sample_submission.csv")
    assert test["day_of_week"].unique().to_list() == ["7"]
    assert sorted(train["day_of_week"].unique()) == list("1234567")
    assert sample.columns == ["ID", "clicked"]
    assert sample["ID"].to_list() == test["ID"].to_list()
    assert sample["ID"][0] == "TEST_0000000"
    assert len(test) == len(train) // 7


def test_toss_has_three_blocks_of_nulls_and_nulls_nowhere_else(folder: Path):
    train = pl.read_parquet(folder / "toss" / "train.parquet")
    nulls = {name: train[name].is_null() for name in train.columns if train[name].null_count()}
    blocks: dict[bytes, set[str]] = {}
    for name, mask in nulls.items():
        blocks.setdefault(mask.to_numpy().tobytes(), set()).add(name)
    found = sorted(blocks.values(), key=len)
    assert len(found) == 3
    assert found[0] == {"feat_e_3"}
    assert found[1] == {f"feat_a_{i}" for i in range(1, 19)}
    assert {"gender", "age_group", "feat_b_1", "feat_c_8"} <= found[2]
    assert 0.09 < nulls["feat_e_3"].mean() < 0.112
    assert 0 < nulls["gender"].mean() < 0.005


def test_toss_has_constants_and_near_duplicates(folder: Path):
    train = pl.read_parquet(folder / "toss" / "train.parquet")
    assert train["l_feat_20"].n_unique() == train["l_feat_23"].n_unique() == 1
    for twin, original in (("l_feat_17", "l_feat_9"), ("l_feat_3", "l_feat_16")):
        assert 0.99 < (train[twin] == train[original]).mean() < 1
    history = train.select(f"history_b_{i}" for i in range(3, 31)).to_numpy()
    assert np.corrcoef(history.T).min() >= 0.995
    assert train["l_feat_14"].min() >= 1


def test_toss_sequences_are_small_integers_of_heavy_tailed_length(folder: Path):
    seq = pl.read_parquet(folder / "toss" / "train.parquet")["seq"].str.split(",")
    tokens = seq.explode().cast(pl.Int32)
    assert tokens.min() >= 1
    assert tokens.max() < 600
    lengths = seq.list.len()
    assert abs(lengths.mean() - 15) < 1.5
    assert lengths.max() > 8 * lengths.median()
