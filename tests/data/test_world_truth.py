"""The truth opens, aligns with the raw files row by row, and is what nobody can beat."""

import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lib.data.world.ceilings import (
    click_ceiling,
    expected_gains,
    mean_ceiling,
)
from lib.data.world.clicks import expected_probability, find_intercept, sigmoid
from lib.data.world.summary import click_rates, describe_world, signal_ladder, title_examples
from lib.data.world.truth import OBSERVABLE, Truth
from lib.data.world.write_amazon import REVIEWS
from lib.evaluate.clicks import auc, log_loss
from tests.data.world import write_small

FILES = [
    ("avazu_x1", "train", "label"),
    ("avazu_x1", "test", "label"),
    ("avazu_x2", "train", "click"),
    ("avazu_x4", "valid", "click"),
    ("avazu_x4", "test", "click"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_small(folder, n_avazu=20_000, n_toss=14_000, x2_min_count=5, duplicate_share=0.01)
    return folder


@pytest.fixture(scope="module")
def truth(folder: Path) -> Truth:
    return Truth.open(folder / "truth")


def test_every_review_is_found_at_the_choice_it_shows(folder: Path, truth: Truth):
    with gzip.open(folder / "amazon" / REVIEWS, "rt") as file:
        rows = pl.DataFrame([json.loads(line) for line in file])
    users, positions = truth.locate(rows["parent_asin"].to_list(), rows["timestamp"])
    pairs = rows.with_columns(user=users, position=positions)
    assert pairs.group_by("user").agg(pl.col("user_id").n_unique())["user_id"].max() == 1
    keys = truth.item_keys[truth.targets(users, positions)]
    assert keys.tolist() == rows["parent_asin"].to_list()
    once = pairs.select("user", "position").unique()
    assert len(once) == len(truth.items)
    assert len(rows) > len(once)  # some are logged twice, never a user's last three
    twice = pairs.filter(pairs.select("user", "position").is_duplicated())
    left = truth.lengths()[twice["user"].to_numpy()] - twice["position"].to_numpy()
    assert left.min() > 3


def test_the_next_item_sums_to_one_and_aligns_with_other_item_orders(truth: Truth):
    users = np.arange(20)
    positions = truth.lengths()[users] - 1
    whole = truth.next_item(users, positions)
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-5)
    keys = ["", *truth.item_keys[::-3].tolist()]
    columns = truth.columns(keys)
    part = truth.next_item(users, positions, columns)
    assert part.shape == (20, len(keys))
    assert not part[:, 0].any()
    np.testing.assert_array_equal(part[:, 1:], whole[:, ::-1][:, ::3])


def test_chunks_do_not_change_probabilities(truth: Truth, monkeypatch):
    users = np.arange(30)
    whole = truth.next_item(users, users % 4)
    monkeypatch.setattr("lib.data.world.truth.CELLS", 7 * truth.catalogue.n_items)
    np.testing.assert_allclose(truth.next_item(users, users % 4), whole, atol=1e-6)


def test_keys_and_events_of_another_world_are_refused(truth: Truth):
    with pytest.raises(ValueError, match="such as 'B0NOTHERE1' are not of this world"):
        truth.columns(["B0NOTHERE1"])
    with pytest.raises(ValueError, match="1 of 1 events were never drawn"):
        truth.locate([str(truth.item_keys[0])], [1_000])
    with pytest.raises(ValueError, match="no clicks of 'avazu_x2' 'valid', expected one of"):
        truth.clicks("avazu_x2", "valid")


def test_a_truth_that_was_not_finished_does_not_open(tmp_path: Path):
    write_small(tmp_path, n_users=20)
    (tmp_path / "truth" / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no manifest\.json"):
        Truth.open(tmp_path / "truth")


@pytest.mark.parametrize(("log", "split", "label"), FILES)
def test_click_truth_is_aligned_with_the_rows_of_its_file(folder, truth, log, split, label):
    rows = pl.read_csv(folder / log / f"{split}.csv")
    clicks = truth.clicks(log, split)
    assert rows[label].to_list() == clicks.labels.tolist()


def test_toss_labels_of_train_are_in_the_file_and_of_test_only_in_the_truth(folder, truth):
    train = pl.read_parquet(folder / "toss" / "train.parquet")
    test = pl.read_parquet(folder / "toss" / "test.parquet")
    assert train["clicked"].to_list() == truth.clicks("toss", "train").labels.tolist()
    assert "clicked" not in test.columns
    assert len(test) == len(truth.clicks("toss", "test").labels)


@pytest.mark.parametrize(("log", "split"), [("avazu_x1", "train"), ("toss", "train")])
def test_clicks_happen_as_often_as_stated_at_every_level(truth: Truth, log: str, split: str):
    """Ten bins of the expectation, each within 4.4 sigma: a false alarm once in 10,000."""
    clicks = truth.clicks(log, split)
    for bins in np.array_split(np.argsort(clicks.expected), 10):
        wanted = clicks.expected[bins].astype(float)
        spread = np.sqrt((wanted * (1 - wanted)).sum())
        assert abs(clicks.labels[bins].sum() - wanted.sum()) < 4.4 * spread


def test_the_expectation_is_the_mean_over_the_remainder():
    logits = np.linspace(-6, 3, 7, dtype=np.float32)
    noise = np.random.default_rng(1).standard_normal((400_000, 1)).astype(np.float32)
    drawn = sigmoid(logits + 0.8 * noise).mean(axis=0)
    np.testing.assert_allclose(expected_probability(logits, 0.8), drawn, atol=5e-4)


def test_the_intercept_gives_the_rate_that_was_asked():
    logits = np.random.default_rng(2).standard_normal(5_000).astype(np.float32)
    intercept = find_intercept(logits, 0.5, 0.019)
    rate = expected_probability(logits + np.float32(intercept), 0.5).mean()
    assert abs(rate - 0.019) < 1e-5


def test_expected_gains_are_those_of_drawn_targets():
    """20,000 draws for each of three users; 4.4 sigma."""
    rng = np.random.default_rng(3)
    chances = rng.dirichlet(np.full(12, 0.4), 3).astype(np.float32)
    gains = expected_gains(chances, ks=[1, 3])
    many = np.repeat(chances, 20_000, axis=0)
    edges = np.cumsum(many.astype(np.float64), axis=1)
    draw = rng.random((len(edges), 1)) * edges[:, -1:]
    targets = (edges <= draw).sum(axis=1)
    own = many[np.arange(len(many)), targets]
    ranks = 1 + (many > own[:, None]).sum(axis=1)
    for name, per_draw in {
        "hit@3": ranks <= 3,
        "ndcg@3": np.where(ranks <= 3, 1 / np.log2(ranks + 1), 0),
        "mrr": 1 / ranks,
    }.items():
        mean = per_draw.reshape(3, -1).mean(axis=1)
        spread = np.sqrt(gains[name].variance / 20_000) + 1e-6
        assert (np.abs(mean - gains[name].mean) < 4.4 * spread).all()


def test_nobody_ranks_better_than_the_truth(truth: Truth):
    users = np.arange(100)
    positions = truth.lengths()[users] - 1
    real = truth.next_item(users, positions)
    best = expected_gains(real, [10])["ndcg@10"].mean
    for known in (frozenset(), OBSERVABLE):
        scores = truth.next_item(users, positions, known=known)
        assert (expected_gains(real, [10], scores)["ndcg@10"].mean <= best + 1e-9).all()


def test_click_ceilings_hold_what_the_real_labels_show_and_beat_a_blurred_truth(truth: Truth):
    clicks = truth.clicks("avazu_x4", "test")
    ceiling = click_ceiling(clicks.expected, auc, draws=100, seed=1)
    assert ceiling.low < ceiling.value < ceiling.high
    half = ceiling.high - ceiling.value
    assert abs(auc(clicks.labels, clicks.expected) - ceiling.value) < 2.2 * half  # 4.4 sigma
    noise = np.random.default_rng(1).standard_normal(len(clicks.expected)).astype(np.float32)
    blurred = sigmoid(np.log(clicks.expected / (1 - clicks.expected)) + noise)
    worse = click_ceiling(clicks.expected, auc, draws=100, seed=1, scores=blurred)
    assert worse.value < ceiling.low
    loss = click_ceiling(clicks.expected, log_loss, draws=50, seed=1)
    worse_loss = click_ceiling(clicks.expected, log_loss, draws=50, seed=1, scores=blurred)
    assert loss.value < worse_loss.value


def test_ceilings_of_means_are_the_mean_and_narrow_with_users():
    chances = np.full((400, 4), 0.25, dtype=np.float32)
    few = mean_ceiling(expected_gains(chances[:100], [1])["hit@1"])
    many = mean_ceiling(expected_gains(chances, [1])["hit@1"])
    assert few.value == pytest.approx(0.25)
    assert few.high - few.low == pytest.approx(2 * (many.high - many.low))


def test_the_ladder_rises_from_popularity_to_everything(truth: Truth):
    rungs = [part.value for part in signal_ladder(truth, k=10, max_users=200).values()]
    assert rungs[0] < rungs[1] < min(rungs[2:4])
    assert max(rungs[2:4]) < rungs[4] <= rungs[5]


def test_the_page_has_numbers_for_spread_titles_and_rates(folder: Path, truth: Truth):
    shape = describe_world(truth)
    assert 0.02 < shape.repeat_share < 0.3
    assert 0.2 < shape.burst_share < 0.45
    assert shape.popularity.sum() == len(truth.items)
    assert "plain" in title_examples(truth, per_kind=2)["kind"].to_list()
    rates = click_rates(folder / "avazu_x4")
    per_context = rates.group_by("context").agg(pl.col("impressions").sum())["impressions"]
    assert per_context.n_unique() == 1
