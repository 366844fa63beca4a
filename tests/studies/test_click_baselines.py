"""Baselines of clicks: who judges, who chooses, and where a row's truth lies."""

import numpy as np
import polars as pl
import pytest

from lib.data.clicks_writer import publish_clicks
from lib.studies.click_baselines import (
    choose_ridge,
    fit_rows,
    judged_rows,
    measure_row,
    numbers_of,
    rows_in_file,
    tune_rows,
)
from lib.studies.click_data import (
    TableOptions,
    field_table,
    near_duplicates,
    prepare_source,
    split_table,
)


def write(folder, name, n, seed, labelled=True):
    rng = np.random.default_rng(seed)
    a, x = rng.integers(0, 5, n), rng.normal(size=n)
    label = (rng.random(n) < 1 / (1 + np.exp(-(a - 2.0) - x))).astype(int)
    table = pl.DataFrame({"label": label, "a": a, "b": rng.integers(0, 3, n), "x": x, "y": 2 * x})
    folder.mkdir(exist_ok=True)
    (table if labelled else table.drop("label")).write_csv(folder / f"{name}.csv")


def prepare(folder, **options):
    table = TableOptions(
        source="table", fields=("a", "b"), numeric=("x", "y"), min_count=1, **options
    )
    return prepare_source(folder / "out", folder, table, tables=folder / "tables", scratch=folder)


@pytest.fixture
def clicks(tmp_path):
    for seed, (name, n) in enumerate((("train", 900), ("valid", 100), ("test", 200))):
        write(tmp_path, name, n, seed)
    return prepare(tmp_path)


def test_labelled_test_rows_judge_and_valid_rows_choose(clicks):
    judged, rows = judged_rows(clicks)
    fit, choose = tune_rows(clicks, judged)
    assert judged == "test"
    np.testing.assert_array_equal(rows, clicks.rows("test"))
    np.testing.assert_array_equal(choose, clicks.rows("valid"))
    np.testing.assert_array_equal(fit, clicks.rows("train"))


def test_an_unlabelled_test_leaves_valid_to_judge_and_one_fold_cannot_choose(tmp_path):
    write(tmp_path, "train", 300, 0)
    write(tmp_path, "test", 50, 1, labelled=False)
    clicks = prepare(tmp_path)
    assert judged_rows(clicks)[0] == "valid"
    with pytest.raises(ValueError, match="at least two folds"):
        tune_rows(clicks, "valid")


def test_regression_beats_the_constant_and_the_table_has_every_measure(clicks):
    _, rows = judged_rows(clicks)
    fit, choose = tune_rows(clicks, "test")
    ridge, losses = choose_ridge(clicks, fit, choose, [0.1, 1.0, 1e6], max_steps=100)
    assert losses[1e6] > losses[ridge]
    model = fit_rows(clicks, clicks.take(fit), ridge=ridge, max_steps=100)
    held = clicks.take(rows)
    p_true = model.probabilities(held.categorical, numbers_of(held))
    found = measure_row("LR", held.label, p_true, train_rate=0.5, draws=50, seed=1)
    assert found.values["auc"] > 0.75
    names = [metric["name"] for metric in found.metrics()]
    assert names == [name for name in found.record() if name != "row"]
    ends = {metric["name"]: metric["better"] for metric in found.metrics()}
    assert ends["log_loss"] == ends["weighted_log_loss"] == ends["normalised_entropy"] == "lower"
    assert ends["auc"] == ends["score"] == "higher"


def test_places_of_rows_follow_the_files_as_they_were_read(clicks):
    name, places = rows_in_file(clicks, clicks.rows("test"))
    assert (name, places.tolist()) == ("test", list(range(200)))
    name, places = rows_in_file(clicks, clicks.rows("valid")[[3]])
    assert (name, places.tolist()) == ("valid", [3])
    with pytest.raises(ValueError, match="lie in no one source file"):
        rows_in_file(clicks, np.array([0, 1100]))


def test_tables_describe_splits_fields_and_twins(clicks):
    assert split_table(clicks)["rows"].to_list() == [900, 100, 200]
    fields = field_table(clicks)
    assert fields["ids"].to_list() == [7, 5]
    assert near_duplicates(clicks).rows()[0][:2] == ("x", "y")


def test_publishing_moves_a_finished_dataset_once(clicks, tmp_path):
    moved = publish_clicks(clicks.folder, tmp_path / "published")
    assert len(moved) == 1200
    with pytest.raises(FileNotFoundError):
        publish_clicks(clicks.folder, tmp_path / "again")
