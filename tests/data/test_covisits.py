"""Co-visit features: equal to a slow count, and blind to a row's own label."""

import math

import numpy as np
import pytest

from lib.data.clicks import Layout
from lib.data.clicks_writer import write_clicks
from lib.data.covisits import AGGREGATES, CovisitPlan, count_covisits, covisit_block
from lib.data.extend import extend_numeric

N = 240
LAYOUT = Layout(fields=("ad", "hour"), field_sizes=(5, 4), n_tokens=8)
PLAN = CovisitPlan(target="ad", max_len=4, smoothing=5.0, min_impressions=3, recency_tau=2.0)


def make_arrays(seed=0, folds=3):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 7, N)
    split = rng.choice([0, 0, 0, 1, 2], N).astype(np.uint8)
    label = (rng.random(N) < 0.4).astype(np.int8)
    return {
        "categorical": np.stack([rng.integers(2, 5, N), rng.integers(7, 9, N)], 1).astype(np.int32),
        "numeric": np.zeros((N, 0), np.float32),
        "missing": np.zeros((N, 0), np.uint8),
        "label": np.where(split == 2, -1, label).astype(np.int8),
        "fold": np.where(split == 0, rng.integers(0, folds, N), -1).astype(np.int16),
        "group": np.zeros(N, np.int32),
        "split": split,
        "lengths": lengths.astype(np.int32),
        "tokens": rng.integers(2, 8, lengths.sum()).astype(np.uint8),
    }


def write(folder, arrays):
    return write_clicks(folder, LAYOUT, [(N, lambda: arrays)], n_rows=N, shard_rows=100)


def features_by_loop(arrays, row, time=False):
    ends = np.concatenate([[0], np.cumsum(arrays["lengths"])])

    def events(r):
        return arrays["tokens"][ends[r] : ends[r + 1]][-PLAN.max_len :].tolist()

    def target(r):
        return tuple(arrays["categorical"][r, : 2 if time else 1])

    own = arrays["fold"][row]
    used = [
        r for r in range(N) if arrays["split"][r] == 0 and (own < 0 or arrays["fold"][r] != own)
    ]
    rate = (sum(arrays["label"][r] == 1 for r in used) + 0.5) / (len(used) + 1)
    ratios, seen = [], []
    for token in events(row):
        pairs = [arrays["label"][r] for r in used if target(r) == target(row) for t in events(r)
                 if t == token]  # fmt: skip
        ctr = (sum(pairs) + PLAN.smoothing * rate) / (len(pairs) + PLAN.smoothing)
        enough = len(pairs) >= PLAN.min_impressions
        ratios.append(min(max(ctr, PLAN.low), PLAN.high) / rate if enough else 1.0)
        seen.append(len(pairs))
    if not ratios:
        return [0.0] * len(AGGREGATES)
    n = len(ratios)
    weights = [math.exp(-(n - 1 - place) / PLAN.recency_tau) for place in range(n)]
    top = sorted(ratios)[-3:]
    recent = sum(w * x for w, x in zip(weights, ratios, strict=True)) / sum(weights)
    norm = (sum(x**PLAN.power for x in ratios) / n) ** (1 / PLAN.power)
    means = [sum(ratios) / n, max(ratios), sum(top) / len(top), recent, norm]
    amounts = [math.log1p(sum(seen)) / 10, math.log1p(max(seen)) / 10]
    return [math.log1p(sum(ratios)), *map(math.log, means), *amounts]


@pytest.mark.parametrize("time", [None, "hour"])
def test_features_equal_the_slow_count(tmp_path, time):
    arrays = make_arrays()
    clicks = write(tmp_path / "c", arrays)
    plan = CovisitPlan(target="ad", time=time, max_len=4, smoothing=5.0, min_impressions=3,
                       recency_tau=2.0)  # fmt: skip
    found = covisit_block(clicks, plan).compute(np.arange(N))
    expected = [features_by_loop(arrays, row, time=time is not None) for row in range(N)]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_flipping_a_label_leaves_that_rows_own_features_alone(tmp_path):
    arrays = make_arrays()
    before = extend_numeric(*block_of(tmp_path / "before", arrays)).numeric
    moved = 0
    for number, row in enumerate(np.flatnonzero(arrays["split"] == 0)[:12]):
        flipped = arrays | {"label": arrays["label"].copy()}
        flipped["label"][row] = 1 - flipped["label"][row]
        after = extend_numeric(*block_of(tmp_path / f"after{number}", flipped)).numeric
        np.testing.assert_array_equal(after[row], before[row])
        moved += int((after != before).any())
    assert moved  # others do see it, or the features would say nothing


def test_labels_of_valid_and_test_rows_change_nothing(tmp_path):
    arrays = make_arrays()
    before = extend_numeric(*block_of(tmp_path / "before", arrays)).numeric
    other = arrays | {"label": np.where(arrays["split"] == 1, 1, arrays["label"]).astype(np.int8)}
    after = extend_numeric(*block_of(tmp_path / "after", other)).numeric
    np.testing.assert_array_equal(before, after)


def block_of(folder, arrays):
    clicks = write(folder, arrays)
    return clicks, [covisit_block(clicks, PLAN)]


def test_columns_are_named_after_target_and_aggregate(tmp_path):
    clicks = extend_numeric(*block_of(tmp_path / "c", make_arrays()))
    assert clicks.numeric_names == [f"covisit:ad:{name}" for name in AGGREGATES]
    assert clicks.take([3, 1]).numeric.shape == (2, len(AGGREGATES))
    with pytest.raises(ValueError, match="is there already"):
        extend_numeric(clicks, [covisit_block(clicks, PLAN)])


def test_counts_of_two_ways_to_add_are_the_same(tmp_path, monkeypatch):
    clicks = write(tmp_path / "c", make_arrays())
    sparse = count_covisits(clicks, PLAN)
    monkeypatch.setattr("lib.data.covisits.ROWS_AT_ONCE", 7)
    monkeypatch.setattr("lib.data.covisits._batches", many_batches)
    dense = count_covisits(clicks, PLAN)
    np.testing.assert_array_equal(sparse.impressions, dense.impressions)
    np.testing.assert_array_equal(sparse.clicks, dense.clicks)
    assert sparse.impressions.sum() == sum(
        min(length, 4) for length, split in zip(
            np.diff(clicks.sequence[0]), clicks.split, strict=True) if split == 0
    )  # fmt: skip


def many_batches(clicks, train, max_len):
    for row in train:
        yield clicks.take([row], max_len=max_len)


def test_one_fold_is_refused_because_every_row_would_see_itself(tmp_path):
    clicks = write(tmp_path / "c", make_arrays(folds=1))
    with pytest.raises(ValueError, match=r"1 fold\(s\), expected at least 2"):
        count_covisits(clicks, PLAN)


def test_an_unknown_target_and_an_impossible_plan_are_refused(tmp_path):
    clicks = write(tmp_path / "c", make_arrays())
    with pytest.raises(ValueError, match="'adset' is not a field: ad, hour"):
        count_covisits(clicks, CovisitPlan(target="adset"))
    with pytest.raises(ValueError, match="smoothing and tau above 0"):
        CovisitPlan(target="ad", smoothing=0)
    with pytest.raises(ValueError, match="0 < low < high < 1"):
        CovisitPlan(target="ad", low=0.9, high=0.1)
