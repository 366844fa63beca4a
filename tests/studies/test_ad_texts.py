"""What ads say beside what their clicks say: no row's own answer leaks, and new ads gain."""

import numpy as np
import polars as pl
import pytest

from lib.studies import ad_texts
from lib.studies.ad_texts import AdTexts, add_titles, read_ad_texts, segment_gains, title_words


class Log:
    """As much of Clicks as is read: labels, and 60 % training, 20 % valid, 20 % test rows."""

    def __init__(self, label):
        self.label = np.asarray(label, dtype=np.int8)

    def rows(self, split):
        n = len(self.label)
        edges = {"train": (0, n * 6 // 10), "valid": (n * 6 // 10, n * 8 // 10),
                 "test": (n * 8 // 10, n)}  # fmt: skip
        return np.arange(*edges[split])


def make_log(rng, *, n_rows=20_000, n_ads=300, effect=1.2):
    """Ads whose click rate is decided by two of thirty words; the last forty appear after train."""
    words = [f"word{i}" for i in range(30)]
    worth = effect * rng.normal(size=30)
    picks = np.stack([rng.choice(30, 2, replace=False) for _ in range(n_ads)])
    titles = [" ".join(words[i] for i in pair) for pair in picks]
    ads = rng.integers(0, n_ads - 40, n_rows)
    late = np.arange(n_rows) >= n_rows * 6 // 10
    ads = np.where(late & (rng.random(n_rows) < 0.3), rng.integers(n_ads - 40, n_ads, n_rows), ads)
    p = 1 / (1 + np.exp(1.5 - worth[picks].sum(axis=1)))[ads]
    log = Log(rng.random(n_rows) < p)
    train = log.rows("train")
    seen = np.bincount(ads[train], minlength=n_ads)
    clicked = np.bincount(ads[train], log.label[train], n_ads).astype(np.int64)
    return log, AdTexts(titles, ads, seen, clicked)


def test_the_dual_ridge_equals_the_primal_one():
    rng = np.random.default_rng(0)
    x, y, weight = rng.normal(size=(40, 7)), rng.normal(size=40), rng.random(40) + 0.1
    mean = np.average(y, weights=weight)
    beta = np.linalg.solve(
        x.T @ (weight[:, None] * x) + 0.3 * np.eye(7), x.T @ (weight * (y - mean))
    )
    np.testing.assert_allclose(ad_texts._ridge(x, y, weight, 0.3, x), mean + x @ beta, rtol=1e-9)


def test_a_known_ads_prior_does_not_know_its_own_clicks(monkeypatch):
    monkeypatch.setattr(ad_texts, "PENALTIES", (1.0,))
    rng = np.random.default_rng(1)
    x, rates, n = rng.normal(size=(50, 9)), rng.normal(size=50), np.full(50, 30)
    before = ad_texts._predict_rates(x, rates, n)
    rates[7] += 5
    after = ad_texts._predict_rates(x, rates, n)
    assert after[7] == pytest.approx(before[7], abs=1e-12)
    assert np.abs(np.delete(after - before, 7)).max() > 0.01


def test_words_help_where_an_ad_was_never_seen():
    log, texts = make_log(np.random.default_rng(2))
    valid, test = log.rows("valid"), log.rows("test")
    flat = (np.full(len(valid), -1.5), np.full(len(test), -1.5) + 1e-6 * np.arange(len(test)))
    rows = {"none": flat[1], "rates": add_titles(texts, None, log, valid, test, flat),
            "words": add_titles(texts, title_words(texts.titles), log, valid, test, flat)}  # fmt: skip
    found = segment_gains(texts, log, test, rows, against="none")
    new = found.filter(pl.col("ad seen in training") == "never")
    low = dict(zip(new["row"], new["low"], strict=True))
    assert low["words"] > 0.1
    assert low["rates"] < 0.05  # nothing is known of a new ad's clicks
    assert found.filter(row="words")["gain"][0] > found.filter(row="rates")["gain"][0]


def test_unseen_ads_keep_their_titles(tmp_path):
    rng = np.random.default_rng(3)
    log = Log(rng.integers(0, 2, 50))
    ads = np.where(np.arange(50) < 30, 7, 9)
    for split in ("train", "valid", "test"):
        rows = log.rows(split)
        pl.DataFrame({"label": log.label[rows], "feat_14": ads[rows]}).write_parquet(
            tmp_path / f"x1_{split}.parquet"
        )
    path = tmp_path / "ad_text.tsv"
    path.write_text("field\tvalue\ttitle\nC14\t7\tOld\nC14\t9\tNew\n", "utf-8")
    texts = read_ad_texts(log, tmp_path, path)
    assert [texts.titles[ad] for ad in texts.ads[[0, 49]]] == ["Old", "New"]
    assert texts.rows[texts.ads[49]] == 0
    assert texts.clicks.sum() == log.label[:30].sum()
    log.label = 1 - log.label
    with pytest.raises(ValueError, match="not those of the clicks"):
        read_ad_texts(log, tmp_path, path)
