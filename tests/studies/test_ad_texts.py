"""What ads say beside what their clicks say: no row's own answer leaks, and new ads gain."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from lib.language.tokens import train_tokenizer
from lib.studies import ad_texts
from lib.studies.ad_texts import (
    AdTexts,
    add_titles,
    read_ad_texts,
    segment_gains,
    title_words,
)
from lib.studies.title_reading import TitleTokens


class Log:
    """As much of Clicks as is read: labels, and 60 % training, 20 % valid, 20 % test rows."""

    fields = ("feat_1", "feat_14")

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
    return log, AdTexts(titles, ads, seen, clicked, "feat_14")


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
    hostile = ['a "quoted"\ttab', 'two\nlines, 12" long']  # written as world/write_avazu.py does
    told = pl.DataFrame({"field": ["C14", "C14"], "value": ["7", "9"], "title": hostile})
    told.write_csv(path, separator="\t")
    texts = read_ad_texts(log, tmp_path, path)
    assert [texts.titles[ad] for ad in texts.ads[[0, 49]]] == hostile
    assert texts.clicks.sum() == log.label[:30].sum()
    log.label = 1 - log.label
    with pytest.raises(ValueError, match="not the 50 of the clicks"):
        read_ad_texts(log, tmp_path, path)
    with pytest.raises(ValueError, match="0 rows of empty are not the 50"):
        read_ad_texts(log, tmp_path / "empty", path)
    path.write_text("field\tvalue\ttitle\nC14\t7\tOld\nsite\t9\tNew\n", "utf-8")
    with pytest.raises(ValueError, match=r"expected exactly one of \('feat_1', 'feat_14'\)"):
        read_ad_texts(log, tmp_path, path)


class Rows:
    """Two fields: an ad that training may not know (feat_14) and a campaign (feat_1)."""

    fields, field_offsets, field_sizes, n_ids = (
        ["feat_1", "feat_14"], np.array([0, 6]), np.array([6, 8]), 14)  # fmt: skip

    def __init__(self, rng, n=80):
        self.ads = rng.integers(0, 9, n)
        self.ads[-8:] = 9  # an ad that training never saw: its id is 6 + 1
        ad_id = np.where(self.ads < 6, 2 + self.ads, 1)
        self.categorical = np.stack([self.ads * 2 // 3 % 6, 6 + ad_id], axis=1).astype(np.int32)
        self.label = rng.integers(0, 2, n).astype(np.int8)

    def rows(self, split):
        return {"train": np.arange(60), "valid": np.arange(60, 70), "test": np.arange(70, 80)}[
            split
        ]

    def take(self, rows, max_len=None):
        return SimpleNamespace(categorical=self.categorical[rows])

    def texts(self):
        train = self.rows("train")
        return AdTexts([f"title {ad}" for ad in range(10)], self.ads,
                       np.bincount(self.ads[train], minlength=10),
                       np.bincount(self.ads[train], self.label[train], 10).astype(int), "feat_14")  # fmt: skip


@pytest.fixture(scope="module")
def titles():
    rows = Rows(np.random.default_rng(4))
    tokenizer = train_tokenizer(["title 0 1 2 3 4 5 6 7 8 9"] * 3, n_tokens=270)
    backbone = SimpleNamespace(tokenizer=tokenizer, pad_id=0)
    return rows, tokenizer, TitleTokens(rows, rows.texts(), backbone, max_tokens=20)


def test_a_row_with_an_unseen_ad_gets_its_title_and_full_doubt(titles):
    rows, tokenizer, tokens = titles
    some = np.array([79, 3, 75])
    batch = tokens.add({"categorical": torch.from_numpy(rows.categorical[some])}, some)
    said = [tokenizer.decode(row[:n]) for row, n in
            zip(batch["title"], batch["title_mask"].sum(1), strict=True)]  # fmt: skip
    assert said == [f"title {rows.ads[row]}" for row in some]
    assert said[0] == "title 9"
    assert batch["categorical"][0, 1] == 7  # the id says only that nobody knows it
    n = rows.texts().rows[rows.ads[3]]
    assert batch["doubt"].tolist() == pytest.approx([1.0, 20 / (20 + n), 1.0])


def test_a_hidden_ad_leaves_what_a_log_without_its_rows_would_know(titles):
    rows, _, tokens = titles
    train = rows.rows("train")
    for ad in range(10):
        own = np.flatnonzero(rows.ads == ad)
        hidden = tokens.hiding(np.array([ad]))
        found = hidden.add({"categorical": torch.from_numpy(rows.categorical[own])}, own)
        rest = rows.categorical[train[rows.ads[train] != ad]]
        for row, shown in zip(own, found["categorical"].tolist(), strict=True):
            for column, offset in enumerate((0, 6)):
                value = rows.categorical[row, column]
                known = (rest[:, column] == value).sum() >= 2 or value == offset
                assert shown[column] == (value if known else offset + 1)
        assert found["doubt"].tolist() == [1.0] * len(own)
        assert found["categorical"][:, 1].eq(7).all()
        others = np.flatnonzero(rows.ads != ad)
        same = hidden.add({"categorical": torch.from_numpy(rows.categorical[others])}, others)
        assert torch.equal(same["categorical"], torch.from_numpy(rows.categorical[others]))


def test_kept_tokens_are_a_share_of_the_title_in_their_order_and_the_same_again(titles):
    rows, _, tokens = titles
    some = np.arange(80)
    batch = {"categorical": torch.from_numpy(rows.categorical)}
    whole, part, again = (
        t.add(batch, some) for t in (tokens, *[tokens.hiding(np.arange(0), keep=0.5)] * 2)
    )
    assert torch.equal(part["title"], again["title"])
    lengths = part["title_mask"].sum(1)
    assert 0.3 < lengths.sum() / whole["title_mask"].sum() < 0.7
    for row, n in enumerate(lengths.tolist()):
        left = iter(whole["title"][row].tolist())
        assert all(token in left for token in part["title"][row, :n].tolist())
