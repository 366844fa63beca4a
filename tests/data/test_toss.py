"""The Toss log: 119 columns in one row group, fitted on training rows, streamed."""

import numpy as np
import polars as pl
import pytest

from lib.data.clicks import Clicks
from lib.data.covisits import AGGREGATES, CovisitPlan
from lib.data.fit import Recipe
from lib.data.sequences import sequence_statistics
from lib.data.toss import ClicklogOptions, choose_columns, prepare_clicklog

FIRST_BLOCK = (
    *(f"feat_e_{i}" for i in (1, 2, *range(4, 11))), *(f"feat_d_{i}" for i in range(1, 7)),
    *(f"feat_c_{i}" for i in range(1, 9)), *(f"feat_b_{i}" for i in range(1, 7)),
)  # fmt: skip
COMPLETE = (*(f"history_a_{i}" for i in range(1, 8)), *(f"history_b_{i}" for i in range(1, 31)))
A_BLOCK = tuple(f"feat_a_{i}" for i in range(1, 19))
CATEGORICAL = ("gender", "age_group", "inventory_id", "hour", "l_feat_*")


def make_log(n, seed=0, *, test=False):
    """Rows with the published columns, types, null blocks and constants."""
    rng = np.random.default_rng(seed)
    blocks = {
        name: rng.random(n) < share for name, share in (("first", 0.05), ("a", 0.1), ("e3", 0.2))
    }

    def column(values, mask):
        return pl.Series([None if m else v for v, m in zip(values, mask, strict=True)])

    none = np.zeros(n, bool)
    days = np.full(n, 7) if test else rng.integers(1, 8, n)
    data = {
        "gender": column(rng.choice(["1.0", "2.0"], n).tolist(), blocks["first"]),
        "age_group": column([f"{i}.0" for i in rng.integers(1, 9, n)], blocks["first"]),
        "inventory_id": pl.Series(rng.integers(1, 7, n).astype(str)),
        "day_of_week": pl.Series(days.astype(str)),
        "hour": pl.Series([f"{i:02d}" for i in rng.integers(0, 24, n)]),
        "seq": pl.Series(
            [",".join(map(str, rng.integers(9, 60, k))) for k in rng.integers(0, 9, n)]
        ),
    }
    for number in range(1, 28):
        constant = number in (20, 23)
        values = np.ones(n) if constant else rng.integers(1, 9, n)
        data[f"l_feat_{number}"] = pl.Series(values.tolist(), dtype=pl.Float32)
    for names, mask in (
        (FIRST_BLOCK, "first"),
        (("feat_e_3",), "e3"),
        (A_BLOCK, "a"),
        (COMPLETE, ""),
    ):
        for name in names:
            values = (rng.normal(size=n) * 50 + 3).tolist()
            data[name] = column(values, blocks.get(mask, none)).cast(pl.Float32)
    if test:
        return pl.DataFrame({"ID": [f"TEST_{i:07d}" for i in range(n)], **data})
    label = pl.Series((rng.random(n) < 0.2).astype(np.int32))
    return pl.DataFrame(data).with_columns(label.alias("clicked"))


@pytest.fixture
def files(tmp_path):
    paths = tmp_path / "train.parquet", tmp_path / "test.parquet"
    make_log(1200).write_parquet(paths[0], row_group_size=10**6)
    make_log(150, seed=1, test=True).write_parquet(paths[1], row_group_size=10**6)
    return paths


def recipe_for(path, **changes):
    return Recipe(
        categorical=choose_columns(path, CATEGORICAL),
        numeric=choose_columns(path, ("feat_*", "history_*")),
        sequence="seq",
        group="inventory_id",
        **changes,
    )


def prepare(folder, files, *, recipe=None, test=True, **changes):
    options = ClicklogOptions(**({"shard_rows": 500, "n_splits": 3} | changes))
    recipe = recipe or recipe_for(files[0])
    return prepare_clicklog(folder, files[0], files[1] if test else None, recipe, options)


def test_the_log_has_the_published_119_columns():
    assert make_log(3).width == 119


def test_day_seven_is_held_out_and_the_test_file_is_unlabelled(tmp_path, files):
    clicks = prepare(tmp_path / "c", files)
    table = pl.read_parquet(files[0])
    held = (table["day_of_week"] == "7").to_numpy()
    np.testing.assert_array_equal(clicks.rows("valid"), np.flatnonzero(held))
    np.testing.assert_array_equal(clicks.rows("train"), np.flatnonzero(~held))
    np.testing.assert_array_equal(clicks.rows("test"), np.arange(1200, 1350))
    np.testing.assert_array_equal(clicks.label[:1200], table["clicked"].to_numpy())
    assert set(clicks.label[1200:].tolist()) == {-1}
    assert clicks.row_ids.tolist() == [f"TEST_{i:07d}" for i in range(150)]
    day = table["day_of_week"].cast(pl.Int64).to_numpy()[~held]
    np.testing.assert_array_equal(clicks.fold[clicks.rows("train")], (day - 1) * 3 // 6)
    assert set(clicks.fold[clicks.rows("valid")].tolist()) == {-1}


def test_medians_and_scales_come_from_the_training_rows_only(tmp_path, files):
    clicks = prepare(tmp_path / "c", files)
    table = pl.read_parquet(files[0]).filter(pl.col("day_of_week") != "7")
    raw = pl.read_parquet(files[0])["feat_a_5"].to_numpy().astype(np.float64)
    known = table["feat_a_5"].drop_nulls().to_numpy().astype(np.float64)
    median = np.median(known)
    train = table["feat_a_5"].fill_null(median).to_numpy().astype(np.float64)
    expected = (np.where(np.isnan(raw), median, raw) - train.mean()) / train.std()
    found = clicks.numeric[:1200, clicks.numeric_names.index("feat_a_5")]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_three_null_blocks_give_three_indicators_and_constants_go(tmp_path, files):
    clicks = prepare(tmp_path / "c", files)
    assert len(clicks.missing_names) == 3
    blocks = {names[0]: set(names) for names in clicks.reports["missing_blocks"].values()}
    assert blocks == {
        "feat_e_1": set(FIRST_BLOCK),
        "feat_e_3": {"feat_e_3"},
        "feat_a_1": set(A_BLOCK),
    }
    table = pl.concat([pl.read_parquet(path).select("feat_a_1", "feat_e_3") for path in files])
    where = clicks.missing_names.index("missing:feat_a_1")
    np.testing.assert_array_equal(clicks.missing[:, where], table["feat_a_1"].is_null().to_numpy())
    assert clicks.reports["constants_dropped"] == ["l_feat_20", "l_feat_23"]
    assert "l_feat_20" not in clicks.fields


def test_sequences_and_their_statistics_stand_beside_the_rows(tmp_path, files):
    clicks = prepare(tmp_path / "c", files)
    texts = pl.concat([pl.read_parquet(path)["seq"] for path in files]).to_list()
    offsets, tokens = clicks.sequence
    for row in (0, 499, 500, 1199, 1349):
        ids = [int(part) + 2 for part in texts[row].split(",") if part]
        assert tokens[offsets[row] : offsets[row + 1]].tolist() == ids
    assert str(tokens.dtype) == "uint8"
    statistics = sequence_statistics(offsets, tokens).astype(np.float64)
    train = statistics[clicks.rows("train")]
    expected = (statistics - train.mean(axis=0)) / train.std(axis=0)
    columns = [i for i, name in enumerate(clicks.numeric_names) if name.startswith("sequence:")]
    np.testing.assert_allclose(clicks.numeric[:, columns], expected, atol=1e-3)


def test_covisits_are_columns_of_every_split(tmp_path, files):
    clicks = prepare(tmp_path / "c", files, covisits=(CovisitPlan(target="inventory_id"),))
    assert clicks.numeric_names[-len(AGGREGATES) :] == [
        f"covisit:inventory_id:{name}" for name in AGGREGATES
    ]
    assert len(clicks.load().numeric) == 1350
    assert np.isfinite(clicks.numeric).all()


def test_whole_floats_and_hashed_values_keep_their_meaning(tmp_path, files):
    hashed = recipe_for(files[0], encoding="hash", hash_buckets=1000, salt="s", min_count=1)
    by_hash = prepare(tmp_path / "h", files, recipe=hashed)
    by_value = prepare(tmp_path / "v", files)
    column = by_value.fields.index("l_feat_14")
    pairs = set(zip(by_hash.categorical[:, column].tolist(),
                    by_value.categorical[:, column].tolist(), strict=True))  # fmt: skip
    assert len({value for _, value in pairs}) == len(pairs)  # a value has one bucket
    assert by_hash.reports["fields"][0]["kind"] == "hash"
    assert (by_hash.categorical < by_hash.n_ids).all()


@pytest.mark.slow
def test_a_second_call_keeps_every_shard_and_a_lost_one_is_rebuilt_alike(tmp_path, files):
    first = prepare(tmp_path / "c", files).load()
    assert prepare(tmp_path / "c", files).reports["shards_built"] == []
    (tmp_path / "c" / "00001.tokens.npy").unlink()
    clicks = prepare(tmp_path / "c", files)
    assert clicks.reports["shards_built"] == [1]
    for name in ("categorical", "numeric", "missing", "label", "fold", "group"):
        np.testing.assert_array_equal(getattr(clicks.load(), name), getattr(first, name))
    other = prepare(tmp_path / "c", files, recipe=recipe_for(files[0], min_count=3))
    assert len(other.reports["shards_built"]) == 3


@pytest.mark.parametrize("method", ["kfold", "stratified", "grouped", "stratified_grouped", "none"])
def test_every_way_to_fold_covers_the_training_rows(tmp_path, files, method):
    clicks = prepare(tmp_path / "c", files, fold_method=method, holdout_day=None, test=False,
                     group_keys=("inventory_id", "day_of_week"))  # fmt: skip
    assert set(clicks.fold.tolist()) == ({0} if method == "none" else {0, 1, 2})


def test_the_row_limit_reads_the_first_rows_of_each_file(tmp_path, files):
    clicks = prepare(tmp_path / "c", files, max_rows=100)
    assert len(clicks) == 200
    assert Clicks.open(tmp_path / "c").reports["file_rows"] == [["train", 100], ["test", 100]]


def spoil(path, **columns):
    table = pl.read_parquet(path)
    table.with_columns(**columns).write_parquet(path, row_group_size=10**6)


def test_broken_logs_are_refused_with_their_reason(tmp_path, files):
    recipe = recipe_for(files[0])
    spoil(
        files[0], seq=pl.when(pl.int_range(pl.len()) == 700).then(pl.lit("9,-4")).otherwise("seq")
    )
    with pytest.raises(ValueError, match=r"data row 701: '-4' in '9,-4'"):
        prepare(tmp_path / "a", files, recipe=recipe)
    assert not (tmp_path / "a" / "manifest.json").exists()
    spoil(files[0], clicked=pl.when(pl.int_range(pl.len()) == 8).then(5).otherwise("clicked"))
    with pytest.raises(ValueError, match=r"'clicked' is 5 in data row 9 \(1 such rows\)"):
        prepare(tmp_path / "b", files, recipe=recipe)
    spoil(files[0], clicked=pl.lit(1.0))
    with pytest.raises(ValueError, match="day '9' holds 0 of 50 rows; days present are"):
        prepare(tmp_path / "c", files, recipe=recipe, max_rows=50, holdout_day="9")


def test_a_missing_column_is_named_with_the_nearest_present_one(tmp_path, files):
    recipe = recipe_for(files[0])
    pl.read_parquet(files[0]).rename({"history_a_3": "history_a3"}).write_parquet(files[0])
    with pytest.raises(ValueError, match=r"no column 'history_a_3'; nearest present: history_a3"):
        prepare(tmp_path / "c", files, recipe=recipe)
    with pytest.raises(ValueError, match=r"no column matches 'l_feet_\*'"):
        choose_columns(files[0], ("l_feet_*",))
    with pytest.raises(ValueError, match="no column 'gendr'; nearest present: gender"):
        choose_columns(files[0], ("gendr",))


def test_duplicate_ids_of_the_test_file_are_named(tmp_path, files):
    spoil(files[1], ID=pl.col("ID").replace({"TEST_0000007": "TEST_0000003"}))
    with pytest.raises(ValueError, match=r"1 ids occur more than once \(TEST_0000003\)"):
        prepare(tmp_path / "c", files)


def test_an_empty_log_is_refused(tmp_path, files):
    recipe = recipe_for(files[0])
    pl.read_parquet(files[0]).clear().write_parquet(files[0])
    with pytest.raises(ValueError, match="has no rows"):
        prepare(tmp_path / "c", files, recipe=recipe)
